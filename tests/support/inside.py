"""A real proxy inside this process, its upstream and its clients.

mitmproxy is imported inside functions only: it warns, and `conftest.py` imports this before warnings are caught.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from jwtproxy.conduct.access import OPEN
from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Forward, Refuse, Verdict
from jwtproxy.policy.faults import UNSIGNED

from . import servers

if TYPE_CHECKING:
    from mitmproxy.master import Master
    from mitmproxy.options import Options

    from jwtproxy.launcher.addons.fast_lane import FastLane
    from jwtproxy.mitm.gate import Judge

_numbers = itertools.count()
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Upstream:
    """A server on loopback. It answers its requests with these bytes in turn, later ones with 200; None is silence."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self._writers: list[asyncio.StreamWriter] = []
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.authority = "127.0.0.1:{1}".format(*self._server.sockets[0].getsockname())
        return self

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self._writers)

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    def hang_up(self) -> None:
        """Close the last connection."""
        self._writers[-1].close()

    async def __aexit__(self, *exc: object) -> None:
        for writer in self._writers:
            writer.close()
        await servers.end(self._server)

    def request(self, *lines: str, body: bytes = b"", method: str = "GET") -> bytes:
        """What a client tells the proxy to get something from here."""
        head = (f"{method} http://{self.authority}/ HTTP/1.1", f"Host: {self.authority}", *lines, "", "")
        return "\r\n".join(head).encode() + body

    async def answer(self, data: bytes) -> None:
        """Answer, on the last connection, a request that was met with silence."""
        self._writers[-1].write(data)
        await self._writers[-1].drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                self.bodies.append(await _body(reader, self.heads[-1]))
                answer = self._answers.pop(0) if self._answers else _OK
                if answer is not None:
                    writer.write(answer)
        writer.close()


@dataclass
class Reply:
    """One answer."""

    head: bytes
    body: bytes

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.head.split()[1])


