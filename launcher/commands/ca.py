"""`jwtproxy-run ca`: the certificate that clients have to trust, and have this machine trust it, or no longer."""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mitmproxy.options import CONF_BASENAME, Options

from jwtproxy.config.errors import SettingsError
from jwtproxy.observe.pages import PEM_PATH

from .. import commandline, environment, running, usage
from ..clients import trust
from ..clients.certificate import Certificate, fingerprints, with_colons, without_colons
from ..clients.trust import Plan, Step
from ..plan import ENDS, prepare_ca
from ..report import report, warn
from .status import shown

FAILED = 1
"""The exit status where a tool has failed, or no proxy has answered."""

_USAGE = """\
usage: jwtproxy-run ca [COMMAND] [options]

jwtproxy-run ca [options]           where the CA's certificate is, and what it is known by; makes it if it is missing
jwtproxy-run ca trust [options]     have this system, and Chromium and Firefox here, trust it
jwtproxy-run ca untrust [options]   take back what trust has added, and nothing else

Each says what it will do before it does it, and with --dry-run no more than that. None needs a signing key.
Each has a --help of its own, and `jwtproxy-run help https` is the manual.
"""
_DESCRIPTIONS = {
    "show": """\
Print where the certificate of the proxy's CA is, and what it is known by: its SHA-256 fingerprint, and
the hash of its key that Chromium takes after --ignore-certificate-errors-spki-list=. Where there is no
CA yet, it is made, as a start of the proxy does.""",
    "trust": """\
Have this machine trust the proxy's CA: its system's store, which takes root, and the NSS databases of
this user's Chromium and Firefox. What is written and run is said first. Whoever has the CA's private
key can pose as any site to this machine from then on: `jwtproxy-run help security`.""",
    "untrust": """\
Take back what `jwtproxy-run ca trust` has added for this certificate, and nothing else.""",
}
_EXAMPLES = {
    "show": """\
examples:
  jwtproxy-run ca
  jwtproxy-run ca --json | jq -r .spki_sha256
  jwtproxy-run ca --proxy http://127.0.0.1:9090
""",
    "trust": """\
examples:
  jwtproxy-run ca trust --dry-run
  jwtproxy-run ca trust --nss                      for this user's browsers; needs no root
  jwtproxy-run ca trust --system --proxy http://127.0.0.1:8080
""",
    "untrust": """\
examples:
  jwtproxy-run ca untrust
  jwtproxy-run ca untrust --fingerprint AB:CD:…    of a CA that is no longer there
""",
}
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on the path of all users


class Source(NamedTuple):
    """The certificate, and where it came from: a file or a URL."""

    certificate: Certificate
    place: str


def run(arguments: list[str]) -> int:
    """Do as told; the exit status. Raises SettingsError."""
    command, rest = "show", arguments
    if arguments and not arguments[0].startswith("-"):
        command, rest = arguments[0], arguments[1:]
    if command not in _DESCRIPTIONS:
        raise SettingsError(f"unknown command 'ca {command}'", "use ca, ca trust or ca untrust")
    if arguments[:1] in (["-h"], ["--help"]):
        print(_USAGE, end="")
        return 0
    try:
        return asyncio.run(_settings(command, rest))
    except running.NoAnswerError as error:
        report(str(error), running.HINT)
    except _ToolError as error:
        report(str(error), error.hint)
    return FAILED


