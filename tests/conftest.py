"""Fixtures of the tests that run mitmproxy, or parts of it, inside this process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import re
import signal
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import hypothesis
import pytest

if TYPE_CHECKING:
    from mitmproxy.master import Master

_OURS = re.compile(r"JWT_\w+|HTTP_PORT|HTTP_HOST|WORKERS|NO_COLOR|FORCE_COLOR")
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


hypothesis.settings.register_profile("unhurried", deadline=None)  # other tests keep the machine busy
hypothesis.settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """Import mitmproxy, which with its dependencies uses a few deprecated names, before warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("mitmproxy.addons")
    # It goes on to do so wherever it reads a flow filter.
    config.addinivalue_line("filterwarnings", "ignore:.*deprecated:DeprecationWarning:(mitmproxy|pyparsing)")


@pytest.fixture
def pristine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment without our variables, an empty working directory and home; whatever is patched is put back."""
    from mitmproxy import ctx
    from mitmproxy.proxy import mode_servers
    from mitmproxy.proxy.layers import http
    from mitmproxy.proxy.layers.http import _http1

    from jwtproxy import http_stream

    for name in filter(_OURS.fullmatch, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(http, "HttpStream", http.HttpStream)
    monkeypatch.setattr(_http1, "ChunkedReader", _http1.ChunkedReader)
    for name in ("Http1Server", "Http1Client"):
        monkeypatch.setattr(http, name, getattr(http, name))
    monkeypatch.setattr(mode_servers, "ProxyConnectionHandler", mode_servers.ProxyConnectionHandler)
    for name in ("gate", "clean", "forwarded", "response_timeout", "published", "host_mismatch"):
        monkeypatch.setattr(http_stream.seam, name, getattr(http_stream.Seam(), name))
    for name in ("master", "options", "log"):
        monkeypatch.setattr(ctx, name, None, raising=False)
    root, handled = logging.getLogger(), {number: signal.getsignal(number) for number in _HANDLED}
    handlers, level, blocked = root.handlers[:], root.level, signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    master: Master | None = ctx.master
    if master is not None and not master.event_loop.is_closed():
        master.event_loop.close()  # that of a taddons.context
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, handler in handled.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(scope="session")
def shown() -> Callable[[BaseException], str]:
    """All that any way of printing an error could show: of itself, of what it came of, of its hint."""
    return _shown


def _shown(error: BaseException | None) -> str:
    if error is None:
        return ""
    own = "".join(traceback.format_exception(error, chain=False)) + str(error) + getattr(error, "hint", "")
    return own + _shown(error.__cause__) + _shown(error.__context__)


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

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

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

    async def ask(self, request: bytes, *, head_only: bool = False) -> Reply:
        """Send something, wait for an answer."""
        self.send(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        return Reply(head, b"" if head_only else await _body(self._reader, head))

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

    def client(self) -> Client:
        """A new connection to it."""
        return Client(self.port)

    async def ask(self, request: bytes) -> Reply:
        """The answer to one request on a connection of its own."""
        async with self.client() as client:
            return await client.ask(request)


class Serve(Protocol):
    """Start a proxy with these addons and options."""

    def __call__(self, *addons: Any, **options: Any) -> AbstractAsyncContextManager[Inside]:
        """Serve until the end of the block."""
        ...


@pytest.fixture
def serve(pristine: None) -> Serve:
    """mitmproxy's own server on loopback, on a port of its choice, with those addons it needs and those given."""
    return _serve


@contextlib.asynccontextmanager
async def _serve(*addons: Any, **options: Any) -> AsyncIterator[Inside]:
    from mitmproxy.addons import core, modifyheaders, next_layer, proxyserver
    from mitmproxy.master import Master
    from mitmproxy.options import Options

    master, server = Master(Options()), proxyserver.Proxyserver()
    master.addons.add(core.Core(), server, next_layer.NextLayer(), modifyheaders.ModifyHeaders(), *addons)
    master.options.update(**{"listen_host": "127.0.0.1", "listen_port": 0, "rawtcp": False} | options)
    running = asyncio.create_task(master.run())
    try:
        while not server.is_running:
            await asyncio.sleep(0.01)
        yield Inside(master, server.listen_addrs()[0][1])
    finally:
        await server.servers.update([])
        master.shutdown()
        await running
        while server.connections:
            await asyncio.sleep(0.01)


@pytest.fixture
def upstream() -> type[Upstream]:
    """The upstream of a proxy inside this process."""
    return Upstream
