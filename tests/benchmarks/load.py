"""The load: wrk where it fits and is there, else processes of our own (`python -m tests.benchmarks.load`).

A loader of our own opens its connections and makes one request on each before it says that it is ready, and waits for
its last answers: neither handshakes nor requests cut off at the end are measured. wrk does neither; what it cuts off
counts half.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

SAMPLE = 50  # tokens, for each loader
SLACK = 30.0  # seconds beyond the measured ones: connecting, and the last answers
STREAMS = 4  # on each HTTP/2 connection
_FIELD = re.compile(rb"\r\n(content-length|x-seen-jwt):[ \t]*([^\r]*)", re.IGNORECASE)
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
            [sys.executable, "-m", __name__],
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


class _Loader:
    """One loader process: all its connections in one event loop."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.latencies: list[float] = []
        self.tokens: list[str] = []
        self.errors = self.unsigned = 0
        self.deadline = 0.0
        self.go = asyncio.Event()
        self.context = ssl.create_default_context()
        self.context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # from Python 3.13 on; proxy.py's have no key identifiers
        for pem in spec.trust:
            self.context.load_verify_locations(pem)
        self.context.set_alpn_protocols(["h2"] if spec.protocol == "https/2" else ["http/1.1"])

    async def run(self) -> dict[str, Any]:
        """Get ready, wait for the word, send until the time is up."""
        http2 = self.spec.protocol == "https/2"
        drive = self._drive_http2 if http2 else self._drive_http1
        count = max(1, self.spec.connections // STREAMS) if http2 else self.spec.connections
        ready = [asyncio.Event() for _ in range(count)]
        drivers = [asyncio.create_task(drive(event)) for event in ready]
        everyone = asyncio.ensure_future(_all(event.wait() for event in ready))
        failed = asyncio.ensure_future(_all(drivers))
        await asyncio.wait({everyone, failed}, return_when=asyncio.FIRST_COMPLETED, timeout=SLACK)
        if not everyone.done():
            failed.cancel()
            await failed  # raises what went wrong, or that it took too long
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun = time.perf_counter()
        self.deadline = begun + self.spec.seconds
        self.go.set()
        await asyncio.wait_for(failed, self.spec.seconds + SLACK)
        return {
            "requests": len(self.latencies),
            "seconds": time.perf_counter() - begun,
            "errors": self.errors,
            "unsigned": self.unsigned,
            "latencies": self.latencies,
            "tokens": self.tokens[:SAMPLE],
        }

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the upstream, through the proxy if there is one."""
        spec = self.spec
        reader, writer = await asyncio.open_connection("127.0.0.1", spec.proxy or spec.upstream, limit=1 << 21)
        if spec.protocol != "http":
            if spec.proxy:
                writer.write(f"CONNECT {spec.authority} HTTP/1.1\r\nHost: {spec.authority}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 200 " not in head.split(b"\r\n")[0]:
                    raise ConnectionError(head.decode("latin-1"))
            await writer.start_tls(self.context, server_hostname=spec.host)
        return reader, writer

    def note(self, status: int, token: str, latency: float) -> None:
        """Note an answer."""
        if status != 200:
            self.errors += 1
            return
        self.latencies.append(latency)
        if not token:
            self.unsigned += 1
        elif len(self.latencies) % 31 == 1:
            self.tokens.append(token)

    async def _drive_http1(self, ready: asyncio.Event) -> None:
        request = self.spec.head() + b"x" * self.spec.body
        reader, writer = await self.connect()
        await exchange(reader, writer, request)
        ready.set()
        await self.go.wait()
        while (begun := time.perf_counter()) < self.deadline:
            try:
                if self.spec.close:
                    writer.close()
                    reader, writer = await self.connect()
                status, token = await exchange(reader, writer, request)
            except (OSError, EOFError):
                self.errors += 1
                reader, writer = await self.connect()
                continue
            self.note(status, token, time.perf_counter() - begun)
        writer.close()

    async def _drive_http2(self, ready: asyncio.Event) -> None:
        reader, writer = await self.connect()
        connection = _Http2(self.spec, writer)
        connection.begin()
        await connection.until_idle(reader)
        ready.set()
        await self.go.wait()
        for _ in range(STREAMS):
            connection.begin()
        await connection.until_idle(reader, self)
        writer.close()


class _Http2:
    """One HTTP/2 connection with several requests under way."""

    def __init__(self, spec: Spec, writer: asyncio.StreamWriter) -> None:
        self._fields = [(":method", "GET"), (":scheme", "https"), (":authority", spec.authority), (":path", spec.path)]
        self._writer = writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self._h2.initiate_connection()
        self._begun: dict[int, float] = {}
        self._heads: dict[int, dict[str, str]] = {}

    def begin(self) -> None:
        """Send one more request."""
        stream = self._h2.get_next_available_stream_id()
        self._begun[stream] = time.perf_counter()
        self._h2.send_headers(stream, self._fields, end_stream=True)
        self._writer.write(self._h2.data_to_send())

    async def until_idle(self, reader: asyncio.StreamReader, loader: _Loader | None = None) -> None:
        """Read until each request has its answer. For a loader an answer makes the next request, until time is up."""
        while self._begun:
            if not (data := await reader.read(1 << 16)):
                raise EOFError("the connection ended")
            for event in self._h2.receive_data(data):
                self._on(event, loader)
            if data := self._h2.data_to_send():
                self._writer.write(data)

    def _on(self, event: h2.events.Event, loader: _Loader | None) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(stream), headers=list(headers)):
                self._heads[stream] = {str(name): str(value) for name, value in headers}
            case h2.events.DataReceived(stream_id=int(stream), flow_controlled_length=int(size)):
                self._h2.acknowledge_received_data(size, stream)
            case h2.events.StreamEnded(stream_id=int(stream)):
                head, now = self._heads.pop(stream), time.perf_counter()
                latency = now - self._begun.pop(stream)
                if loader:
                    loader.note(int(head[":status"]), head.get("x-seen-jwt", ""), latency)
                    if now < loader.deadline:
                        self.begin()
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                raise ConnectionError(repr(event))


async def _all(waiting: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*waiting)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, str]:
    """Send a request, read its whole answer; status and token."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = {name.lower(): value for name, value in _FIELD.findall(head)}
    await reader.readexactly(int(fields[b"content-length"]))
    return int(head[9:12]), fields.get(b"x-seen-jwt", b"").decode("latin-1")


def main() -> None:
    """Run one loader process."""
    given = json.loads(sys.stdin.readline())
    spec = Spec(**{**given, "trust": tuple(given["trust"])})

    async def load() -> dict[str, Any]:
        return await _Loader(spec).run()

    try:
        print(json.dumps(asyncio.run(load())), flush=True)
    except (OSError, EOFError, TimeoutError, asyncio.CancelledError) as error:
        print(f"failed: {error!r}", flush=True)


if __name__ == "__main__":
    main()
