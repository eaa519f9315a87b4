"""One connection of a client has few connections to upstreams: idle ones make room."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy.layers import http
from mitmproxy.test import taddons

from jwtproxy.conduct.crowd import TOO_MANY_UPSTREAM
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import limits, retries, upstream_limit


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


class Handler:
    """What is asked of mitmproxy's."""

    def __init__(self, *layers: Any) -> None:
        self.transports: dict[Any, Any] = {}
        self.cancelled: list[Server] = []
        self.layer = SimpleNamespace(context=SimpleNamespace(layers=layers))

    def connect(self, *servers: Server) -> None:
        for server in servers:
            cancel = lambda reason, server=server: self.cancelled.append(server)  # noqa: E731
            self.transports[server] = SimpleNamespace(handler=SimpleNamespace(cancel=cancel))

    def make_room(self, most: int) -> Server:
        upstream = Server(address=("127.0.0.1", 1))
        self.transports[upstream] = SimpleNamespace(handler=None)
        upstream_limit.make_room(self, upstream, most)
        return upstream


def http_layer(connections: dict[Server, object], *used: Server, child: Any = None) -> Any:
    layer: Any = http.HttpLayer.__new__(http.HttpLayer)
    layer.connections = connections
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
