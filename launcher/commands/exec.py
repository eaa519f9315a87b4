"""`jwtproxy-run exec -- COMMAND`: run a command whose requests all go through a proxy of its own, and are signed."""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mitmproxy.options import CONF_BASENAME, Options
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, UpstreamMode

from jwtproxy.config.errors import SettingsError
from jwtproxy.policy.current import CurrentPolicy
from jwtproxy.tokens.key_source import PASSPHRASE, SECRET, KeySource

from .. import beside, commandline, environment, running, usage
from ..addons.tally import Passed
from ..clients import bundles, variables
from ..master import Master
from ..plan import Plan, prepare_ca
from ..processes import command, secrecy
from ..report import report, tell_on_stderr, warn
from ..running import Reach
from ..serving import set_log_levels

NOTHING_SIGNED = 3
"""The exit status where --require-signed was given, and no request was signed."""
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # as shells, env and timeout have it

_DESCRIPTION = """\
Run COMMAND with a proxy of its own: its requests are signed, and the key stays out of it. The variables by
which programs find a proxy and trust its CA are set for it alone; what it reads and prints, the terminal,
signals and the exit status are its own. Settings are read as for serving, but for where to listen.
jwtproxy-run help clients tells which programs go by these variables."""
_EXAMPLES = """\
examples:
  jwtproxy-run exec -- curl https://api.example/orders/7
  jwtproxy-run exec --user ci --summary --require-signed -- npm test
  jwtproxy-run exec --proxy http://127.0.0.1:8080 -- ./deploy.sh

exit status: that of COMMAND; 2 the settings are wrong, 3 nothing was signed (--require-signed),
126 COMMAND cannot be run, 127 it is not found
"""
_HOW = "put -- before the command: jwtproxy-run exec -- curl https://api.example/"
_OF_SERVERS = ("HTTP_PORT", "HTTP_HOST", "WORKERS")
_OF_OWN_PROXY = commandline.FLAGS | {
    "port": "--port",
    "host": "--host",
    "setoptions": "--set",
    "scripts": "--scripts",
    "filter": "--filter",
    "summary": "--summary",
    "require_signed": "--require-signed",
}
"""Flags that mean nothing to who uses another proxy, by what they set."""


def run(arguments: list[str]) -> int:
    """Run the command; the exit status. Raises SettingsError."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    flags, words = arguments[:place], arguments[place + 1 :]
    set_log_levels()
    secrecy.hide()
    args, reach, plan = asyncio.run(_prepared(flags, words))
    secrecy.forget(os.environ)
    try:
        command.check(words[0])  # before anything is started
        status, passed = beside.run(words, reach, plan)
    except OSError as error:
        return _cannot_run(words[0], error)
    if args.summary:
        tell_on_stderr(passed.in_words() if passed else "the proxy has not said what was signed")
    if args.require_signed and not (passed and passed.signed) and not os.WIFSIGNALED(status):
        _tell_of_nothing_signed(passed)
        return NOTHING_SIGNED
    sys.stdout.flush()
    return command.end_like(status)


def _tell_of_nothing_signed(passed: Passed | None) -> None:
    if passed:
        said = "the command sent no request that could be signed"
        report(said, "jwtproxy-run help clients tells which programs go around proxies, and what to do")
    else:
        report("it is not known whether anything was signed, as the proxy has not said it")


async def _prepared(flags: list[str], words: list[str]) -> tuple[argparse.Namespace, Reach, Plan | None]:
    """The flags, where requests are to go, and the proxy that is to run there. Raises SettingsError."""
    with commandline.preview() as master:
        parser = commandline.parser(master.options)
        usage.of_command(parser, "exec", "[options] -- COMMAND …", _DESCRIPTION, _EXAMPLES)
        own = parser.add_argument_group("exec")
        own.add_argument("--proxy", metavar="URL", help="use this proxy, which runs already (one of its own)")
        own.add_argument("--summary", action="store_true", help="say at the end what was signed, by host")
        own.add_argument(
            "--require-signed", action="store_true", help=f"exit with {NOTHING_SIGNED} if no request was signed"
        )
        args = parser.parse_args(flags)
        if args.filter_args or not words:
            said = f"{args.filter_args[0]!r} comes before --" if args.filter_args else "exec needs a command"
            raise SettingsError(said, _HOW)
        commandline.refuse(args, "exec", "check", "json", "options", "commands", "version")
        return args, *(_of_another(args) if args.proxy else _of_own(master, args))


def _of_own(master: Master, args: argparse.Namespace) -> tuple[Reach, Plan]:
    """A proxy of the command's own. Raises SettingsError."""
    options, found = master.options, environment.sources(Path())
    named = {spec.partition("=")[0] for spec in args.setoptions}
    if args.workers:
        raise SettingsError("--workers means nothing to exec", "leave it out: one process serves one command")
    if args.port is None and args.listen_port is None and "listen_port" not in named:
        args.port = "0"
    if args.host is None and args.listen_host is None and "listen_host" not in named:
        args.host = commandline.DEFAULTS["listen_host"]
    if args.flow_detail is None and "flow_detail" not in named:
        args.flow_detail = 0  # standard output is the command's, and so is the terminal
    found = tuple({name: source[name] for name in source if name not in _OF_SERVERS} for source in found)
    source, current = commandline.configure(master, args, found)
    _check_mode(options)
    prepare_ca(options)
    if not (options.ssl_verify_upstream_trusted_ca or options.ssl_verify_upstream_trusted_confdir):
        # Who is trusted by the command when it goes there directly is to be trusted here, too.
        options.ssl_verify_upstream_trusted_ca = bundles.system_roots(os.environ)
    plan = Plan.listening(options, source, current, 1, commandline.grace(args))
    for warning in () if args.quiet else (*_exposed(_key_files(source, current), found[1]), *_passed_over(options)):
        warn(warning)
    host, port, *_ = plan.all_sockets[0].getsockname()
    ca = Path(options.confdir, f"{CONF_BASENAME}-ca-cert.pem").expanduser().read_text()
    return Reach(running.dialable(host, port).url, ca), replace(plan, terminal=False)


