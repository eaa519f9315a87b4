"""`make soak`: mixed traffic through two workers for SOAK_SECONDS (600), watching memory, descriptors and threads.

The first third is warm-up. Growth is the median of the last third less the median of the middle third; more than
ALLOWED fails, and so do a failed request, a worker that was replaced, and a /status that steps back or is not exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import websockets
from mitmproxy.certs import CertStore

from tests.support.upstreams import Answer, Authority, Exchange, Recorder, Seen, download, respond

from . import targets
from .targets import Place, Running
from .upstream import MIB

WORKERS = 2
ALLOWED = {"pss_mib": 4.0, "descriptors": 20.0, "threads": 2.0}
_SAMPLES = 150
_PAUSE = 0.01  # seconds between the requests of one client: a mixture is wanted, not the most that is possible


class Upstream(Recorder):
    """Counts request heads, and keeps none."""

    def __init__(self, authority: Authority | None = None, alpn: tuple[str, ...] = ()) -> None:
        self.heads = 0
        self.half_sent: set[str] = set()
        super().__init__(authority=authority, alpn=alpn)
        self.route("/ok", respond(200, body=b"ok"))
        self.route("/down", download(4 * MIB))
        self.route("/events", _events)

    def _arrived(self, seen: Seen) -> tuple[Answer, bool]:
        answer = super()._arrived(seen)
        self.heads += 1
        self.requests.clear()
        if seen.path.startswith("/half"):
            self.half_sent.add(seen.path)
        return answer


async def _events(exchange: Exchange) -> None:
    await exchange.start(200, [("content-type", "text/event-stream")])
    for number in range(5):
        await exchange.write(b"data: %d\n\n" % number)
        await asyncio.sleep(0.05)
    await exchange.end()


@dataclass
class Soak:
    """The traffic, and what became of it."""

    running: Running
    plain: Upstream
    tls: Upstream
    h2: Upstream
    websocket_port: int
    refusing: int
    """A port that is taken, but nobody listens."""
    trust: ssl.SSLContext
    stopping: bool = False
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    handshakes: int = 0
    counted: int = 0
    """proxied_requests as /status last said."""

    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What is sent, each by a client of its own."""
        return {
            "plain": lambda: self._get(f"{self.plain.url}/ok"),
            "https/1.1": lambda: self._get(f"{self.tls.url}/ok"),
            "https/2": lambda: self._get(f"{self.h2.url}/ok", http2=True),
            "upload": self._upload,
            "download": lambda: self._get(f"{self.plain.url}/down", size=4 * MIB),
            "download https/2": lambda: self._get(f"{self.h2.url}/down", http2=True, size=4 * MIB),
            "events": lambda: self._get(f"{self.plain.url}/events"),
            "websocket": self._websocket,
            "refused": self._refused,
            "hang up, answer": lambda: self._hang_up(f"GET {self.plain.url}/down"),
            "hang up, upload": lambda: self._hang_up(f"POST {self.plain.url}/half/{time.monotonic_ns()}"),
            "status": self._status,
        }

    async def client(self, kind: str, send: Callable[[], Awaitable[None]]) -> None:
        """One client: the same again until told to stop."""
        while not self.stopping:
            try:
                async with asyncio.timeout(30):
                    await send()
                self.done[kind] += 1
            except Exception as error:
                self.failed[kind] += 1
                print(f"{kind}: {type(error).__name__}: {error}", file=sys.stderr)
            await asyncio.sleep(_PAUSE)

    def expected(self) -> int:
        """How many requests the proxy must have set out to forward."""
        arrived = self.plain.heads + self.tls.heads + self.h2.heads
        return arrived + self.handshakes + self.done["refused"]

    async def exact(self) -> bool:
        """Whether /status, now that all is quiet, knows each request."""
        for _ in range(50):
            await self._status()
            if self.counted == self.expected():
                return True
            await asyncio.sleep(0.1)
        return False

    def _through(self, http2: bool = False) -> httpx.AsyncClient:
        proxy = f"http://127.0.0.1:{self.running.port}"
        return httpx.AsyncClient(proxy=proxy, verify=self.trust, http2=http2, trust_env=False, timeout=20)

    async def _get(self, url: str, *, http2: bool = False, size: int = 0) -> None:
        """Some requests on one connection."""
        async with self._through(http2) as client:
            for _ in range(1 if size else 10):
                async with client.stream("GET", url) as answer:
                    received = sum([len(piece) async for piece in answer.aiter_bytes()])
                assert answer.status_code == 200, answer
                assert received == size or (received and not size), f"{received} bytes came"

    async def _upload(self) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(32):
                yield bytes(1 << 16)

        async with self._through() as client:
            answer = await client.post(f"{self.plain.url}/ok", content=pieces())
        assert answer.status_code == 200, answer

    async def _websocket(self) -> None:
        url = f"ws://127.0.0.1:{self.websocket_port}"
        async with websockets.connect(url, proxy=f"http://127.0.0.1:{self.running.port}") as peer:
            for number in range(5):
                await peer.send(str(number))
                assert await peer.recv() == str(number)

    async def _refused(self) -> None:
        async with self._through() as client:
            answer = await client.get(f"http://127.0.0.1:{self.refusing}/")
        assert answer.status_code == 502, answer

    async def _hang_up(self, line: str) -> None:
        """Leave in the midst of an answer, or of an upload that has reached the upstream."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
        upload = line.startswith("POST")
        length = f"Content-Length: {4 * MIB}\r\n" if upload else ""
        writer.write(f"{line} HTTP/1.1\r\nHost: {self.plain.authority}\r\n{length}\r\n".encode())
        writer.write(bytes(9 if upload else 0))
        path = line.partition(self.plain.authority)[2]
        while upload and path not in self.plain.half_sent:
            await asyncio.sleep(0.005)
        if not upload:
            await reader.readexactly(1000)
        self.plain.half_sent.discard(path)
        writer.close()
        await writer.wait_closed()

    async def _status(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answer = await client.get(f"http://127.0.0.1:{self.running.port}/status")
        count = answer.json()["proxied_requests"]
        assert count >= self.counted, f"proxied_requests went from {self.counted} to {count}"
        self.counted = count


def sample(running: Running) -> dict[str, float]:
    """What the proxy's processes hold now."""
    pids = running.pids()
    return {
        "pss_mib": running.pss(),
        "descriptors": float(sum(_entries(f"/proc/{pid}/fd") for pid in pids)),
        "threads": float(sum(_entries(f"/proc/{pid}/task") for pid in pids)),
    }


