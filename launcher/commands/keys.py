"""`jwtproxy-run keys`: make signing keys, list those in use, print the public ones."""

import argparse
import asyncio
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jwtproxy.config.errors import SettingsError
from jwtproxy.policy.judge import Policy
from jwtproxy.tokens import key_formats
from jwtproxy.tokens.algorithms import ALGORITHMS
from jwtproxy.tokens.key_folder import is_key_file
from jwtproxy.tokens.keys import Key, KeyRequest
from jwtproxy.tokens.new_key import generate

from .. import commandline, environment, usage
from ..report import MISTAKEN, report

_USAGE = """\
usage: jwtproxy-run keys COMMAND [options]

jwtproxy-run keys new [--alg ES256] [--out PATH]   make a key: a file, or one more in a folder; without PATH, print it
jwtproxy-run keys list [options]                   list the keys that these settings name, and which of them sign
jwtproxy-run keys jwks [options]                   print the public keys, as /.well-known/jwks.json shows them

Each has a --help of its own, and `jwtproxy-run help keys` is the manual.
"""
_EXAMPLES = """\
examples:
  jwtproxy-run keys new --out key.pem                  then: jwtproxy-run --key key.pem
  jwtproxy-run keys new --alg HS512 --out secret       a shared secret, in hexadecimal
  jwtproxy-run keys new --alg EdDSA --out keys/        one more in a folder, named by the time
"""
_DESCRIPTIONS = {
    "list": "List the keys that these settings name, those of rules too, and which of them sign.",
    "jwks": "Print the public keys that these settings name, as /.well-known/jwks.json shows them.",
}


def run(arguments: list[str]) -> int:
    """Do as told; the exit status."""
    command, rest = (arguments or ["--help"])[0], arguments[1:]
    try:
        if command in ("-h", "--help"):
            print(_USAGE, end="")
        elif command == "new":
            _new(rest)
        elif command == "list":
            print(_table(asyncio.run(_policy("list", rest))))
        elif command == "jwks":
            print(asyncio.run(_policy("jwks", rest)).jwks, end="")
        else:
            raise SettingsError(f"unknown command 'keys {command}'", "use keys new, keys list or keys jwks")
    except SettingsError as error:
        report(str(error), error.hint)
        return MISTAKEN
    return 0


async def _policy(command: str, arguments: list[str]) -> Policy:
    with commandline.preview() as master:
        parser = commandline.parser(master.options)
        usage.of_command(parser, f"keys {command}", "[options]", _DESCRIPTIONS[command])
        args = commandline.read(parser, arguments)
        commandline.refuse(args, f"keys {command}", "check", "json")
        return commandline.configure(master, args, environment.sources(Path()))[1].policy


def _new(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "jwtproxy-run keys new",
        description="Make a signing key. A file is never overwritten, and readable for its owner alone.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.error = commandline.usage_error  # type: ignore[method-assign]
    parser.add_argument("--alg", default="ES256", metavar="ALG", help=f"one of {', '.join(ALGORITHMS)} (ES256)")
    parser.add_argument("--out", metavar="PATH", help="a new file, or a folder (stdout)")
    args = parser.parse_args(arguments)
    if args.alg not in ALGORITHMS:
        raise SettingsError(f"bad value {args.alg!r} for --alg", f"use one of {', '.join(ALGORITHMS)}")
    text = generate(args.alg)
    (key,) = key_formats.parse(text, "the new key", KeyRequest(args.alg))
    if not args.out:
        print(text, end="")
        return
    out = os.path.expanduser(args.out)  # noqa: PTH111  # Path's own raises where there is no home
    into_folder = out.endswith("/") or os.path.isdir(out)  # noqa: PTH112  # Path's own raises for a name too long
    path = _write(Path(out), args.alg, text, into_folder)
    print(f"{path}{f'  kid {key.kid}' if key.kid else ''}")
    last = max(other.name for other in path.parent.iterdir() if is_key_file(other))
    if into_folder and last != path.name:
        print(f"jwtproxy: warning: {last!r} sorts after it, so it continues to sign", file=sys.stderr)


def _write(out: Path, algorithm: str, text: str, into_folder: bool) -> Path:
    """Write a new file that only its owner can read. Raises SettingsError where that cannot be."""
    path = out
    try:
        folder = out if into_folder else out.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if into_folder:
            path = _free_name(out, algorithm)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123  # a mode
            try:
                file.write(text)
                file.flush()
            except OSError:
                path.unlink()  # half a key is of no use to anybody who may read it
                raise
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise SettingsError(f"cannot write {str(path)!r}: {reason}", "name a new file, or a folder") from None
    return path


def _free_name(folder: Path, algorithm: str) -> Path:
    """A name that begins with the time, so that the newest comes last, also of several in one second."""
    suffix = "hex" if algorithm.startswith("HS") else "pem"
    moment = datetime.now(UTC)
    while (path := folder / f"{moment:%Y-%m-%dT%H-%M-%S}-{algorithm.lower()}.{suffix}").exists():
        moment += timedelta(seconds=1)
    return path


def _table(policy: Policy) -> str:
    now = time.time()
    rows = [("SIGNS", "ALGORITHM", "KID", "FROM", "UNTIL", "WHERE")]
    for ring in dict.fromkeys(maker.ring for maker in policy.decisions.all_makers):
        signing = ring.signing(now)
        rows += [
            (
                _role(key, signing),
                key.algorithm,
                key.kid or "-",
                _when(ring.ready(key)),
                _when(key.not_after),
                key.place,
            )
            for key in ring.keys
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _role(key: Key, signing: Key) -> str:
    if key is signing:
        return "now"
    return "no" if key.private is not None else "public"


def _when(seconds: float) -> str:
    return (
        "-" if seconds in (float("inf"), float("-inf")) else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%MZ}"
    )
