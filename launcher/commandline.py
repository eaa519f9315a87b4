"""The command line, and the order in which everything that sets an option counts."""

import argparse
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from mitmproxy import optmanager
from mitmproxy.options import Options
from mitmproxy.tools import cmdline

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.conduct.access import CLIENTS
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.options import check_known
from jwtproxy.policy.current import CurrentPolicy
from jwtproxy.tokens import key_source
from jwtproxy.tokens.key_source import KeySource, check_path

from . import environment, option_checks, usage, words
from .master import Master
from .option_checks import as_settings_errors
from .report import warn

GRACE = 8.0
"""Seconds that requests in flight have to finish after SIGTERM; docker kills after 10."""
DRAIN_DELAY = 0.0
"""Seconds before that in which all is served as before, and only probes are told that the end comes."""
_LONGEST = 86_400.0

DEFAULTS = {"rawtcp": False, "listen_host": "127.0.0.1"}
"""Where ours differ from mitmdump's."""

_FLAGS = {
    "--key": ("jwt_key_file", "FILE", "a file with the key, of any usual format, or a folder"),
    "--user": ("jwt_user", "NAME", "the user that tokens name (username)"),
    "--audience": ("jwt_audience", "AUD", "their aud; origin is that of the destination (none)"),
    "--ttl": ("jwt_ttl", "SECONDS", "how long they are valid (no limit)"),
    "--header": ("jwt_header", "NAME", "the header that carries them (x-my-jwt)"),
    "--rules": ("jwt_rules", "FILE", "rules: other tokens, or none, for some requests"),
}
"""Options that people set daily: for each flag its option, its value's name, and its help."""

_LOG_OPTION, _LOG_FORMAT = "jwt_log_format", "--log-format"

FLAGS = {
    "listen_port": "--port",
    "listen_host": "--host",
    "workers": "--workers",
    CLIENTS: "--allow-client",
    _LOG_OPTION: _LOG_FORMAT,
    **{name: flag for flag, (name, *_) in _FLAGS.items()},
}
"""The flags of our own that say the same as an option, by that."""


def parser(options: Options) -> argparse.ArgumentParser:
    """Mitmdump's parser with our flags."""
    parser: argparse.ArgumentParser = cmdline.mitmdump(options)
    theirs = [*parser._action_groups]
    parser.error = partial(usage_error, parser=parser)  # type: ignore[method-assign]
    for action in parser._actions:  # argparse tells of them in no other way
        if action.dest == "filter_args":
            action.help = argparse.SUPPRESS
    tokens = parser.add_argument_group(usage.TOKENS)
    for flag, (name, value, text) in _FLAGS.items():
        tokens.add_argument(flag, dest=name, metavar=value, help=text)
    ours = parser.add_argument_group(usage.SERVING)
    ours.add_argument("--port", metavar="PORT", help="the port to listen on, as -p (HTTP_PORT, 8080)")
    ours.add_argument("--host", metavar="HOST", help="the address; * is all (HTTP_HOST, 127.0.0.1)")
    ours.add_argument("--workers", metavar="N", help="how many processes serve, or auto (WORKERS, 1)")
    ours.add_argument(
        "--allow-client",
        action="append",
        dest=CLIENTS,
        metavar="CIDR",
        help="the only clients that may use it; repeatable (all)",
    )
    ours.add_argument(
        _LOG_FORMAT,
        dest=_LOG_OPTION,
        metavar="FORMAT",
        help="how requests are logged: text or json (text)",
    )
    ours.add_argument("--filter", metavar="EXPR", help="show and record only requests that match it (all)")
    ours.add_argument(
        "--grace",
        default=str(GRACE),
        metavar="SECONDS",
        help=f"how long requests may go on after SIGTERM ({GRACE:g})",
    )
    ours.add_argument(
        "--drain-delay",
        default=str(DRAIN_DELAY),
        metavar="SECONDS",
        help=f"how long to serve on before, no longer ready ({DRAIN_DELAY:g})",
    )
    ours.add_argument("--check", action="store_true", help="check all settings, serve nothing")
    ours.add_argument("--json", action="store_true", help="with --check: all settings and where each comes from")
    usage.add_help(parser, theirs)
    return parser


