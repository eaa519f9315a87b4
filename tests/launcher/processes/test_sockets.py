"""Sockets are bound early, and mitmproxy gets them when it asks to listen."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from mitmproxy.utils import asyncio_utils

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.processes.resolver import Question, Resolver
from jwtproxy.launcher.processes.sockets import Loop, bind


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _bound(host: str, port: int = 0) -> list[tuple[str, int]]:
    """Where it listens for a host."""
    sockets = bind(host, port)
    addresses = [sock.getsockname()[:2] for sock in sockets]
    for sock in sockets:
        sock.close()
    return addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_address_is_one_socket(host: str) -> None:
    ((bound, port),) = _bound(host)
    assert bound == host
    assert port > 0


def test_no_host_is_every_address_on_one_port() -> None:
    addresses = _bound("")
    assert {host for host, _ in addresses} <= {"0.0.0.0", "::"}
    assert "0.0.0.0" in {host for host, _ in addresses}
    assert len({port for _, port in addresses}) == 1


def test_a_name_is_all_its_addresses_on_one_port() -> None:
    addresses = _bound("localhost")
    assert {host for host, _ in addresses} <= {"127.0.0.1", "::1"}
    assert len({port for _, port in addresses}) == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid", "a" * 64, "127.0.0.1 "])
def test_a_host_that_is_not_here_is_an_error(host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        bind(host, 8080)
    assert str(caught.value).startswith(f"cannot listen on {host}:8080: ")
    assert "--host or HTTP_HOST" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_that_is_taken_is_an_error(taken: socket.socket, host: str) -> None:
    port = taken.getsockname()[1]
    with pytest.raises(SettingsError) as caught:
        bind(host, port)
    reason = os.strerror(errno.EADDRINUSE).lower()
    assert str(caught.value) == f"cannot listen on {host or '*'}:{port}: {reason}"
    assert "--port or HTTP_PORT" in caught.value.hint


@pytest.mark.parametrize("shared", [False, True])
def test_a_server_takes_the_sockets_bound_for_it(shared: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async def ask(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        with closing(writer):
            return await reader.read()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        sockets = bind("", 0)
        port = sockets[0].getsockname()[1]
        loop.take({("", port): sockets}, shared=shared)
        server = await asyncio.start_server(answer, "", port)
        assert {sock.getsockname()[:2] for sock in server.sockets} == {sock.getsockname()[:2] for sock in sockets}
        assert await ask("127.0.0.1", port) == b"hello"
        server.close()
        other = await asyncio.start_server(answer, "127.0.0.1", 0)
        assert await ask("127.0.0.1", other.sockets[0].getsockname()[1]) == b"hello"
        other.close()

    asyncio.run(run(), loop_factory=Loop)


def test_a_loop_that_ends_accepts_nothing_more() -> None:
    """The task of a connection that is accepted while the loop closes is destroyed, and Python says so."""

    async def run() -> tuple[socket.socket, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        (sock,) = bind("127.0.0.1", 0)
        port = sock.getsockname()[1]
        loop.take({("127.0.0.1", port): [sock]}, shared=False)
        await loop.create_server(asyncio.Protocol, "127.0.0.1", port)
        loop.stop_listening()
        loop.stop_listening()  # nothing more to do
        return sock, port

    sock, port = asyncio.run(run(), loop_factory=Loop)
    assert sock.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """A kept-alive answer in two writes would take 40 ms (Nagle's algorithm)."""
    (listening,) = bind("127.0.0.1", 0)
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("bound", [True, False])
def test_what_becomes_of_a_servers_connections_may_be_changed(bound: bool) -> None:
    """Of those on our sockets, and of others."""

    class Greets(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(b"wrapped")
            transport.close()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    async def run() -> None:
        loop, given = asyncio.get_running_loop(), []
        assert isinstance(loop, Loop)
        (sock,) = bind("127.0.0.1", 0)
        port = sock.getsockname()[1]
        if bound:
            loop.take({("127.0.0.1", port): [sock]}, shared=False)
        else:
            sock.close()

        def wrap(factory: Any) -> Any:
            given.append(factory)
            return Greets

        loop.wrap = wrap
        server = await asyncio.start_server(never, "127.0.0.1", port)
        assert isinstance(given[0](), asyncio.StreamReaderProtocol)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            assert await reader.read() == b"wrapped"
        assert len(given) == 1
        server.close()

    asyncio.run(run(), loop_factory=Loop)


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:0:0:2", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_names_are_looked_up_for_the_client_whose_task_it_is(
    monkeypatch: pytest.MonkeyPatch, address: str, site: str
) -> None:
    """For connections, too; without one, for nobody in particular."""
    asked: list[tuple[str, object]] = []

    async def resolve(self: Resolver, question: Question, asker: object) -> list[Any]:
        asked.append((question.host, asker))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", question.port))]

    async def run() -> None:
        (sock,) = bind("127.0.0.1", 0)
        with sock:
            port = sock.getsockname()[1]
            _, writer = await asyncio.open_connection("a.example", port)
            writer.close()
            asyncio_utils.set_current_task_debug_info(name="client", client=(address, 1234))
            _, writer = await asyncio.open_connection("b.example", port)
            writer.close()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()

    monkeypatch.setattr(Resolver, "resolve", resolve)
    asyncio.run(run(), loop_factory=Loop)
    assert asked == [("a.example", None), ("b.example", site)]


def test_names_are_those_that_the_system_knows() -> None:
    async def run() -> list[tuple[Any, ...]]:
        return await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    assert asyncio.run(run(), loop_factory=Loop) == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