class _ToolError(Exception):
    """What should have been done was not."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


async def _settings(command: str, arguments: list[str]) -> int:
    with commandline.preview() as master:
        args = _read(_parser(master.options, command), command, arguments)
        commandline.set_options(master.options, args, environment.options(environment.sources(Path())))
        return _show(master.options, args) if command == "show" else _change(master.options, args, command == "trust")


def _parser(options: Options, command: str) -> argparse.ArgumentParser:
    parser = commandline.parser(options)
    name = "ca" if command == "show" else f"ca {command}"
    usage.of_command(
        parser, name, "[options]", _DESCRIPTIONS[command], _EXAMPLES[command], (usage.TOKENS, usage.SERVING)
    )
    own = parser.add_argument_group(name, conflict_handler="resolve")
    own.add_argument("--proxy", metavar="URL", help="the CA of the proxy that runs there (that in confdir)")
    own.add_argument("--fingerprint", metavar="SHA256", help="only if it is the one with this fingerprint")
    if command == "show":
        own.add_argument("--json", action="store_true", help="print JSON, for scripts")
        return parser
    own.add_argument("--system", action="store_true", help="only in the system's store")
    own.add_argument("--nss", action="store_true", help="only in NSS databases of this user: Chromium, Firefox")
    own.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    return parser


def _read(parser: argparse.ArgumentParser, command: str, arguments: list[str]) -> argparse.Namespace:
    args = commandline.read(parser, arguments)
    name = "ca" if command == "show" else f"ca {command}"
    commandline.refuse(args, name, "check", *(("json",) if command != "show" else ()))
    if args.fingerprint:
        args.fingerprint = without_colons(args.fingerprint, "--fingerprint")
    return args


# --- the certificate


def _source(options: Options, args: argparse.Namespace, may_make: bool) -> Source:
    """The certificate in question. Raises SettingsError and NoAnswerError."""
    source = _fetch(args.proxy) if args.proxy else _own(options, may_make)
    if args.fingerprint and args.fingerprint != source.certificate.fingerprint:
        found = with_colons(source.certificate.fingerprint)
        raise SettingsError(f"the certificate has another fingerprint: {found}", "compare with jwtproxy-run ca there")
    return source


def _own(options: Options, may_make: bool) -> Source:
    folder = Path(os.path.expanduser(options.confdir))  # noqa: PTH111  # Path's own raises where there is no home
    if not may_make and not (folder / f"{CONF_BASENAME}-ca.pem").exists():
        hint = "jwtproxy-run ca makes one; --set confdir=FOLDER names another"
        raise SettingsError(f"there is no CA in {str(folder)!r}", hint)
    path = folder.absolute() / f"{CONF_BASENAME}-ca-cert.pem"
    certificate = Certificate.parse(prepare_ca(options).default_ca.to_pem(), "the CA")
    if _held(path) != frozenset({certificate.fingerprint}):
        hint = f"openssl x509 -in {path.parent}/{CONF_BASENAME}-ca.pem -out {path}"
        raise SettingsError(f"{str(path)!r} does not hold the certificate of the CA that is used", hint)
    return Source(certificate, str(path))


def _held(path: Path) -> frozenset[str] | None:
    """The certificates in a file; None where there is none."""
    try:
        return fingerprints(path.read_text(errors="replace"))
    except FileNotFoundError:
        return None
    except OSError:
        return frozenset()


def _fetch(url: str) -> Source:
    proxy = running.named(url)
    place = f"{proxy.url}{PEM_PATH}"
    return Source(Certificate.parse(running.get(proxy, PEM_PATH, "*/*"), place), place)


def _show(options: Options, args: argparse.Namespace) -> int:
    certificate, place = _source(options, args, may_make=True)
    _warn_of_sudo(args, place)
    said = {
        "certificate": place,
        "subject": certificate.subject,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "fingerprint_sha256": with_colons(certificate.fingerprint),
        "spki_sha256": certificate.spki,
    }
    table = "\n".join(f"{name:<18}  {shown(value)}" for name, value in said.items())
    print(json.dumps(said) if args.json else table)
    return 0


def _warn_of_sudo(args: argparse.Namespace, place: str) -> None:
    """Root's folder is another than that of who has typed sudo."""
    user = os.environ.get("SUDO_USER", "")
    root = os.path.expanduser("~root")  # noqa: PTH111  # Path's own raises where there is none
    if user and not args.proxy and Path(place).is_relative_to(root):
        warn(f"this is the CA of root, not of {user}: --set confdir=~{user}/.mitmproxy names the other")


# --- trust


def _change(options: Options, args: argparse.Namespace, trusted: bool) -> int:
    """Say all that is to be done, then do it. Raises SettingsError, NoAnswerError, _ToolError."""
    everywhere = args.system == args.nss
    if not trusted and args.fingerprint and not args.proxy:
        pem, fingerprint, place = "", args.fingerprint, ""
    else:
        certificate, place = _source(options, args, may_make=trusted and not args.dry_run)
        _check_remote(args, trusted)
        pem, fingerprint = certificate.pem, certificate.fingerprint
    _warn_of_sudo(args, place)
    plans = [*_in_system(fingerprint, trusted, place, args.dry_run)] if args.system or everywhere else []
    plans += _in_nss(fingerprint, trusted, args.nss) if args.nss or everywhere else []
    print(f"jwtproxy: the certificate with the SHA-256 fingerprint {with_colons(fingerprint)}")
    for plan in plans:
        if not plan.steps:
            print(f"{plan.place}: {'has it already' if trusted else 'does not have it'}")
        for step in plan.steps:
            print(step)
    sys.stdout.flush()
    if not args.dry_run:
        for plan in plans:
            _carry_out(plan, pem)
        print("jwtproxy: done")
    return 0


