"""What README.md and the manual tell readers to type, typed: in a shell, in a folder and a network of its own.

`play` runs this module in a namespace (see `namespace.py`). There ports 80, 443 and 8080 are free, and the hosts of the
manual are an upstream that shows what it receives, whose certificate the system's owner trusts. A command that serves goes on while the next ones ask it something;
then it gets the Ctrl-C that its reader would give it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import selectors
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import trustme

from tests.support import namespace

HOSTS = ("httpbin.org", "example.com", "api.example")
PATIENCE = 20.0
"""Seconds for a command to end, or to serve."""
_SERVES = re.compile(rb"listening (on|at) ")
_ASKS = re.compile(r"\bcurl\b|\bjwtproxy-run (?:status|env)\b")


@dataclass(frozen=True)
class Ran:
    """What came of one line."""

    line: str
    status: int
    """-1 if it had to be killed."""
    output: str


def blocks(text: str) -> Iterator[list[str]]:
    """What to type, of each block of Markdown that is for a shell, continued lines joined."""
    for language, block in re.findall(r"^```(sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        typed = block if language == "sh" else "\n".join(re.findall(r"^\$ (.*)$", block, re.MULTILINE))
        yield list(filter(None, typed.replace("\\\n", " ").splitlines()))


def play(folder: Path, typed: Sequence[str], variables: Mapping[str, str], timeout: float = 200) -> list[Ran]:
    """Type these lines one after the other, with these variables, in this folder, which is home, too."""
    etc = folder / "etc"
    etc.mkdir()
    namespace.write_files(etc, nameserver="127.0.0.1", hosts=dict.fromkeys(("localhost", *HOSTS), "127.0.0.1"))
    told = namespace.run(__name__, folder, namespace.alone(etc), [list(typed), dict(variables)], timeout)
    return [Ran(**ran) for ran in told]


# --- what follows runs in the namespace


class _Shows(http.server.BaseHTTPRequestHandler):
    """The upstream."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Be silent."""


class _Terminal:
    """A shell's folder and variables, and what serves in it."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder, self._variables = folder, dict(variables)
        self._serving: subprocess.Popen[bytes] | None = None
        self._typed, self._heard = "", b""
        self.ran: list[Ran] = []

    def type(self, line: str) -> None:
        """Type a line, and wait till it has ended, or serves."""
        if not _ASKS.search(line):
            self.interrupt()
        after = self._folder / ".variables"
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"trap : INT\n{line}\nstatus=$?; env -0 >{after}; exit $status"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=self._variables,
            start_new_session=True,
        )
        heard, serves = _listen(process)
        if serves:
            self._serving, self._typed, self._heard = process, line, heard
            return
        self.ran.append(Ran(line, _end(process), heard.decode()))
        if after.exists():
            pairs = after.read_text().rstrip("\0").split("\0")
            self._variables = dict(pair.split("=", 1) for pair in pairs)

    def interrupt(self) -> None:
        """End what serves, as Ctrl-C does."""
        if process := self._serving:
            os.killpg(process.pid, signal.SIGINT)
            self.ran.append(Ran(self._typed, _end(process), self._heard.decode()))
            self._serving = None


def _listen(process: subprocess.Popen[bytes]) -> tuple[bytes, bool]:
    """What it says until it has ended, or serves, and whether it does."""
    assert process.stdout
    heard, deadline = b"", time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            piece = os.read(process.stdout.fileno(), 1 << 16)
            heard += piece
            if not piece or _SERVES.search(heard):
                return heard, bool(piece)
    return heard, False


def _end(process: subprocess.Popen[bytes]) -> int:
    """Its exit status; what has not ended in time is killed."""
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return -1
    return process.returncode


def main() -> None:
    """Type what stands on standard input."""
    folder = Path(sys.argv[1])
    typed, variables = json.load(sys.stdin)
    authority, roots = trustme.CA(), folder / "etc" / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    for port in (80, 443):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Shows)
        if port == 443:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(*HOSTS).configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    terminal = _Terminal(
        folder, {"PATH": path, "HOME": str(folder), "PYTHONUNBUFFERED": "1", "SSL_CERT_FILE": str(roots), **variables}
    )
    for line in typed:
        terminal.type(line)
    terminal.interrupt()
    print(json.dumps([asdict(ran) for ran in terminal.ran]))


if __name__ == "__main__":
    main()
