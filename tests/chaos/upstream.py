"""The upstreams, in a process that may be killed: `python -m tests.chaos.upstream FOLDER PLAIN TLS H2`, of ports.

Each request must bring a token of its own, signed by one of the secrets that are named in FOLDER/secrets; those that do
not are noted in FOLDER/unsigned. From a SIGUSR1 to a SIGUSR2 all connections are reset, at one stage or another.
"""

from __future__ import annotations

import random
import signal
import ssl
import sys
import time
from pathlib import Path

from joserfc.errors import JoseError

from tests.support.harness import verify
from tests.support.upstreams import Answer, Recorder, Seen, download, raw, reset

LARGE = 256 * 1024
"""Bytes."""
_OLDEST = 30
"""Seconds."""
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
_RESETS = (reset(), reset(_HEAD[:20]), reset(_HEAD), reset(_HEAD + b"half"), raw(b""), raw(_HEAD + b"half"))


class Upstream(Recorder):
    """Looks at tokens, and keeps no requests."""

    resets = False

    def __init__(self, folder: Path, port: int, alpn: str = "") -> None:
        self._folder, self._known = folder, set[object]()
        super().__init__(port=port, context=_context(folder, alpn) if alpn else None)

    def _arrived(self, seen: Seen) -> tuple[Answer, bool]:
        if fault := self._fault(seen):
            with (self._folder / "unsigned").open("a") as file:
                file.write(f"{seen.method} {seen.target}: {fault}\n")
        if Upstream.resets:
            kinds = _RESETS if seen.version != "2" else _RESETS[:4]  # by which it would only be silent
            return random.choice(kinds), random.random() < 0.5  # no secret
        return (download(LARGE) if seen.path == "/large" else self.default), False

    def _fault(self, seen: Seen) -> str:
        tokens = seen.values("x-my-jwt")
        if len(tokens) != 1:
            return f"{len(tokens)} tokens"
        for secret in (self._folder / "secrets").read_text().split():
            try:
                claims = verify(tokens[0], secret)
            except JoseError:
                continue
            if claims["jti"] in self._known:
                return "a token that was there before"
            self._known.add(claims["jti"])
            return "" if abs(time.time() - float(str(claims["iat"]))) < _OLDEST else "a token of another time"
        return "a token that nobody has signed"


def _context(folder: Path, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "upstream.pem")
    context.set_alpn_protocols(alpn.split())
    return context


def _reset(number: int, _: object) -> None:
    Upstream.resets = number == signal.SIGUSR1


def main() -> None:
    """Serve until the end."""
    folder, (plain, tls, two) = Path(sys.argv[1]), map(int, sys.argv[2:])
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _reset)
    with Upstream(folder, plain), Upstream(folder, tls, "http/1.1"), Upstream(folder, two, "h2 http/1.1"):
        print("ready", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