def _check_mode(options: Options) -> None:
    """See whether programs that are told of a proxy can use it. Raises SettingsError."""
    kinds = [type(ProxyMode.parse(mode)) for mode in options.mode]
    if kinds not in ([RegularMode], [UpstreamMode]):
        raise SettingsError(
            f"exec does not work in mode {', '.join(options.mode)}", "leave --mode out, or use --mode upstream:URL"
        )
    if options.proxyauth:
        raise SettingsError(
            "exec does not work with --proxyauth, as the command would not know the password",
            "leave it out; or start a proxy with it, and use exec --proxy http://USER:PASSWORD@HOST:PORT",
        )


def _of_another(args: argparse.Namespace) -> tuple[Reach, None]:
    """A proxy that runs already. Raises SettingsError."""
    for name, flag in _OF_OWN_PROXY.items():
        if getattr(args, name, None):
            raise SettingsError(f"{flag} means nothing with --proxy", "leave one of the two out")
    reach = running.reach_named(args.proxy)
    with contextlib.suppress(SettingsError):  # nothing else is read of a .env here: it may be broken, or another's
        for warning in () if args.quiet else _exposed((), environment.sources(Path())[1]):
            warn(warning)
    return reach, None


def _key_files(source: KeySource, current: CurrentPolicy) -> Iterable[str]:
    """Where keys are: that of the settings, and those of rules."""
    rules = current.policy.decisions.rules
    return dict.fromkeys([source.path, *(str(rule.key or "") for rule in (rules.rules if rules else ()))])


def _exposed(key_files: Iterable[str], dotenv: Mapping[str, str]) -> Iterator[str]:
    """Which keys the command can read in its own folder: warnings."""
    folder = Path.cwd()
    if found := next((name for name in (SECRET, PASSPHRASE) if dotenv.get(name)), ""):
        yield f"the command can read {found} in .env here: keep that file elsewhere, and start in another directory"
    for file in filter(None, key_files):
        path = Path(file).expanduser().resolve()
        if path.is_relative_to(folder) and os.access(path, os.R_OK):
            yield f"the command can read the key in {file!r}: keep it outside of this directory"


def _passed_over(options: Options) -> Iterator[str]:
    """Which proxy the command would have used without us: a warning, unless there is a next one."""
    next_one = isinstance(ProxyMode.parse(options.mode[0]), UpstreamMode)
    if (name := variables.other_proxy(os.environ)) and not next_one:
        yield f"{name} names another proxy, which is passed over; --mode upstream:URL has requests go on to it"


def _cannot_run(word: str, error: OSError) -> int:
    """Say why there is no command; the exit status."""
    missing = isinstance(error, FileNotFoundError)
    reason = "not found" if missing else (error.strerror or "error").lower()
    report(f"cannot run {word!r}: {reason}", "name a program, and its arguments, after --")
    return _NOT_FOUND if missing else _NOT_EXECUTABLE
