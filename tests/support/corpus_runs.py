"""Try cases of the corpus with a proxy: raw clients, and raw upstreams that record what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from . import servers
from .corpus import FENCE, Case, Expect, Fill, Seen, fill, judge, plain
from .harness import Proxy
from .http2_peer import Incoming, Peer, as_answers, as_request
from .readers import STRICT, Reading
from .upstreams import Authority

_PATIENCE = 2.0  # seconds for anything to happen
_PAUSE = 0.01  # seconds between pieces
_OK = ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
_OK_2: list[Any] = [[[":status", "200"]], "ok"]


@dataclass
class _Link:
    """One connection of an upstream, and what has come by it since the case began."""

    received: bytes = b""
    complete: list[asyncio.Event] = field(default_factory=list)
    """For each request that has begun, whether all of it is there."""
    closed: bool = False


class Upstream:
    """A server that records every byte and gives the answer of the case that is tried; one case at a time."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.links: list[_Link] = []
        self.port = 0
        self._case: Case | None = None
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on a free port of loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context, backlog=64)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the server and all its connections."""
        assert self._server
        await servers.end(self._server)
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, case: Case) -> None:
        """From now on it is about this case."""
        self.links = [link for link in self.links if not link.closed]
        for link in self.links:
            link.received = b""
            link.complete.clear()
        self._case = case

    async def settled(self) -> None:
        """Wait until all that was sent here has been read, and no connection is left open."""
        count = len(self.links)
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE / 4), self._changed:
                await self._changed.wait_for(lambda: len(self.links) > count)
        await _close(writer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE / 4), self._changed:
                await self._changed.wait_for(lambda: all(link.closed for link in self.links))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        link = _Link()
        self.links.append(link)
        tls = writer.get_extra_info("ssl_object")
        serve = self._serve_2 if tls and tls.selected_alpn_protocol() == "h2" else self._serve
        try:
            await serve(link, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.closed = True
            await self._tell()
            await _close(writer)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers: list[asyncio.Task[None]] = []
        await self._tell()
        try:
            while data := await reader.read(1 << 16):
                link.received += data
                requests, rest = STRICT.requests(link.received)
                begun = len(requests) + (self._is_early and b"\r\n\r\n" in rest)
                for number in range(len(link.complete), begun):
                    target = requests[number].start[1] if number < len(requests) else b""
                    link.complete.append(asyncio.Event())
                    answer = self._answer(writer, self._script(target, _OK), link.complete[number])
                    answers.append(asyncio.create_task(answer))
                for event in link.complete[: len(requests)]:
                    event.set()
        finally:
            for task in answers:
                task.cancel()
            await asyncio.gather(*answers, return_exceptions=True)

    @property
    def _is_early(self) -> bool:
        return self._case is not None and self._case.early

    def _script(self, target: bytes, default: Sequence[Any]) -> Sequence[Any]:
        """What to answer to a request with this target."""
        script = self._case.answer if self._case and not target.endswith(FENCE.encode()) else None
        return script or default

    async def _answer(self, writer: asyncio.StreamWriter, script: Sequence[Any], complete: asyncio.Event) -> None:
        for number, piece in enumerate(script):
            if piece is None:
                writer.close()
            elif piece is True:
                await complete.wait()
            else:
                await asyncio.sleep(_PAUSE if number else 0)
                writer.write(self.fill(piece))
                await writer.drain()

    async def _serve_2(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(is_client=False)
        answered: set[int] = set()
        await self._tell()
        while True:
            writer.write(peer.out)
            peer.out = b""
            await writer.drain()
            if not (data := await reader.read(1 << 16)):
                return
            peer.feed(data)
            for number, stream in peer.streams.items():
                if number not in answered and stream.ended:
                    answered.add(number)
                    request = as_request(stream)
                    link.received += request
                    target = dict(stream.lists[0]).get(b":path", b"")
                    _send_frames(peer, number, self._script(target, _OK_2), self.fill)

    def fill(self, text: str) -> bytes:
        """The bytes that this text stands for."""
        return fill(text, authority=self.authority, port=str(self.port))


def _send_frames(peer: Peer, stream: int, pieces: Sequence[Any], fill: Fill) -> None:
    for number, piece in enumerate(pieces):
        _send_frame(peer, stream, piece, fill, end=number == len(pieces) - 1)


def _send_frame(peer: Peer, stream: int, piece: Any, fill: Fill, *, end: bool) -> None:
    if isinstance(piece, str):
        peer.send_data(stream, fill(piece), end=end)
    elif isinstance(piece, list):
        headers = [[fill(part).decode("latin-1") for part in pair] for pair in piece]
        peer.send_headers(stream, headers, end=end)


@dataclass
class Place:
    """Where cases of one mode are tried, one after the other: the port of a proxy, and an upstream behind it."""

    port: int
    upstream: Upstream
    connection: _Connection2 | None = None
    pseudonym: str = ""

    def fill(self, text: str) -> bytes:
        """The bytes that this text stands for."""
        authority, port = self.upstream.authority, str(self.upstream.port)
        proxy = f"127.0.0.1:{self.port}"
        return fill(text, authority=authority, port=port, proxy=proxy, pseudonym=self.pseudonym)

    async def learn_pseudonym(self, mode: str) -> None:
        """Learn the name of the proxy from the Via of an answer."""
        seen = await run(Case("", "", mode, plain(mode, "GET"), Expect(arrives=["GET /"])), self)
        found = re.search(rb"jwtproxy-[0-9a-f]{8}", seen.client)
        self.pseudonym = found[0].decode() if found else "unknown"

    async def close(self) -> None:
        """Close what is kept open."""
        if self.connection:
            await _close(self.connection.writer)
            self.connection = None


async def try_all(cases: Iterable[Case], places: Mapping[str, Sequence[Place]]) -> list[tuple[Case, Place, Seen]]:
    """Try each case in one of the places of its mode."""
    waiting: dict[str, list[Case]] = {}
    for case in cases:
        waiting.setdefault(case.mode, []).append(case)
    tried = []

    async def work(place: Place, queue: list[Case]) -> None:
        while queue:
            case = queue.pop(0)
            tried.append((case, place, await run(case, place)))
        await place.close()

    async with asyncio.TaskGroup() as group:
        for mode, queue in waiting.items():
            for place in places[mode]:
                group.create_task(work(place, queue))
    return tried


async def run(case: Case, place: Place) -> Seen:
    """Try one case."""
    if not place.pseudonym and "{pseudonym}" in str(case.send):
        await place.learn_pseudonym(case.mode)
    place.upstream.begin(case)
    seen = Seen()
    try:
        async with asyncio.timeout(3 * _PATIENCE):
            await (_run_2(case, place, seen) if case.by_http2 else _run(case, place, seen))
    except (OSError, EOFError, TimeoutError) as error:
        seen.faults.append(f"{type(error).__name__}: {error}")
        await place.close()
        await place.upstream.settled()
    seen.upstream = [link.received for link in place.upstream.links if link.received]
    return seen


async def _run(case: Case, place: Place, seen: Seen) -> None:
    client = await _connect(place, case.mode)
    try:
        await client.say(case, place.fill)
        expect = case.expect
        await client.until(lambda: len(client.reading(case).final) >= max(1, len(expect.final)))
        if expect.refused or expect.closed or not expect.status:
            await client.until(lambda: False)
            seen.ended = client.ended
        elif client.writer.can_write_eof():  # not over TLS
            client.writer.write_eof()
            await client.until(lambda: False)
    finally:
        seen.client = client.received
        await _close(client.writer)
    await place.upstream.settled()


async def _run_2(case: Case, place: Place, seen: Seen) -> None:
    if not place.connection:
        place.connection = _Connection2(await _connect(place, case.mode))
    connection = place.connection
    incoming = await connection.exchange(case.send, place.fill)
    seen.client = as_answers(incoming) if incoming.ended else b""
    fields = chain.from_iterable(incoming.lists)
    seen.faults += [
        f"an unsafe value of {name!r}" for name, value in fields if any(byte in value for byte in b"\r\n\0")
    ]
    if not incoming.over:
        seen.faults.append("no answer")
    fence = await connection.exchange(plain(case.mode, "GET", FENCE), place.fill)
    if not fence.has_status(200):
        seen.faults.append("the connection does not go on")
    if seen.faults:
        await place.close()
        await place.upstream.settled()


async def _connect(place: Place, mode: str) -> _Client:
    """Connect to the proxy, and through it where the mode says so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    try:
        async with asyncio.timeout(_PATIENCE):
            if mode in ("tunnel", "tls", "h2-tunnel"):
                writer.write(place.fill("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"))
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise EOFError(f"no tunnel: {head!r}")
            if mode == "tls" or mode.startswith("h2"):
                await writer.start_tls(_tls("http/1.1" if mode == "tls" else "h2"), server_hostname="127.0.0.1")
    except BaseException:
        await _close(writer)
        raise
    return _Client(reader, writer)