class Client:
    """One connection to the proxy."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Send something."""
        self._writer.write(data)

    def end(self) -> None:
        """Say that nothing more comes."""
        self._writer.write_eof()

    async def ask(self, request: bytes, *, head_only: bool = False) -> Reply:
        """Send something, wait for an answer."""
        self.send(request)
        return await self.head() if head_only else await self.reply()

    async def head(self) -> Reply:
        """The next answer, of which no body is awaited."""
        return Reply(await self._reader.readuntil(b"\r\n\r\n"), b"")

    async def reply(self) -> Reply:
        """The next answer."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        return Reply(head, await _body(self._reader, head))

    async def exactly(self, size: int) -> bytes:
        """The next `size` bytes."""
        return await self._reader.readexactly(size)

    async def rest(self) -> bytes:
        """All that comes until the proxy closes the connection."""
        return await self._reader.read()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body after this head, chunked ones as they come."""
    if b"transfer-encoding: chunked" in head.lower():
        return await reader.readuntil(b"0\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head.lower())
    return await reader.readexactly(int(length[1])) if length else b""


@dataclass
class Inside:
    """A proxy in this process."""

    master: Master
    port: int

    lane: FastLane | None = None
    carried: int = 0
    """Requests that set out by the fast lane."""

    def client(self) -> Client:
        """A new connection to it."""
        return Client(self.port)

    async def ask(self, request: bytes) -> Reply:
        """The answer to one request on a connection of its own."""
        async with self.client() as client:
            return await client.ask(request)


class Serve(Protocol):
    """Start a proxy with these addons and options."""

    def __call__(self, *addons: Any, lane: bool = False, **options: Any) -> AbstractAsyncContextManager[Inside]:
        """Serve until the end of the block."""
        ...


@contextlib.asynccontextmanager
async def serve(*addons: Any, lane: bool = False, **options: Any) -> AsyncIterator[Inside]:
    """mitmproxy's own server on loopback, on a port of its choice, with those addons it needs and those given.

    `lane`: with the fast lane in front, which is on only while each addon is one of `Ours`, `Opens` or mitmproxy's.
    """
    from mitmproxy.addons import core, modifyheaders, next_layer, proxyserver
    from mitmproxy.master import Master
    from mitmproxy.options import Options

    master, server = Master(Options()), proxyserver.Proxyserver()
    inside = Inside(master, 0)
    with _lane_before(inside) if lane else contextlib.nullcontext():
        master.addons.add(core.Core(), server, next_layer.NextLayer(), modifyheaders.ModifyHeaders(), *addons)
        master.options.update(**{"listen_host": "127.0.0.1", "listen_port": 0, "rawtcp": False} | options)
        running = asyncio.create_task(master.run())
        try:
            while not server.is_running:
                await asyncio.sleep(0.01)
            inside.port = server.listen_addrs()[0][1]
            yield inside
        finally:
            await server.servers.update([])
            master.shutdown()
            await running
            while server.connections:
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def _lane_before(inside: Inside) -> Iterator[None]:
    """Have the fast lane take the connections of this proxy, as the launcher's loop does."""
    from jwtproxy.launcher.addons.fast_lane import FastLane
    from jwtproxy.mitm import dispatch

    def count() -> None:
        inside.carried += 1

    def create_server(factory: Callable[[], Any], *arguments: Any, **options: Any) -> Any:
        return create(lane.wrap(factory), *arguments, **options)

    loop: Any = asyncio.get_running_loop()
    create = loop.create_server
    inside.master.addons = dispatch.AddonManager(inside.master)
    inside.lane = lane = FastLane(count)
    inside.master.addons.add(lane)
    loop.create_server = create_server
    try:
        yield
    finally:
        del loop.create_server


class Ours:
    """An addon that the fast lane takes for one of ours, with these hooks."""

    __module__ = "jwtproxy.tests"

    def __init_subclass__(cls) -> None:
        cls.__module__ = Ours.__module__

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.name = f"ours{next(_numbers)}"
        vars(self).update(hooks)


class Verdicts:
    """A judge that says the same of every request, and notes whom it was asked about."""

    has_rules = False
    signs = True
    pseudonym = ""
    via_on_answers = False
    token_fields = frozenset[bytes]()
    access = OPEN

    def __init__(self, refusal: Refuse | None = None) -> None:
        self._refusal = refusal
        self.asked: list[RequestHead] = []

    def refusal(self, head: RequestHead) -> Refuse | None:
        """The refusal, if there is one."""
        self.asked.append(head)
        return self._refusal

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        """The refusal, if there is one; else the request leaves as it is."""
        self.asked.append(head)
        return self._refusal or Forward(head.fields)

    def clean_trailers(self, trailers: Fields) -> Fields:
        """All of them."""
        return trailers


class Numbers(Verdicts):
    """A judge that numbers its verdicts."""

    token_fields = frozenset((b"x-number",))
    given = 0

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        """The next number, in a field in place of any that is there."""
        self.given += 1
        kept = tuple(field for field in head.fields if field[0] != b"x-number")
        return Forward((*kept, (b"x-number", b"%d" % self.given)))


def open_gate(options: Options, judge: Judge = UNSIGNED) -> None:
    """Let everything pass the master with these options but what this judge refuses."""
    from jwtproxy.mitm import gate

    gate.hang(options, gate.Gate(lambda: judge))


class Opens:
    """An addon in place of JwtInject: it signs nothing, lets pass what its judge does, and counts what leaves."""

    __module__ = "jwtproxy.tests"

    def __init__(self, judge: Judge = UNSIGNED, *, timeout: float = 0.0, **limits: float) -> None:
        """`limits`: of time, by name: head, keepalive, body, idle, tls."""
        self._judge, self._timeout, self._limits = judge, timeout, limits
        self.count = 0

    def load(self, loader: Any) -> None:
        """Take the place."""
        from mitmproxy import ctx

        from jwtproxy.mitm import gate, patches, response_timeout, time_limits

        patches.install()
        if self._limits:
            values = {row.member: self._limits.get(row.member.partition("_")[0], 0.0) for row in time_limits.OPTIONS}
            time_limits.hang(ctx.options, values)
        open_gate(ctx.options, self._judge)
        gate.count_with(ctx.options, self._add)
        for option in response_timeout.OPTIONS:
            loader.add_option(option.name, str, f"{self._timeout:g}", option.help)

    def _add(self) -> None:
        self.count += 1
