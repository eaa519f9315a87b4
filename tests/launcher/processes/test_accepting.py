"""Connections are accepted while there is room, none before the start is over, and quietly none without descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jwtproxy.conduct.crowd import Full
from jwtproxy.launcher.processes import accepting
from jwtproxy.launcher.processes.accepting import Acceptor

WORDS = b"full"


class Echo(asyncio.Protocol):
    """Says what it hears, and knows who spoke."""

    made: list[Any]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made.append(transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Listening:
    """An acceptor with one server on a port."""

    def __init__(self, *, later: bool = False, words: bytes = WORDS) -> None:
        self.acceptor = Acceptor(asyncio.get_running_loop())
        self.refused: list[Full] = []
        self.acceptor.refused = self.refused.append
        self.made: list[Any] = []
        self.clients: list[asyncio.StreamWriter] = []
        if later:
            self.acceptor.open_later()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        kind = type("Kind", (Echo,), {"made": self.made})
        self.server = self.acceptor.add([self.socket], kind, lambda full: words, 100)

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        self.clients.append(writer)
        return reader, writer

    async def is_served(self, source: str = "127.0.0.1") -> bool:
        """Whether somebody is served, and stays."""
        reader, writer = await self.connect(source)
        writer.write(b"hello")
        return await asyncio.wait_for(reader.read(5), 5) == b"hello"

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[Listening]:
    found = Listening(**options)
    try:
        yield found
    finally:
        found.acceptor.close()
        for transport in (*found.made, *(client.transport for client in found.clients)):
            transport.abort()
        await asyncio.sleep(0.01)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_clients_that_come_during_the_start_are_served_after_it() -> None:
    async def test() -> None:
        async with listening(later=True) as there:
            reader, writer = await there.connect()
            writer.write(b"hello")
            await asyncio.sleep(0.05)
            assert not there.made
            there.acceptor.open()
            assert await asyncio.wait_for(reader.read(5), 5) == b"hello"
            writer.close()

    run(test)


def test_beyond_the_limit_a_client_is_told_and_another_address_is_served() -> None:
    async def test() -> None:
        async with listening() as there:
            there.acceptor.crowd.most_each = 2
            assert await there.is_served()
            assert await there.is_served()
            for _ in range(2):
                reader, writer = await there.connect()
                writer.write(b"x" * 1000)
                assert await asyncio.wait_for(reader.read(), 5) == WORDS
                writer.close()
            assert await there.is_served("127.0.0.2")
            assert there.refused == [Full.CLIENT] * 2

    run(test)


@pytest.mark.parametrize("words", [WORDS, b""])
def test_a_crowd_that_is_refused_takes_few_descriptors(words: bytes) -> None:
    async def test() -> None:
        async with listening(words=words) as there:
            there.acceptor.crowd.most = 1
            assert await there.is_served()
            clients = [await there.connect() for _ in range(30)]
            await there.until(lambda: len(there.refused) == 30)
            assert there.acceptor._heard_out <= accepting._MOST_REFUSED
            for reader, _ in clients:
                assert await asyncio.wait_for(reader.read(), 5) == words
            for _, writer in clients:
                writer.close()
            await there.until(lambda: there.acceptor._heard_out == 0)

    run(test)


def test_who_does_not_hang_up_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_HEARD_OUT", 0.05)

    async def test() -> None:
        async with listening() as there:
            there.acceptor.crowd.most = 1
            assert await there.is_served()
            _, writer = await there.connect()
            await there.until(lambda: there.acceptor._heard_out == 1)
            await there.until(lambda: there.acceptor._heard_out == 0)
            writer.close()

    run(test)


@pytest.mark.parametrize("end", ["client", "server", "reset", "handed on"])
def test_a_connection_counts_until_it_is_closed_and_once(end: str) -> None:
    async def test() -> None:
        async with listening() as there:
            crowd = there.acceptor.crowd
            _, writer = await there.connect()
            await there.until(lambda: len(there.made) == 1)
            assert crowd.size == 1
            (transport,) = there.made
            if end == "handed on":
                transport.set_protocol(asyncio.Protocol())
                transport.close()
            elif end == "server":
                transport.close()
                transport.close()
            elif end == "client":
                writer.close()
            else:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
            await there.until(lambda: crowd.size == 0)
            await asyncio.sleep(0.02)
            assert crowd.size == 0
            writer.close()

    run(test)


def test_who_has_connected_is_known_when_it_has_left() -> None:
    async def test() -> None:
        async with listening(later=True) as there:
            gone = socket.create_connection(("127.0.0.1", there.port))
            address = gone.getsockname()
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.close()
            there.acceptor.open()
            await there.until(lambda: len(there.made) == 1)
            assert there.made[0].get_extra_info("peername") == address

    run(test)


def test_a_protocol_that_cannot_be_made_leaves_no_connection() -> None:
    async def test() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        async with listening() as there:
            there.server._factory = lambda: 1 / 0
            reader, writer = await there.connect()
            assert await asyncio.wait_for(reader.read(), 5) == b""
            assert there.acceptor.crowd.size == 0
            writer.close()

    run(test)


class Exhausted:
    """A listening socket that for a while has no descriptor for what it accepts."""

    def __init__(self, sock: socket.socket, times: int) -> None:
        self._socket, self.times, self.asked = sock, times, 0

    def accept(self) -> Any:
        self.asked += 1
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._socket.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_without_descriptors_clients_wait_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "_PAUSE", 0.02)

    async def test() -> None:
        async with listening(later=True) as there:
            sock: Any = Exhausted(there.socket, 5)
            there.server.sockets = (sock,)
            there.acceptor.open()
            assert await there.is_served()
            assert sock.times == 0
            assert sock.asked < 20

    with caplog.at_level(logging.WARNING):
        run(test)
    (record,) = caplog.records
    assert record.getMessage().endswith("new connections wait, as none can be accepted: too many open files")
    assert not record.exc_info


def test_the_end_of_a_connection_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_PAUSE", 60.0)

    async def test() -> None:
        async with listening() as there:
            assert await there.is_served()
            sock: Any = Exhausted(there.socket, 1)
            there.server.look_away()
            there.server.sockets = (sock,)
            there.server.watch()
            reader, writer = await there.connect()
            writer.write(b"hello")
            await there.until(lambda: sock.asked == 1)
            there.made[0].close()
            assert await asyncio.wait_for(reader.read(5), 5) == b"hello"
            writer.close()

    run(test)


def test_a_server_that_comes_while_none_can_be_accepted_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_PAUSE", 0.05)

    async def test() -> None:
        async with listening() as there:
            there.acceptor.pause(OSError(errno.EMFILE, "Too many open files"))
            with socket.create_server(("127.0.0.1", 0)) as other:
                kind = type("Kind", (Echo,), {"made": there.made})
                server = there.acceptor.add([other], kind, lambda full: b"", 1)
                reader, writer = await asyncio.open_connection(*other.getsockname())
                writer.write(b"hello")
                assert await asyncio.wait_for(reader.read(5), 5) == b"hello"
                writer.close()
                server.close()
                server.close()

    run(test)