@functools.cache
def _tls(alpn: str) -> ssl.SSLContext:
    """A context that takes any certificate: what is said matters here, not to whom."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context


@dataclass
class _Client:
    """A client's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: bytes = b""
    ended: bool = False

    async def say(self, case: Case, fill: Fill) -> None:
        """Send, piece by piece."""
        with contextlib.suppress(OSError):  # who refuses does not read on
            for number, piece in enumerate(case.send):
                if isinstance(piece, int):
                    await self.until(functools.partial(self._has, case, piece))
                elif piece is None:
                    self.writer.write_eof()
                else:
                    await asyncio.sleep(_PAUSE if number else 0)
                    self.writer.write(fill(piece))
                    await self.writer.drain()

    def _has(self, case: Case, status: int) -> bool:
        return status in [message.status for message in self.reading(case).messages]

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Read until it is enough, or the connection ends, or patience does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while not self.ended and not is_enough():
                    self.received += await self.read()

    async def read(self) -> bytes:
        """Read some bytes; none at the end of the connection."""
        try:
            data = await self.reader.read(1 << 16)
        except OSError:
            data = b""
        self.ended |= not data
        return data

    def reading(self, case: Case) -> Reading:
        """What has been answered."""
        return STRICT.answers(self.received, case.expect.methods or [case.method], ended=self.ended)


