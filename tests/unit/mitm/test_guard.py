"""Where connections go: never to the proxy itself, nor to what is denied, whatever name or address leads there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons, tflow

from jwtproxy.conduct.access import Denial, denial_in
from jwtproxy.conduct.addresses import IP
from jwtproxy.mitm import gate, guard, limits, patches
from jwtproxy.mitm.gate import Gate
from jwtproxy.mitm.guard import Guard
from tests.support import servers
from tests.support.inside import Opens, Serve, Upstream


class Listening:
    """A proxy server that listens on these addresses."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses: tuple[tuple[Any, ...], ...] = addresses
        self.told: list[Callable[[], None]] = []
        self.servers = SimpleNamespace(changed=SimpleNamespace(connect=self.told.append))

    def listen_addrs(self) -> tuple[tuple[Any, ...], ...]:
        return self.addresses


def _guard(*addresses: tuple[str, int]) -> Guard:
    guard = Guard()
    guard.listen(Listening(*(addresses or (("127.0.0.1", 8080),))))
    return guard


def _acts(guard: Guard, host: str, port: int) -> bool:
    acted: list[None] = []

    async def run() -> None:
        waiting = guard.when_own(host, port, lambda: acted.append(None))
        if waiting is not None:
            await waiting

    asyncio.run(run())
    return bool(acted)


@pytest.mark.parametrize(
    ("host", "port", "own"),
    [
        ("127.0.0.1", 8080, True),
        ("localhost", 8080, True),
        ("::ffff:127.0.0.1", 8080, True),
        ("0.0.0.0", 8080, True),
        ("127.0.0.2", 8080, False),
        ("127.0.0.1", 8081, False),
        ("localhost", 8081, False),
        ("no-such-name.invalid", 8080, False),
        ("a" * 64, 8080, False),
    ],
)
def test_what_leads_back_is_noticed(host: str, port: int, own: bool) -> None:
    assert _acts(_guard(), host, port) is own


def test_for_other_ports_nothing_is_looked_up() -> None:
    assert _guard().when_own("localhost", 81, lambda: None) is None
    assert Guard().when_own("localhost", 8080, lambda: None) is None, "it does not know of any server"


def test_one_of_several_addresses_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async def getaddrinfo(host: str, port: None, **how: Any) -> list[Any]:
            return [(0, 0, 0, "", (ip, 0)) for ip in ("10.0.0.1", "not an address", "127.0.0.1", "::1")]

        acted: list[None] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        waiting = _guard().when_own("several.example", 8080, lambda: acted.append(None))
        assert waiting is not None
        assert acted == []
        await waiting
        assert acted == [None], "once"

    asyncio.run(run())


def test_servers_that_come_and_go_are_followed() -> None:
    guard, listening = Guard(), Listening(("127.0.0.1", 1))
    guard.listen(listening)
    assert _acts(guard, "127.0.0.1", 1)
    listening.addresses = (("127.0.0.1", 2), ("::1", 3, 0, 0))
    for tell in listening.told:
        tell()
    assert [_acts(guard, "127.0.0.1", port) for port in (1, 2)] == [False, True]
    assert _acts(guard, "::1", 3)


# --- the moment of dialling


class Judge:
    """Denies what it is told to, by name of the host asked for and address."""

    def __init__(self, **denied: Denial) -> None:
        self.denied, self.asked = denied, list[tuple[str, str, int]]()

    @property
    def access(self) -> Any:
        return self

    def denies_address(self, host: str, ip: IP, port: int) -> Denial | None:
        self.asked.append((host, str(ip), port))
        return self.denied.get(host)

    def denies_name(self, host: str, port: int) -> Denial | None:
        return self.denied.get(host)


