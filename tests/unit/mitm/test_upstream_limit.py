"""A client has few connections to upstreams, by one connection and by all: idle ones make room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy.layers import http
from mitmproxy.test import taddons, tflow

from jwtproxy.conduct.crowd import TOO_MANY_UPSTREAM, Crowd
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import limits, retries, upstream_limit
from tests.support.inside import Opens, Ours

if TYPE_CHECKING:
    from tests.support.inside import Inside, Serve, Upstream


@pytest.fixture
def counted() -> Iterator[list[str]]:
    told: list[str] = []
    with taddons.context() as context:
        limits.count_with(context.options, told.append)
        yield told


def open_server(number: int = 0) -> Server:
    server = Server(address=("127.0.0.1", number))
    server.state = ConnectionState.OPEN
    return server


def limited_to(most: int, crowd: Crowd | None = None) -> Options:
    """Of one connection, and in all."""
    options = Options()
    options.add_option(upstream_limit.NAME, str, str(most), "")
    if crowd:
        upstream_limit.hang(options, crowd)
    return options


def crowd(most: int = 0, most_each: int = 0) -> Crowd:
    made = Crowd()
    made.most, made.most_each = most, most_each
    return made


class Handler:
    """What is asked of mitmproxy's."""

    def __init__(self, *layers: Any) -> None:
        self.transports: dict[Any, Any] = {}
        self.cancelled: list[Server] = []
        self.layer = SimpleNamespace(context=SimpleNamespace(layers=layers))
        self.client = tflow.tclient_conn()

    def connect(self, *servers: Server) -> None:
        for server in servers:
            cancel = lambda reason, server=server: self.cancelled.append(server)  # noqa: E731
            self.transports[server] = SimpleNamespace(handler=SimpleNamespace(cancel=cancel))

    def make_room(self, most: int) -> Server:
        upstream = Server(address=("127.0.0.1", 1))
        self.transports[upstream] = SimpleNamespace(handler=None)
        upstream_limit.make_room(self, upstream, limited_to(most))
        return upstream


def http_layer(connections: dict[Server, object], *used: Server, child: Any = None) -> Any:
    layer: Any = http.HttpLayer.__new__(http.HttpLayer)
    layer.connections, layer.waiting_for_establishment = connections, {}
    streams = [SimpleNamespace(flow=SimpleNamespace(server_conn=one), child_layer=child) for one in used]
    layer.streams = dict(enumerate([*streams, SimpleNamespace(child_layer=None)]))
    return layer


def test_while_there_are_few_all_stay(counted: list[str]) -> None:
    first = open_server()
    handler = Handler(http_layer({first: 1}))
    handler.connect(first)
    assert handler.make_room(2).error is None
    assert handler.make_room(0).error is None
    assert not handler.cancelled
    assert not counted


def test_the_oldest_idle_one_makes_room(counted: list[str]) -> None:
    busy, first, second = open_server(2), open_server(3), open_server(4)
    handler = Handler(http_layer({busy: 1, first: 2, second: 3}, busy))
    handler.connect(busy, first, second)
    assert handler.make_room(3).error is None
    assert handler.cancelled == [first]
    assert retries.leaves(first)
    assert counted == ["jwt_max_upstream_connections"]


def test_one_in_its_tls_handshake_is_not_idle(counted: list[str]) -> None:
    """It is open, and the request that waits for it does not know it yet."""
    busy = open_server()
    layer = http_layer({busy: 1})
    layer.waiting_for_establishment = {busy: []}
    handler = Handler(layer)
    handler.connect(busy)
    assert handler.make_room(1).error == TOO_MANY_UPSTREAM
    assert not handler.cancelled


def test_one_that_is_being_closed_is_not_counted(counted: list[str]) -> None:
    first, second = open_server(2), open_server(3)
    handler = Handler(http_layer({first: 1, second: 2}))
    handler.connect(first, second)
    del handler.transports[handler.make_room(2)]
    assert handler.make_room(2).error is None
    assert handler.cancelled == [first]


@pytest.mark.parametrize("state", [ConnectionState.OPEN, ConnectionState.CLOSED])
def test_where_none_is_idle_there_is_none(counted: list[str], state: ConnectionState) -> None:
    busy = open_server()
    busy.state = state  # closed: it is being opened
    handler = Handler(http_layer({busy: 1}, *([busy] if state else [])))
    handler.connect(busy)
    upstream = handler.make_room(1)
    assert upstream.error == TOO_MANY_UPSTREAM
    assert retries.leaves(upstream)  # lest the next request to there fail, too
    assert not handler.cancelled
    assert counted == ["jwt_max_upstream_connections"]


def test_what_leads_through_another_proxy_is_at_work_with_it(counted: list[str]) -> None:
    tunnel, inner = open_server(2), open_server(3)
    handler = Handler(http_layer({tunnel: 1, inner: 1}, inner))
    handler.connect(tunnel)
    assert handler.make_room(1).error


def test_what_nobody_speaks_http_with_is_at_work(counted: list[str]) -> None:
    handler = Handler(http_layer({}), object())
    handler.connect(open_server())
    assert handler.make_room(1).error


def test_tunnels_are_looked_into(counted: list[str]) -> None:
    idle = open_server(2)
    outer: Any = http_layer({})
    inner = http_layer({idle: 1})
    child = SimpleNamespace(context=SimpleNamespace(layers=[outer, inner]))
    outer.streams[9] = SimpleNamespace(flow=SimpleNamespace(server_conn=None), child_layer=child)
    handler = Handler(outer)
    handler.connect(idle)
    assert handler.make_room(1).error is None
    assert handler.cancelled == [idle]