class _Connection2:
    """A client's connection by HTTP/2."""

    def __init__(self, client: _Client) -> None:
        self._client, self._peer = client, Peer(is_client=True)
        self.writer = client.writer

    async def exchange(self, pieces: Sequence[Any], fill: Fill) -> Incoming:
        """Send a request, piece by piece; what comes of it."""
        stream = self._peer.open()
        incoming = self._peer.streams[stream]
        for number, piece in enumerate(pieces):
            if isinstance(piece, int):
                await self._until(functools.partial(incoming.has_status, piece))
            _send_frame(self._peer, stream, piece, fill, end=number == len(pieces) - 1)
            await self._flush()
        await self._until(lambda: incoming.over)
        if pieces[-1] is None and incoming.reset is None:
            self._peer.reset(stream)
        return incoming

    async def _until(self, is_enough: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while not is_enough() and not self._client.ended and not self._peer.going_away:
                    self._peer.feed(await self._client.read())
                    await self._flush()

    async def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self.writer.write(self._peer.out)
            self._peer.out = b""
            await self.writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    if writer.get_extra_info("ssl_object"):
        writer.transport.abort()  # without a farewell, for which the peer may take its time
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE / 4):
            await writer.wait_closed()


MODES = {
    "regular": [],
    "tunnel": [],
    "tls": [],
    "h2": [],
    "h2-tunnel": [],
    "reverse": ["--mode", "reverse:http://{}"],
    "h2-reverse": ["--mode", "reverse:http://{}"],
    "upstream": ["--mode", "upstream:http://{}"],
    "trace": ["--set", "jwt_trace=on"],
    "via-on": ["--set", "jwt_via=on"],
    "via-off": ["--set", "jwt_via=off"],
}
"""What the proxy of a mode is told. `{}` is its upstream."""

SIDE_BY_SIDE = {"regular": 2, "tunnel": 2}
"""How many cases of a mode are tried at a time, if not one."""


class Bench:
    """The proxies and upstreams with which cases are tried, each started when it is first needed."""

    def __init__(self, start: Callable[..., Proxy], authority: Authority) -> None:
        self._start, self._authority = start, authority
        self._loop = asyncio.new_event_loop()
        self._proxies: dict[str, Proxy] = {}
        self._places: dict[str, list[Place]] = {}

    def failures(self, cases: Sequence[Case]) -> list[str]:
        """Each case of which not what should came, and what did."""
        return self._loop.run_until_complete(self._failures(cases))

    async def _failures(self, cases: Sequence[Case]) -> list[str]:
        places = {mode: await self._at(mode) for mode in dict.fromkeys(case.mode for case in cases)}
        faults = {case.name: judge(case, seen, place.fill) for case, place, seen in await try_all(cases, places)}
        return [f"{name}: {'; '.join(wrong)}" for name, wrong in sorted(faults.items()) if wrong]

    async def _at(self, mode: str) -> list[Place]:
        if mode not in self._places:
            self._places[mode] = [await self._place(mode) for _ in range(SIDE_BY_SIDE.get(mode, 1))]
        return self._places[mode]

    async def _place(self, mode: str) -> Place:
        alpn = {"tls": "http/1.1", "h2-tunnel": "h2"}.get(mode)
        upstream = Upstream(self._authority.server_context([alpn]) if alpn else None)
        await upstream.start()
        args = [arg.format(upstream.authority) for arg in MODES[mode]]
        key = " ".join(args)
        if key not in self._proxies:
            self._proxies[key] = self._start(*args)
        return Place(self._proxies[key].port, upstream)

    def stop(self) -> None:
        """Stop the proxies, which must live and be unshaken, and the upstreams."""
        for proxy in self._proxies.values():
            assert proxy.running, proxy.output
            proxy.stop()
        self._loop.run_until_complete(self._stop())
        self._loop.close()
        for proxy in self._proxies.values():
            assert "Traceback" not in proxy.output, proxy.output

    async def _stop(self) -> None:
        for place in (place for places in self._places.values() for place in places):
            await place.upstream.stop()
