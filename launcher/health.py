"""jwtproxy-health: whether the proxy on this machine is ready. For probes, so it imports next to nothing."""

import os
import socket
import sys
from collections.abc import Mapping
from typing import NoReturn

from jwtproxy.config import place
from jwtproxy.config.place import Place

from .report import MISTAKEN, report

_USAGE = """\
usage: jwtproxy-health [--live]

Ask the proxy on this machine whether it is ready (/readyz), where HTTP_HOST, HTTP_PORT and JWT_PAGES, or
.env in this directory, say that it listens. The exit status is 0 if it is, 1 if not.

options:
  --live      ask whether it serves at all (/livez)
  -h, --help  show this

examples:
  jwtproxy-health && echo ready
  HTTP_PORT=9090 jwtproxy-health --live
"""
_TIMEOUT = 3.0  # seconds
_NOT_READY, _INTERRUPTED = 1, 130
_LONGEST = 4096  # bytes of an answer that are read


def main() -> NoReturn:
    """Run jwtproxy-health and exit with its status."""
    try:
        raise SystemExit(_run(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


def _run(arguments: list[str]) -> int:
    if arguments in (["--help"], ["-h"]):
        print(_USAGE, end="")
        return 0
    if arguments not in ([], ["--live"]):
        report(
            f"{' '.join(arguments)!r} means nothing to jwtproxy-health", "jwtproxy-health --help shows what there is"
        )
        return MISTAKEN
    try:
        said = ask(listening(_settings()), "/livez" if arguments else "/readyz")
    except (OSError, ValueError) as error:
        said = f"no answer: {(getattr(error, 'strerror', None) or str(error)).lower()}"
    if said:
        report(said)
        return _NOT_READY
    return 0


def listening(settings: Mapping[str, str]) -> Place:
    """Where the pages are of a proxy with these settings. Raises ValueError."""
    if found := place.parse(settings.get("JWT_PAGES") or ""):
        host, port = found
    else:
        host, port = settings.get("HTTP_HOST") or "", int(settings.get("HTTP_PORT") or 8080)
    return Place(host.replace("*", "") or "localhost", port)


def ask(proxy: Place, path: str) -> str:
    """What is wrong with the proxy that listens there; empty if nothing is. Raises OSError.

    Nothing is wrong with one that has no such page, as with jwt_pages=off.
    """
    with socket.create_connection(proxy, _TIMEOUT) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            head, _, body = answer.read(_LONGEST).partition(b"\r\n\r\n")
    if b"HTTP/1.1 2" < head < b"HTTP/1.1 5":
        return ""
    if not head.startswith(b"HTTP/1.1 5"):
        return "no answer: it is none that a proxy gives"
    return ascii(body.decode("latin-1").removeprefix("jwtproxy: ").rstrip())[1:-1]


def _settings() -> Mapping[str, str]:
    """The environment, and what .env says of the rest."""
    if not os.path.exists(".env"):  # noqa: PTH110  # pathlib takes longer than all of this
        return os.environ
    from dotenv import dotenv_values

    found = {name: value for name, value in dotenv_values(".env", encoding="utf-8").items() if value}
    return found | {name: value for name, value in os.environ.items() if value}