def read(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The arguments of what takes no words. Raises SettingsError."""
    args = parser.parse_args(arguments)
    if stray := [word for word in args.filter_args if word != "--"]:
        raise words.stray(stray)
    return args


def refuse(args: argparse.Namespace, command: str, *flags: str) -> None:
    """Refuse flags that a command would pass over. Raises SettingsError."""
    for flag in flags:
        if getattr(args, flag):
            hint = f"leave it out: jwtproxy-run {command} --help lists what there is"
            raise SettingsError(f"--{flag} means nothing to {command}", hint)


def usage_error(message: str, parser: argparse.ArgumentParser | None = None) -> NoReturn:
    """What argparse is to do with a mistake. Raises SettingsError."""
    hint = ""
    if parser and (found := re.match(r"unrecognized arguments: (--\S+)", message)):
        ours = {option.name: FLAGS.get(option.name, "") for option in environment.OPTIONS}
        hint = words.flag_hint(found[1], parser._option_string_actions, ours)
    hint = hint or "jwtproxy-run --help lists commands and flags, --help-all mitmdump's as well"
    raise SettingsError(words.without_keys(message), hint)


def grace(args: argparse.Namespace) -> float:
    """Seconds that requests in flight have after SIGTERM. Raises SettingsError."""
    return _seconds(args.grace, "--grace")


def drain_delay(args: argparse.Namespace) -> float:
    """Seconds from SIGTERM until no more connections are taken. Raises SettingsError."""
    return _seconds(args.drain_delay, "--drain-delay")


def _seconds(value: str, flag: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST:
        raise SettingsError(f"bad value {value!r} for {flag}", f"use a number of seconds, 0 to {_LONGEST:g}")
    return seconds


def set_options(options: Options, args: argparse.Namespace, variables: dict[str, object]) -> None:
    """Weakest first: our defaults, config.yaml, variables, --set, flags. Raises SettingsError.

    Ours are not known to mitmproxy yet: they wait, as those of scripts do, to be set together with our addons' coming.
    """
    with as_settings_errors():
        options.update(**DEFAULTS)
        for path in config_files(options, args):
            optmanager.load_paths(options, path)
        for name, value in list(options.deferred.items()):
            if name.startswith("jwt_") and value is None:
                del options.deferred[name]
            elif name.startswith("jwt_") and type(value) in (int, float):
                options.deferred[name] = str(value)  # 5 is as good as "5"
        options.update_defer(**variables)
        options.set(*args.setoptions, defer=True)
        for flag, name, value in _of_ours(args):
            _agree(flag, value, name, {}, args.setoptions)
            options.set(f"{name}={value}", defer=True)
        options.update(**_flags(options, args))
        if all(mode.startswith(("reverse:http:", "reverse:https:")) for mode in options.mode):
            # Connecting before there is a request, an upstream that is down would leave clients without an answer.
            options.update(connection_strategy="lazy")


def config_files(options: Options, args: argparse.Namespace) -> list[Path]:
    """Where mitmproxy's configuration may be."""
    folders = [spec.removeprefix("confdir=") for spec in args.setoptions if spec.startswith("confdir=")]
    folder = Path(folders[-1] if folders else options.default("confdir"))
    return [folder / name for name in ("config.yaml", "config.yml")]


@contextmanager
def preview() -> Iterator[Master]:
    """A master on which settings can be tried: it writes no file, and leaves no log handler behind."""
    master = Master(Options())
    master.addons.get("save").configure = lambda updated: None  # it would truncate its file; who serves opens it
    try:
        yield master
    finally:
        logging.getLogger().handlers.clear()


def configure(master: Master, args: argparse.Namespace, found: environment.Sources) -> tuple[KeySource, CurrentPolicy]:
    """Set and check all options, with our addons there; the key's source, and the policy. Raises SettingsError."""
    warnings = environment.warnings(found)
    set_options(master.options, args, environment.options(found))
    check_known(master.options.deferred, environment.OPTIONS)
    if not master.options.scripts:
        option_checks.check_declared(master.options, (row.name for row in environment.OPTIONS))
    source = key_source.find(*_named_keys(master.options, args, found))
    signing = JwtInject(source)
    with as_settings_errors():
        master.add_ours(signing)
    option_checks.check(master.options)
    if not signing.current:  # mitmproxy only logs what it did not expect
        raise SettingsError("the settings cannot be used", "check the last change, and please report this")
    for warning in () if args.quiet else warnings:
        warn(warning)
    return source, signing.current


def _named_keys(options: Options, args: argparse.Namespace, found: environment.Sources) -> environment.Sources:
    """All that may name the signing key, strongest first: flags, environment, .env, config.yaml."""
    names = {option: option.upper() for option in ("jwt_key_file", "jwt_key_dir")}
    specs = dict(spec.split("=", 1) for spec in args.setoptions if "=" in spec)
    specs |= {name: value for _, name, value in _of_ours(args)}
    flags = {variable: specs[option] for option, variable in names.items() if option in specs}
    # What none of the others says, and is set all the same, config.yaml says.
    rest = {option: variable for option, variable in names.items() if option not in specs}
    config = {variable: str(options.deferred.get(option) or "") for option, variable in rest.items()}
    return flags, *found, config


def _of_ours(args: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """The flags given for options of ours, with the options that they set, and the values."""
    for flag, (name, _, _) in _FLAGS.items():
        if (value := getattr(args, name, None)) is not None:  # a command may have the flag for something else
            yield flag, name, value
    if form := getattr(args, _LOG_OPTION):
        yield _LOG_FORMAT, _LOG_OPTION, form
    if clients := getattr(args, CLIENTS):
        yield "--allow-client", CLIENTS, ",".join(clients)


def _flags(options: Options, args: argparse.Namespace) -> dict[str, Any]:
    """The options that flags set, the short and the long of it reconciled."""
    flags = {name: value for name, value in vars(args).items() if name in options and value is not None}
    if args.quiet or args.options or args.commands or args.check:
        flags |= {"termlog_verbosity": "error", "flow_detail": 0}
    if args.verbose:
        flags |= {"termlog_verbosity": "debug", "flow_detail": 2}
    if args.filter:
        flags |= dict.fromkeys(("save_stream_filter", "readfile_filter", "dumper_filter"), args.filter)
    host = "" if args.host == "*" else args.host
    port = None if args.port is None else environment.parse_port(args.port, "--port")
    for ours, name, given in (("--port", "listen_port", port), ("--host", "listen_host", host)):
        _agree(ours, given, name, flags, args.setoptions)
        if given is not None:
            flags[name] = given
    return flags


def _agree(flag: str, given: object, name: str, flags: dict[str, Any], specs: list[str]) -> None:
    """Refuse two different answers to one question. Raises SettingsError."""
    theirs = [str(flags[name])] if name in flags else []
    theirs += [spec.partition("=")[2] for spec in specs if spec.startswith(f"{name}=")]
    other = next((value for value in theirs if given is not None and value != str(given)), None)
    if other is not None:
        for value in (str(given), other) if name == _FLAGS["--key"][0] else ():
            check_path(value, flag)  # rather than show it
        long = f"--set {name}={other}" if name.startswith("jwt_") else f"--{name.replace('_', '-')} {other}"
        raise SettingsError(f"{flag} {given} and {long} contradict each other", "keep one of the two")