def growth(values: list[float]) -> float:
    """By how much the last third stands above the middle one; the first is warm-up."""
    third = len(values) // 3
    return statistics.median(values[-third:]) - statistics.median(values[third:-third])


def verdict(samples: list[dict[str, float]]) -> list[str]:
    """What has grown; prints the figures."""
    grown = []
    for name, allowed in ALLOWED.items():
        values = [figures[name] for figures in samples]
        third = len(values) // 3
        parts = [statistics.median(values[start : start + third]) for start in (0, third, len(values) - third)]
        change = growth(values)
        print(
            f"{name:<12} medians of the thirds {parts[0]:8.1f} {parts[1]:8.1f} {parts[2]:8.1f}"
            f"   largest {max(values):8.1f}   growth {change:+6.1f} (allowed {allowed:g})"
        )
        if change > allowed:
            grown.append(f"{name} grew by {change:.1f}")
    return grown


async def soak(
    seconds: float, proxy: Running, upstreams: tuple[Upstream, Upstream, Upstream], trust: ssl.SSLContext
) -> list[str]:
    """Run the traffic; what is wrong in the end."""
    handshakes = 0

    async def echo(peer: websockets.ServerConnection) -> None:
        nonlocal handshakes
        handshakes += 1
        async for message in peer:
            await peer.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        refusing = socket.socket()
        refusing.bind(("127.0.0.1", 0))
        run = Soak(proxy, *upstreams, server.sockets[0].getsockname()[1], refusing.getsockname()[1], trust)
        clients = [asyncio.create_task(run.client(kind, send)) for kind, send in run.kinds().items()]
        while len(pids := proxy.pids()) <= WORKERS:  # the port is open before the workers are there
            await asyncio.sleep(0.1)
        samples = await _watch(run, seconds)
        run.stopping = True
        await asyncio.gather(*clients)
        run.handshakes = handshakes
        exact = await run.exact()
        refusing.close()
    print("exchanges:", ", ".join(f"{kind} {count}" for kind, count in run.done.items()))
    print(f"/status says {run.counted}, expected {run.expected()}")
    problems = verdict(samples)
    problems += [f"{count} failures: {kind}" for kind, count in run.failed.items()]
    problems += [] if exact else ["/status is not exact"]
    problems += [] if pids == proxy.pids() else [f"processes were replaced: {pids} became {proxy.pids()}"]
    return problems


async def _watch(run: Soak, seconds: float) -> list[dict[str, float]]:
    samples = []
    begun, pause = time.monotonic(), seconds / _SAMPLES
    for number in range(1, _SAMPLES + 1):
        await asyncio.sleep(max(0.0, begun + number * pause - time.monotonic()))
        samples.append(sample(run.running))
        if number % (_SAMPLES // 10) == 0:
            figures = ", ".join(f"{name} {value:.1f}" for name, value in samples[-1].items())
            print(f"{time.monotonic() - begun:5.0f} s  {sum(run.done.values())} exchanges  {figures}", flush=True)
    return samples


def _entries(folder: str) -> int:
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path(folder).iterdir())
    return 0


def main() -> None:
    """Set up, run, tell; the exit status is 1 when something is wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak")))
        authority = Authority(folder)
        CertStore.create_store(folder, "mitmproxy", 2048)
        trust = ssl.create_default_context(cafile=str(folder / "mitmproxy-ca-cert.pem"))
        upstreams = (
            stack.enter_context(Upstream()),
            stack.enter_context(Upstream(authority, ("http/1.1",))),
            stack.enter_context(Upstream(authority, ("h2", "http/1.1"))),
        )
        proxy = stack.enter_context(targets.start(targets.ours(WORKERS), Place(folder, authority.pem)))
        problems = asyncio.run(soak(seconds, proxy, upstreams, trust))
    if problems:
        sys.exit("soak: failed: " + "; ".join(problems))
    print("soak: passed: no growth after warm-up, no failure, /status exact")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