@contextlib.asynccontextmanager
async def listening(judge: Judge) -> AsyncIterator[tuple[int, list[str]]]:
    """The port of a server, to which all names lead, and the limits that are reached, while this judge is asked."""
    counted: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def getaddrinfo(host: str, port: int, **kind: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with taddons.context() as context:
        gate.hang(context.options, Gate(lambda: judge))  # type: ignore[arg-type, return-value]
        limits.count_with(context.options, counted.append)
        asyncio.get_running_loop().getaddrinfo = getaddrinfo  # type: ignore[method-assign, assignment]
        try:
            yield server.sockets[0].getsockname()[1], counted
        finally:
            await servers.end(server)


async def dial(upstream: Server, client: Client | None = None) -> str:
    """Make this connection, and end it; why that was not done."""
    assert upstream.address
    with guard.judged(client or tflow.tclient_conn(), upstream):
        try:
            _, writer = await asyncio.open_connection(*upstream.address[:2])
        except OSError as error:
            return str(error)
    writer.close()
    await writer.wait_closed()
    return ""


def test_each_address_is_judged_as_it_is_dialled() -> None:
    async def run() -> None:
        judge = Judge(bad=Denial.PRIVATE)
        async with listening(judge) as (port, counted):
            assert await dial(Server(address=("good", port))) == ""
            assert judge.asked == [("good", "127.0.0.2", port), ("good", "127.0.0.1", port)]
            assert await dial(Server(address=("bad", port))) == Denial.PRIVATE.reason, "one error for both addresses"
            assert counted == ["jwt_deny_private"], "once"
            assert await dial(Server(address=("127.0.0.1", port))) == ""

    asyncio.run(run())


def test_what_would_be_looked_up_again_is_not_dialled() -> None:
    """The loop takes names as well as addresses, and what they lead to then nobody judges."""

    async def run() -> None:
        judge = Judge()
        async with listening(judge) as (port, _):
            loop, sock = asyncio.get_running_loop(), socket.socket()
            sock.setblocking(False)
            upstream, refused = Server(address=("good", port)), pytest.raises(OSError, match="not an address")
            with sock, guard.judged(tflow.tclient_conn(), upstream), refused:
                await loop.sock_connect(sock, ("good", port))
            assert judge.asked == []

    asyncio.run(run())


def test_other_connections_of_the_loop_are_nobodys_business() -> None:
    async def run() -> None:
        judge = Judge(bad=Denial.PRIVATE)
        async with listening(judge) as (port, _):
            assert await dial(Server(address=("bad", port)))
            _, writer = await asyncio.open_connection("bad", port)
            writer.close()
            upstream = Server(address=("bad", port))
            upstream.state = ConnectionState.OPEN
            assert await dial(upstream) == "", "one that the task makes later"

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["reverse:http://bad:{port}", "upstream:http://bad:{port}"])
def test_what_the_operator_named_is_never_denied(mode: str) -> None:
    async def run() -> None:
        judge = Judge(bad=Denial.PRIVATE)
        async with listening(judge) as (port, _):
            client = tflow.tclient_conn()
            client.proxy_mode = ProxyMode.parse(mode.format(port=port))
            assert await dial(Server(address=("bad", port)), client) == ""
            client.proxy_mode = ProxyMode.parse(mode.format(port=port + 1))
            assert await dial(Server(address=("bad", port)), client) == Denial.PRIVATE.reason

    asyncio.run(run())


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_a_connection_to_the_proxy_is_not_made(address: str) -> None:
    async def run() -> None:
        async with listening(Judge()) as (port, _):
            proxyserver = Listening(("127.0.0.1", port))
            ctx.master.addons.lookup["proxyserver"] = proxyserver
            client = tflow.tclient_conn()
            client.proxy_mode = ProxyMode.parse(f"reverse:http://{address}:{port}")
            assert denial_in(await dial(Server(address=(address, port)), client)) is Denial.OWN
            proxyserver.addresses = ()
            assert await dial(Server(address=(address, port)), client) == ""

    asyncio.run(run())


@pytest.mark.parametrize(("host", "error"), [("bad", Denial.PORT), ("127.0.0.1", Denial.METADATA), ("good", None)])
def test_what_goes_by_udp_is_judged_before(host: str, error: Denial | None) -> None:
    async def run() -> None:
        judge = Judge(bad=Denial.PORT, **{"127.0.0.1": Denial.METADATA})
        async with listening(judge) as (port, counted):
            upstream = Server(address=(host, port), transport_protocol="udp")
            with guard.judged(tflow.tclient_conn(), upstream) as dialled:
                dialled.judge_datagrams()
            assert upstream.error == (error and error.reason)
            assert counted == ([error.limit] if error else [])

    asyncio.run(run())


@pytest.mark.usefixtures("pristine")
def test_who_is_hung_up_on_as_soon_as_it_was_accepted_is_told(
    serve: Serve, upstream: type[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system knows no address of such a peer, and mitmproxy expects one: the request waited for ever."""
    connect = asyncio.open_connection

    async def open_connection(*args: Any, **options: Any) -> Any:
        reader, writer = await connect(*args, **options)
        monkeypatch.setattr(writer, "get_extra_info", lambda name, default=None: default)
        return reader, writer

    async def run() -> None:
        patches.install()
        async with upstream(None) as server, serve(Opens()) as proxy, proxy.client() as client:
            monkeypatch.setattr(asyncio, "open_connection", open_connection)
            reply = await asyncio.wait_for(client.ask(server.request()), 5)
            assert (reply.code, b"connection reset by peer" in reply.body) == (502, True)

    asyncio.run(run())