def _check_remote(args: argparse.Namespace, trusted: bool) -> None:
    """Trust nothing that somebody on the way could have put in the place of the certificate. Raises SettingsError."""
    if args.proxy and trusted and not args.fingerprint and not running.is_here(running.named(args.proxy).host):
        hint = "give the fingerprint that jwtproxy-run ca prints on that machine: --fingerprint SHA256"
        raise SettingsError("a certificate that comes over a network unprotected needs its fingerprint", hint)


def _tools() -> set[str]:
    names = {store.update[0] for store in trust.STORES} | {trust.CERTUTIL}
    return {name for name in names if shutil.which(name, path=_path())}


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])


def _in_system(fingerprint: str, trusted: bool, place: str, dry: bool) -> Iterator[Plan]:
    folders = [store.folder for store in trust.STORES if Path(store.folder).is_dir()]
    store = trust.store_of(sys.platform, folders, _tools())
    plan = trust.system(store, fingerprint, _held(trust.file_in(store, fingerprint)), trusted)
    trust.check_root(plan, dry or os.geteuid() == 0, place)
    yield plan


def _in_nss(fingerprint: str, trusted: bool, asked: bool) -> list[Plan]:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # Path's own raises where there is none
    found = [path.parent for pattern in trust.DATABASES for path in sorted(home.glob(f"{pattern}/cert9.db"))]
    databases = found or ([home / trust.DATABASES[0]] if asked and trusted else [])
    trust.check_certutil(_tools(), databases)
    return [
        trust.nss(folder, fingerprint, _named_in(folder, fingerprint) if folder in found else None, trusted)
        for folder in databases
    ]


def _named_in(folder: Path, fingerprint: str) -> frozenset[str]:
    """The certificates of this name in a database."""
    command = [trust.CERTUTIL, "-L", "-d", f"sql:{folder}", "-n", trust.name_of(fingerprint), "-a"]
    return fingerprints(subprocess.run(command, capture_output=True, text=True, check=False).stdout)  # noqa: S603


def _carry_out(plan: Plan, pem: str) -> None:
    """Take all steps, or leave the files as they were. Raises _ToolError."""
    files = [Path(step.what[0]) for step in plan.steps if step.kind in ("write", "remove")]
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    if files:  # to be stopped in between would leave half of it done
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    for step in plan.steps:
        try:
            _take(step, pem)
        except (OSError, _ToolError) as error:
            for path, data in before.items():
                _put(path, data)
            if before and step.kind == "run":
                _run(step, pem)
            reason = (error.strerror or "error").lower() if isinstance(error, OSError) else str(error)
            raise _ToolError(f"cannot {step}: {reason}", "this place is as it was; those before it are done") from None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def _take(step: Step, pem: str) -> None:
    if step.kind == "make":
        Path(step.what[0]).mkdir(mode=0o700, parents=True, exist_ok=True)
    elif step.kind in ("run", "feed"):
        done = _run(step, pem)
        if done.returncode:
            said = " ".join(done.stderr.split()) or "it says nothing"
            raise _ToolError(f"{said} (exit status {done.returncode})", "")
    else:
        _put(Path(step.what[0]), pem.encode() if step.kind == "write" else None)


def _run(step: Step, pem: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": _path()}
    given = pem if step.kind == "feed" else ""
    return subprocess.run(step.what, input=given, env=env, capture_output=True, text=True, check=False)  # noqa: S603


def _put(path: Path, data: bytes | None) -> None:
    """Have the file hold this, at once and whole; None: have no file there."""
    if data is None:
        path.unlink(missing_ok=True)
        return
    descriptor, name = tempfile.mkstemp(prefix=".jwtproxy-", dir=path.parent)  # tools pass over it: its ending is none
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor
            file.write(data)
            os.fchmod(descriptor, 0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink()
        raise
