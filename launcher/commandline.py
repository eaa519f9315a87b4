"""The command line, and the order in which everything that sets an option counts."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
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
from jwtproxy.tokens.key_source import KeySource

from . import environment, option_checks
from .master import Master
from .option_checks import as_settings_errors
from .report import warn

GRACE = 8.0
"""Seconds that requests in flight have to finish after SIGTERM; docker kills after 10."""
GRACE_LIMIT = 86_400.0

FLAGS = {
    "listen_port": "--port",
    "listen_host": "--host",
    "workers": "--workers",
    CLIENTS: "--allow-client",
}
"""The flags of our own that say the same as an option."""

_EXAMPLES = """\
examples:
  (umask 077; openssl rand -hex 64 >secret)        make a key that only you can read
  JWT_SHARED_SECRET_FILE=secret jwtproxy-run       serve on http://127.0.0.1:8080
  curl --proxy http://127.0.0.1:8080 http://…      send a request through it
  jwtproxy-run --port 9090 --set jwt_user=ci       another port, another user in the tokens
  jwtproxy-run --mode reverse:https://api.example  stand in front of one server
  jwtproxy-run -s mine.py -w flows                 everything mitmdump can do
  jwtproxy-run help keys                           the manual, a topic of it; without a topic, the list of them
  jwtproxy-run --check                             check all settings, serve nothing
  jwtproxy-run explain GET https://api.example/    what would happen to a request, and its token
  jwtproxy-run keys new --alg ES256 --out key.pem  make a private key; also: keys list, keys jwks
  jwtproxy-run --set jwt_key_file=key.pem          sign with it; public keys are at /.well-known/jwks.json

environment (also read from .env in this directory; flags and --set win):
  JWT_SHARED_SECRET        the key, in hexadecimal, at least 64 bytes for HS512
  JWT_SHARED_SECRET_FILE   a file that holds it
  JWT_KEY_FILE             or a file with a private key: PEM, JWK or JWKS
  JWT_KEY_DIR              or a folder of them, for rotation
  JWT_KEY_PASSPHRASE       the passphrase of an encrypted key; or JWT_KEY_PASSPHRASE_FILE
  JWT_…                    every option jwt_…, in capitals; jwtproxy-run --options shows them
  HTTP_PORT, HTTP_HOST     where to listen: 8080, 127.0.0.1; HTTP_HOST=* is every address
  WORKERS                  how many processes serve: 1, a number, or auto (one for each core)
"""


def parser(options: Options) -> argparse.ArgumentParser:
    """Mitmdump's parser with our flags."""
    parser: argparse.ArgumentParser = cmdline.mitmdump(options)
    parser.prog = "jwtproxy-run"
    parser.description = "A proxy that signs every request with a fresh JSON Web Token in x-my-jwt."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.error = usage_error  # type: ignore[method-assign]
    ours = parser.add_argument_group("jwtproxy")
    ours.add_argument("--port", metavar="PORT", help="the port to listen on, as -p (HTTP_PORT, 8080)")
    ours.add_argument(
        "--host", metavar="HOST", help="the address to listen on, as --listen-host; * is all (HTTP_HOST, 127.0.0.1)"
    )
    ours.add_argument("--workers", metavar="N", help="how many processes serve; auto is one for each core (WORKERS, 1)")
    ours.add_argument(
        "--allow-client",
        action="append",
        metavar="CIDR",
        help="an address or network that may use the proxy, and no other; may be repeated (jwt_allow_client, all)",
    )
    ours.add_argument(
        "--grace",
        default=str(GRACE),
        metavar="SECONDS",
        help=f"how long requests in flight may go on after SIGTERM ({GRACE:g})",
    )
    ours.add_argument("--check", action="store_true", help="check all settings, report the result, and exit")
    ours.add_argument("--json", action="store_true", help="with --check: all settings and where each comes from")
    return parser


def usage_error(message: str) -> NoReturn:
    """What argparse is to do with a mistake. Raises SettingsError."""
    raise SettingsError(message, "jwtproxy-run --help lists the flags and commands")


def grace(args: argparse.Namespace) -> float:
    """Seconds that requests in flight have after SIGTERM. Raises SettingsError."""
    try:
        seconds = float(args.grace)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= GRACE_LIMIT:
        raise SettingsError(f"bad value {args.grace!r} for --grace", f"use a number of seconds, 0 to {GRACE_LIMIT:g}")
    return seconds


def set_options(options: Options, args: argparse.Namespace, variables: dict[str, object]) -> None:
    """Weakest first: our defaults, config.yaml, variables, --set, flags. Raises SettingsError.

    Ours are not known to mitmproxy yet: they wait, as those of scripts do, to be set together with our addons' coming.
    """
    with as_settings_errors():
        options.update(rawtcp=False, listen_host="127.0.0.1")
        for path in config_files(options, args):
            optmanager.load_paths(options, path)
        for name, value in list(options.deferred.items()):
            if name.startswith("jwt_") and value is None:
                del options.deferred[name]
            elif name.startswith("jwt_") and type(value) in (int, float):
                options.deferred[name] = str(value)  # 5 is as good as "5"
        options.update_defer(**variables)
        options.set(*args.setoptions, defer=True)
        if args.allow_client:
            clients = ",".join(args.allow_client)
            _agree("--allow-client", clients, CLIENTS, {}, args.setoptions)
            options.set(f"{CLIENTS}={clients}", defer=True)
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
    flags = {variable: specs[option] for option, variable in names.items() if option in specs}
    # What none of the others says, and is set all the same, config.yaml says.
    rest = {option: variable for option, variable in names.items() if option not in specs}
    config = {variable: str(options.deferred.get(option) or "") for option, variable in rest.items()}
    return flags, *found, config


def _flags(options: Options, args: argparse.Namespace) -> dict[str, Any]:
    """The options that flags set, the short and the long of it reconciled."""
    flags = {name: value for name, value in vars(args).items() if name in options and value is not None}
    if args.quiet or args.options or args.commands or args.check:
        flags |= {"termlog_verbosity": "error", "flow_detail": 0}
    if args.verbose:
        flags |= {"termlog_verbosity": "debug", "flow_detail": 2}
    if args.filter_args:
        pattern = " ".join(args.filter_args)
        flags |= dict.fromkeys(("save_stream_filter", "readfile_filter", "dumper_filter"), pattern)
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
        long = f"--set {name}={other}" if name.startswith("jwt_") else f"--{name.replace('_', '-')} {other}"
        raise SettingsError(f"{flag} {given} and {long} contradict each other", "keep one of the two")
