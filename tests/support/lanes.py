"""Hold the two lanes of the proxy against each other: the same conversation with both, and what came of it, compared.

A conversation is data: what the client does, step by step, and how its upstreams answer, by path. A step is one of

- a string: send it, as Latin-1; `{url}/x` is a target at the upstream and `{authority}` its address, `{url2}` and
  `{authority2}` those of a second one, `{closed}` an address where nobody listens, `{proxy}` the proxy's own, `{a*9}`
  nine a's;
- `Pieces`: send it piece by piece; `Exact`: send it as it is, with the address of the upstream in place of U+E000;
- a number: (client) wait until so many final answers have come, or the connection has ended;
- `Arrives`, `Comes`, `Status`, `Sends`: (client) wait until an upstream has received, the client has received, or an
  upstream has sent this;
- None: close this side of the connection; `Do`: what it says.

Where the client has not gone it asks for one thing more in the end, the fence, so that it shows whether the connection
goes on, and where its answers really end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from . import servers
from .corpus import fill
from .readers import STRICT, Reading

PATIENCE = 6.0
"""Seconds for anything to happen; whoever is never to answer costs as much."""
FENCE = "/fence"
TRIES = 3
"""How often a conversation may differ: who looks at a reset in between may see more or less of what came before it."""

_PAUSE = 0.004  # seconds between pieces
_OK = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}"
_QUIET = 0.25  # seconds after which nothing more is awaited where nobody knows what will come
_SLOW_READS = 8 * 1024


class Do(Enum):
    """What an end of a connection does, other than send something."""

    EARLY = "answer once the head is there"
    COMPLETE = "wait for the whole request"
    PAUSE = "wait a little"
    RESET = "reset the connection"
    CLOSE = "close the connection"
    QUIET = "wait until the fence is answered, or nothing happens any more"
    GONE = "wait until the proxy has closed all connections to upstreams"
    ENDED = "wait until the proxy has closed the connection to the client"


@dataclass(frozen=True)
class Pieces:
    """Send this piece by piece."""

    text: str
    size: int = 1


@dataclass(frozen=True)
class Exact:
    """Send this, but for U+E000, which stands for the address of the upstream."""

    text: str


@dataclass(frozen=True)
class Status:
    """Wait until the client has received an answer with this status code, interim or not."""

    code: int


@dataclass(frozen=True)
class Arrives:
    """Wait until an upstream has received this."""

    text: str


@dataclass(frozen=True)
class Comes:
    """Wait until the client has received this."""

    text: str


@dataclass(frozen=True)
class Sends:
    """Wait until the upstreams have sent so many bytes."""

    size: int


Step = str | int | Pieces | Exact | Status | Arrives | Comes | Sends | Do | None


@dataclass(frozen=True)
class Talk:
    """A conversation.

    answers: by path, or `*` for all but the fence; 200 and the path itself where there is none. hands_over: the fast
    lane gives the connection away after it has been in use, and with it its connections to upstreams. partial: requests
    that are not complete may arrive in part. plain: it makes sense without TLS only. slow_client, slow_upstream: who
    reads slowly. deaf: the client reads nothing. methods: of the requests that are answered, where what is sent does
    not show it.
    """

    name: str
    says: Sequence[Step]
    answers: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    hands_over: bool = False
    partial: bool = False
    plain: bool = False
    slow_client: bool = False
    slow_upstream: bool = False
    deaf: bool = False
    methods: Sequence[str] = ()


@dataclass
class Outcome:
    """What came of a conversation, comparable: what the client got, and each upstream, by connection."""

    client: bytes
    ended: bool
    upstreams: list[list[bytes]]
    faults: list[str]
    arrived: list[bytes] = field(default_factory=list)
    """What the upstreams got, token and all."""


@dataclass(frozen=True)
class Lane:
    """One of two proxies that should not differ."""

    port: int
    closed: int
    """A port where nobody listens."""
    tunnel: bool = False
    """Whether conversations are held in tunnels."""
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    """What they are encrypted with there, if they are."""


# --- what is compared

_TOKEN = re.compile(rb"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_VARYING = (
    (_TOKEN, b"TOKEN"),
    (re.compile(rb"(?i)\r\ndate: [^\r\n]*"), rb"\r\nDate: DATE"),
    (re.compile(rb"jwtproxy-[0-9a-f]{8}"), b"jwtproxy-PSEUDONYM"),
    (re.compile(rb'\{"uptime_seconds"[^\n]*'), b"{STATUS}"),
    (
        re.compile(
            rb"(Vary: Accept\r\n(?:X-Content-Type-Options: nosniff\r\n)?Server: jwtproxy\r\ncontent-length: )\d+"
        ),
        rb"\1SIZE",
    ),
)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


def masked(data: bytes, names: Mapping[str, str]) -> bytes:
    """The bytes without what is never the same twice. `names`: of addresses and ports."""
    data = in_one_chunk(data)
    for pattern, name in _VARYING:
        data = pattern.sub(name, data)
    for text, said in names.items():
        data = data.replace(text.encode(), said.encode())
    return data


def in_one_chunk(data: bytes) -> bytes:
    """The messages with the content of each chunked body in one piece: how it is cut depends on how it is read."""
    parts, place = [], 0
    while (end := data.find(b"\r\n\r\n", place)) >= 0:
        head, place = data[place : end + 4], end + 4
        parts.append(head)
        if _CHUNKED.search(head):
            said, place = _chunks(data, place)
            parts.append(said)
        elif found := _LENGTH.search(head):
            body = data[place : place + int(found[1])]
            if not body.startswith(b"HTTP/1."):  # that is the next one; this was an answer to HEAD, or 304
                parts.append(body)
                place += len(body)
    return b"".join(parts) + data[place:]


def _chunks(data: bytes, place: int) -> tuple[bytes, int]:
    content, size = b"", -1
    while size and (found := _SIZE.match(data, place)):
        size, place = int(found[1], 16), found.end()
        content += data[place : place + size]
        place += size + 2 if size else 0
    if size < 0:
        return b"", place
    return b"<%d in chunks>%s%s" % (len(content), content, b"<last chunk>" if not size else b""), min(place, len(data))


def differences(talk: Talk, fast: Outcome, slow: Outcome) -> list[str]:
    """How the lanes differ; and what neither should have done."""
    found = [f"{name} lane: {fault}" for name, one in (("fast", fast), ("slow", slow)) for fault in one.faults]
    if not _is_equal(talk, fast, slow):
        found.append(
            f"to the client:\n  fast {_shown(fast.client, fast.ended)}\n  slow {_shown(slow.client, slow.ended)}"
        )
    for number, (one, other) in enumerate(zip(fast.upstreams, slow.upstreams, strict=True)):
        if talk.hands_over:
            one, other = [b"".join(one)], [b"".join(other)]
        if one != other:
            found.append(f"to upstream {number}:\n  fast {_all_shown(one)}\n  slow {_all_shown(other)}")
    return found


def _is_equal(talk: Talk, one: Outcome, other: Outcome) -> bool:
    """Whether both clients got the same; one who resets may do so before or after the last of it has come."""
    if talk.says and talk.says[-1] is Do.RESET:
        return one.client.startswith(other.client) or other.client.startswith(one.client)
    if talk.says and talk.says[-1] is Do.CLOSE:  # who closes first, nobody knows
        return one.client == other.client
    return (one.client, one.ended) == (other.client, other.ended)


def _complete(data: bytes) -> bytes:
    rest = STRICT.requests(data).rest
    return data.removesuffix(rest) if rest else data


def _all_shown(links: Sequence[bytes]) -> str:
    return f"({len(links)}) " + " | ".join(map(_shown, links))


def _shown(data: bytes, ended: bool = False) -> str:
    text = repr(data)
    return (text if len(text) < 1500 else f"{text[:700]} … {text[-700:]}") + (" (closed)" if ended else "")


# --- how it is held


@dataclass
class _Link:
    """A connection of an upstream."""

    received: bytes = b""
    complete: list[asyncio.Event] = field(default_factory=list)
    closed: bool = False


class _Held:
    """A conversation with one lane."""

    def __init__(self, talk: Talk, lane: Lane) -> None:
        self._talk, self._lane = talk, lane
        self._changed = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._links: list[list[_Link]] = [[], []]
        self._tasks: set[asyncio.Task[None]] = set()
        self._values: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._received, self._ended, self._said = b"", False, ""
        self._sent = 0
        self._faults: list[str] = []

    async def hold(self) -> Outcome:
        """Hold it."""
        try:
            await self._listen()
            try:
                await self._speak()
            except (OSError, EOFError) as error:
                self._faults.append(f"{type(error).__name__}: {error}")
            await self._until("end of the connections to upstreams", self._is_gone)
        finally:
            await self._stop()
        arrived = _complete if self._talk.partial else bytes
        received = [[arrived(link.received) for link in links] for links in self._links]
        upstreams = [[self._masked(data) for data in links if data] for links in received]
        whole = [data for links in received for data in links]
        return Outcome(self._masked(self._received), self._ended, upstreams, self._faults, whole)

    def _masked(self, data: bytes) -> bytes:
        return masked(data, self._names)

    async def _listen(self) -> None:
        for links, suffix in zip(self._links, ("", "2"), strict=True):
            accept = functools.partial(self._accept, links)
            tls = self._lane.server_tls
            server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, limit=1 << 14)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            if self._talk.slow_upstream:
                server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            self._values[f"authority{suffix}"] = f"127.0.0.1:{port}"
            self._values[f"url{suffix}"] = "" if self._lane.tunnel else f"http://127.0.0.1:{port}"
            self._values[f"port{suffix}"] = str(port)
            self._names |= {f"127.0.0.1:{port}": f"UPSTREAM{suffix}", str(port): f"PORT{suffix}"}
        for name, port in (("closed", self._lane.closed), ("proxy", self._lane.port)):
            self._values[name] = f"127.0.0.1:{port}"
            self._names[f"127.0.0.1:{port}"] = name.upper()

    async def _stop(self) -> None:
        for server in self._servers:
            await servers.end(server)
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await servers.turns()

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _is_gone(self) -> bool:
        return all(link.closed for links in self._links for link in links)

    async def _until(self, what: str, is_so: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._faults.append(f"no {what} within {PATIENCE:g} s")

    def _fill(self, text: str) -> bytes:
        return fill(text, **self._values)

    # --- the client

    async def _speak(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._lane.port, limit=1 << 14)
        if self._talk.slow_client or self._talk.deaf:
            _socket(writer).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        try:
            if self._lane.tunnel:
                await self._tunnel(reader, writer)
            listening = None if self._talk.deaf else self._start(self._listen_to_the_proxy(reader))
            gone = False
            for step in self._talk.says:
                gone = await self._do(step, writer) or gone
            if not gone:
                await self._ask_for_the_fence(writer)
            if listening:
                listening.cancel()
        finally:
            await _close(writer)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(PATIENCE):
            writer.write(self._fill("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise EOFError(f"no tunnel: {head!r}")
            if tls := self._lane.client_tls:
                await writer.start_tls(tls, server_hostname="127.0.0.1")

    async def _listen_to_the_proxy(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(_SLOW_READS if self._talk.slow_client else 1 << 16):
                self._received += data
                self._changed.set()
                if self._talk.slow_client:
                    await asyncio.sleep(_PAUSE / 4)
        except OSError:
            pass
        self._ended = True
        self._changed.set()

    async def _do(self, step: Step, writer: asyncio.StreamWriter) -> bool:
        """Do one thing; whether the client is gone now."""
        match step:
            case str() | Pieces() | Exact():
                self._said += step if isinstance(step, str) else step.text
                with contextlib.suppress(OSError):  # who refuses does not read on
                    await _send(step, writer, self._fill)
            case None | Do.RESET | Do.CLOSE:
                await _send(step, writer)
                if step is None:
                    await self._wait(Do.GONE if self._talk.deaf else Do.ENDED)
                return True
            case Do.PAUSE:
                await _send(step, writer)
            case Do.QUIET:
                await self._quiet()
            case _:
                await self._wait(step)
        return False

    async def _wait(self, step: Step) -> None:
        """Wait for what a step says, or the end of the connection, unless the step is about the upstreams alone."""
        is_of_upstreams = isinstance(step, Sends) or step is Do.GONE
        await self._until(f"{step}", lambda: (self._ended and not is_of_upstreams) or self._is_so(step))

    def _is_so(self, step: Step) -> bool:
        match step:
            case int():
                return len(self._reading().final) >= step
            case Status(code):
                return code in [message.status for message in self._reading().messages]
            case Arrives(text):
                return self._has_arrived(self._fill(text))
            case Comes(text):
                return text.encode() in self._received
            case Sends(size):
                return self._sent >= size
        return step is Do.GONE and self._is_gone()

    async def _ask_for_the_fence(self, writer: asyncio.StreamWriter) -> None:
        await self._do(f"GET {{url}}{FENCE} HTTP/1.1\r\nHost: {{authority}}\r\n\r\n", writer)
        await self._until("answer to the fence", lambda: self._ended or self._received.endswith(FENCE.encode()))

    async def _quiet(self) -> None:
        with contextlib.suppress(TimeoutError):
            while not self._ended and not self._received.endswith(FENCE.encode()):
                self._changed.clear()
                async with asyncio.timeout(_QUIET):
                    await self._changed.wait()

    def _reading(self) -> Reading:
        methods = self._talk.methods or re.findall(r"([A-Z]+) \S+ HTTP/1\.[01]\r?\n", self._said)
        return STRICT.answers(self._received, methods, ended=self._ended)

    def _has_arrived(self, data: bytes) -> bool:
        return any(data in link.received for links in self._links for link in links)

    # --- its upstreams

    async def _accept(self, links: list[_Link], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        link = _Link()
        links.append(link)
        self._changed.set()
        answering = self._start(self._answer_all(link, writer))
        try:
            while data := await reader.read(_SLOW_READS if self._talk.slow_upstream else 1 << 16):
                self._receive(link, data)
                if self._talk.slow_upstream:
                    await asyncio.sleep(_PAUSE / 4)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            answering.cancel()
            link.closed = True
            self._changed.set()
            await _close(writer)

    def _receive(self, link: _Link, data: bytes) -> None:
        link.received += data
        requests, rest = STRICT.requests(link.received)
        begun = len(requests) + (b"\r\n\r\n" in rest)
        link.complete += [asyncio.Event() for _ in range(begun - len(link.complete))]
        for event in link.complete[: len(requests)]:
            event.set()
        self._changed.set()

    async def _answer_all(self, link: _Link, writer: asyncio.StreamWriter) -> None:
        number = 0
        while True:
            await self._next_request(link, number)
            path = _paths(link.received)[number]
            default: Sequence[Step] = (_OK.format(len(path), path),)
            steps = self._talk.answers.get(path) or (self._talk.answers.get("*") if path != FENCE else None)
            await self._answer(steps or default, link.complete[number], writer)
            number += 1

    async def _next_request(self, link: _Link, number: int) -> None:
        while len(link.complete) <= number:
            self._changed.clear()
            await self._changed.wait()

    async def _answer(self, steps: Sequence[Step], complete: asyncio.Event, writer: asyncio.StreamWriter) -> None:
        if not steps or steps[0] is not Do.EARLY:
            await complete.wait()
        for step in steps:
            if step is Do.COMPLETE:
                await complete.wait()
            elif isinstance(step, str | Pieces | Exact) or step is None or step in (Do.PAUSE, Do.CLOSE, Do.RESET):
                with contextlib.suppress(OSError):
                    await _send(step, writer, self._fill)
                self._sent += len(self._fill(step)) if isinstance(step, str) else 0
                self._changed.set()


def _paths(data: bytes) -> list[str]:
    """Of the requests that have come, or begun to."""
    requests, rest = STRICT.requests(data)
    targets = [request.start[1] for request in requests]
    targets += [rest.split(b" ", 2)[1]] if b"\r\n\r\n" in rest else []
    return [target.decode("latin-1") for target in targets]


async def _send(step: Step, writer: asyncio.StreamWriter, fill: Callable[[str], bytes] = str.encode) -> None:
    match step:
        case str() | Pieces() | Exact():
            await _send_bytes(step, writer, fill)
        case None:
            writer.write_eof()
        case Do.PAUSE:
            await asyncio.sleep(5 * _PAUSE)
        case Do.CLOSE:
            writer.close()
        case Do.RESET:
            await asyncio.sleep(5 * _PAUSE)  # lest it overtake what was sent
            _socket(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _send_bytes(step: str | Pieces | Exact, writer: asyncio.StreamWriter, fill: Callable[[str], bytes]) -> None:
    if isinstance(step, Exact):
        data = fill("{authority}").join(part.encode("latin-1") for part in step.text.split("\ue000"))
    else:
        data = fill(step if isinstance(step, str) else step.text)
    size = step.size if isinstance(step, Pieces) else len(data) or 1
    for place in range(0, len(data), size):
        writer.write(data[place : place + size])
        await writer.drain()
        if isinstance(step, Pieces):
            await asyncio.sleep(_PAUSE)


def _socket(writer: asyncio.StreamWriter) -> Any:
    return writer.get_extra_info("socket")


async def _close(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():  # closed twice, a transport of TLS forgets what it is
        if writer.get_extra_info("ssl_object"):
            writer.transport.abort()  # without a farewell, for which the peer may take its time
        else:
            writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE / 4):
            await writer.wait_closed()
    writer.transport.abort()  # what nobody wants to read must not keep it open


async def hold(talk: Talk, lane: Lane) -> Outcome:
    """Hold a conversation with one lane."""
    return await _Held(talk, lane).hold()


async def compare(talk: Talk, fast: Lane, slow: Lane) -> str:
    """Hold a conversation with both; how they differ, each time it is tried."""
    found: list[str] = []
    for _ in range(TRIES):
        found = differences(talk, *await asyncio.gather(hold(talk, fast), hold(talk, slow)))
        if not found:
            return ""
    return f"{talk.name}: " + "; ".join(found)


async def compare_all(
    talks: Sequence[Talk], compare_one: Callable[[Talk], Awaitable[str]], *, at_a_time: int = 8
) -> dict[str, str]:
    """How the lanes differ in these conversations, by their names."""
    found: dict[str, str] = {}
    waiting = [*reversed(talks)]

    async def work() -> None:
        while waiting:
            talk = waiting.pop()
            found[talk.name] = await compare_one(talk)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_a_time):
            group.create_task(work())
    return {name: said for name, said in found.items() if said}