# --- of one client, and of all


def enters(there: Crowd, address: str, close_one: Callable[[], Server | None] = lambda: None) -> Server:
    client = tflow.tclient_conn()
    client.peername = (address, 1) if address else None  # type: ignore[assignment]
    server = Server(address=("127.0.0.1", 1))
    upstream_limit.admit(limited_to(0, there), client, server, 0, close_one)
    return server


def test_each_client_has_as_many_by_all_its_connections(counted: list[str]) -> None:
    there = crowd(most_each=2)
    first, *others = (enters(there, "2001:db8::1") for _ in range(3))
    assert [other.error for other in others] == [None, TOO_MANY_UPSTREAM]
    assert enters(there, "2001:db8::2").error == TOO_MANY_UPSTREAM, "of the same network"
    assert enters(there, "2001:db8:0:1::2").error is None
    assert enters(there, "").error is None
    upstream_limit.leave(first)
    assert enters(there, "2001:db8::2").error is None
    assert counted == ["jwt_max_upstream_connections"] * 2


def test_all_clients_share_a_limit(counted: list[str]) -> None:
    there = crowd(most=2)
    assert [enters(there, f"127.0.0.{n}").error for n in range(3)] == [None, None, TOO_MANY_UPSTREAM]


def test_what_is_closed_makes_room_at_once(counted: list[str]) -> None:
    there = crowd(most=1)
    first = enters(there, "127.0.0.1")
    assert enters(there, "127.0.0.1", lambda: first).error is None
    assert there.size == 1
    assert counted == ["jwt_max_upstream_connections"]


def test_what_others_have_does_not_make_room(counted: list[str]) -> None:
    there = crowd(most=1)
    enters(there, "127.0.0.2")
    refused = enters(there, "127.0.0.1", lambda: open_server(9))  # which is not counted there
    assert refused.error == TOO_MANY_UPSTREAM
    assert retries.leaves(refused)


def test_one_that_was_counted_leaves_once() -> None:
    there = crowd()
    server = enters(there, "127.0.0.1")
    for _ in range(3):
        upstream_limit.leave(server)
    assert there.size == 0


LANES = pytest.mark.parametrize("lane", [True, False], ids=["lane", "layers"])


@asynccontextmanager
async def counting(serve: Serve, lane: bool, *addons: Any, most: int = 0) -> AsyncIterator[tuple[Inside, Crowd]]:
    """A proxy, and what it has counted; in the end it has to be nothing."""
    there = crowd(most)
    async with serve(*addons, Opens(), lane=lane) as proxy:
        upstream_limit.hang(proxy.master.options, there)
        yield proxy, there
        await until(lambda: there.size == 0)
    assert there._each == {}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(12):
            await test()

    asyncio.run(limited())


@LANES
def test_both_lanes_keep_to_it(serve: Serve, upstream: type[Upstream], lane: bool) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(upstream()) for _ in range(3)]
            proxy, there = await stack.enter_async_context(counting(serve, lane, most=2))
            async with proxy.client() as one, proxy.client() as other:
                for server in servers:  # of which the third has the first make room
                    assert (await one.ask(server.request())).code == 200
                    assert there.size <= 2
                for _ in range(2):
                    reply = await other.ask(servers[0].request())
                    assert (reply.code, b"too many connections to upstreams" in reply.body) == (503, True)
                assert (await one.ask(servers[0].request())).code == 200
            await until(lambda: there.size == 0)
            assert (await proxy.ask(servers[0].request())).code == 200
            assert bool(proxy.carried) is lane

    run(test)


@LANES
def test_what_ends_is_counted_no_more(serve: Serve, upstream: type[Upstream], lane: bool) -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def test() -> None:
        async with upstream(b"nonsense\r\n\r\n", closing) as server, upstream(None) as silent:
            async with upstream() as gone:
                pass
            async with counting(serve, lane) as (proxy, there):
                assert (await proxy.ask(gone.request())).code == 502
                assert (await proxy.ask(server.request())).code == 502
                async with proxy.client() as client:
                    assert (await client.ask(server.request())).code == 200
                    await until(lambda: there.size == 0)
                    assert (await client.ask(server.request())).code == 200
                    assert there.size == 1
                    server.hang_up()
                    await until(lambda: there.size == 0)
                async with proxy.client() as client:
                    client.send(silent.request())
                    await until(lambda: bool(silent.heads))
                    assert there.size == 1

    run(test)


@LANES
def test_who_leaves_while_it_is_dialled_is_counted_no_more(serve: Serve, upstream: type[Upstream], lane: bool) -> None:
    dialled = asyncio.Event()

    async def server_connect(data: object) -> None:
        dialled.set()
        await asyncio.sleep(60)

    async def test() -> None:
        async with (
            upstream() as server,
            counting(serve, lane, Ours(server_connect=server_connect)) as (proxy, there),
            proxy.client() as client,
        ):
            client.send(server.request())
            await dialled.wait()
            assert there.size == 1

    run(test)


# --- the option


def test_without_the_option_there_is_no_limit() -> None:
    assert upstream_limit.most(Options()) == 0


@pytest.mark.parametrize(("value", "most"), [("", 128), ("0", 0), ("3", 3)])
def test_the_option_is_a_number(value: str, most: int) -> None:
    options = Options()
    options.add_option(upstream_limit.NAME, str, value, "")
    assert upstream_limit.most(options) == most


@pytest.mark.parametrize("value", ["-1", "auto", "x"])
def test_it_is_nothing_else(value: str) -> None:
    with pytest.raises(SettingsError, match=upstream_limit.NAME):
        upstream_limit.OPTIONS[0].check(value)
