"""The load: wrk where it fits and is there, else processes of our own (loader.py).

A loader of our own opens its connections and makes one request on each before it says that it is ready, and waits for
its last answers: neither handshakes nor requests cut off at the end are measured. wrk does neither; what it cuts off
counts half.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

SLACK = 30.0  # seconds beyond the measured ones: connecting, and the last answers
_LOADER = f"{__package__}.loader"
_SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Spec:
    """What to send, where, how often."""

    upstream: int
    proxy: int = 0  # 0: straight to the upstream
    path: str = "/small"
    method: str = "GET"
    body: int = 0
    protocol: str = "http"  # http, https/1.1, https/2
    close: bool = False  # a connection for each request
    connections: int = 32
    seconds: float = 3.0
    trust: tuple[str, ...] = ()  # PEM files

    @property
    def host(self) -> str:
        """The upstream's name: proxy.py's certificates are good for names alone, not for addresses."""
        return "127.0.0.1" if self.protocol == "http" else "localhost"

    @property
    def authority(self) -> str:
        """Host and port of the upstream."""
        return f"{self.host}:{self.upstream}"

    @property
    def target(self) -> str:
        """The request target: the whole URL for a proxy, but not within a tunnel."""
        return f"http://{self.authority}{self.path}" if self.proxy and self.protocol == "http" else self.path

    def head(self) -> bytes:
        """The request's head."""
        length = f"Content-Length: {self.body}\r\n" if self.body else ""
        close = "Connection: close\r\n" if self.close else ""
        return f"{self.method} {self.target} HTTP/1.1\r\nHost: {self.authority}\r\n{length}{close}\r\n".encode()


@dataclass
class Outcome:
    """What came of it."""

    requests: int = 0
    seconds: float = 0.0
    errors: int = 0
    unsigned: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    tokens: list[str] = field(default_factory=list)
    cut_off: float = 0.0
    """Requests that were begun and not awaited, in whole requests' worth of work."""


def name() -> str:
    """What sends the load."""
    return "wrk, own loader for HTTPS" if shutil.which("wrk") else "own loader"


def run(spec: Spec, started: Callable[[], None] = lambda: None, loaders: int = 2) -> Outcome:
    """Send the load and wait for its end; `started` is called when what is measured begins. Raises RuntimeError."""
    wrk = shutil.which("wrk")
    return _run_wrk(wrk, spec, started) if wrk and spec.protocol == "http" else _run_own(spec, started, loaders)


def _run_wrk(wrk: str, spec: Spec, started: Callable[[], None]) -> Outcome:
    # wrk takes whole seconds only.
    seconds = max(1, round(spec.seconds))
    port = spec.proxy or spec.upstream
    arguments = [spec.target, spec.authority, spec.method, str(spec.body), "close" if spec.close else "keep"]
    fixed = ["-t2", f"-c{spec.connections}", f"-d{seconds}", "-s", str(_SCRIPT)]
    command = [wrk, *fixed, f"http://127.0.0.1:{port}", "--"]
    started()
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=seconds + SLACK, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    figures = json.loads(done.stdout.splitlines()[-1])
    return Outcome(**figures, cut_off=spec.connections / 2)


def _run_own(spec: Spec, started: Callable[[], None], loaders: int) -> Outcome:
    each = replace(spec, connections=spec.connections // loaders)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", _LOADER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        for _ in range(loaders)
    ]
    try:
        for process in processes:
            _tell(process, json.dumps(asdict(each)))
        for process in processes:
            _hear(process)  # "ready"
        started()
        for process in processes:
            _tell(process, "go")
        return _together([json.loads(_hear(process)) for process in processes])
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    """The next line; a loader ends by itself in bounded time, so this does too."""
    assert process.stdout
    line = process.stdout.readline().strip()
    if not line or line.startswith("failed"):
        raise RuntimeError(f"a loader {line or 'ended early'}")
    return line


def _together(parts: list[dict[str, Any]]) -> Outcome:
    latencies = sorted(latency for part in parts for latency in part["latencies"]) or [0.0]
    return Outcome(
        requests=sum(part["requests"] for part in parts),
        seconds=statistics.fmean(part["seconds"] for part in parts),
        errors=sum(part["errors"] for part in parts),
        unsigned=sum(part["unsigned"] for part in parts),
        p50_ms=round(latencies[len(latencies) // 2] * 1e3, 3),
        p99_ms=round(latencies[int(len(latencies) * 0.99)] * 1e3, 3),
        tokens=[token for part in parts for token in part["tokens"]],
    )
