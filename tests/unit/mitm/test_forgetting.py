"""Connections to upstreams that are over are forgotten, and one that failed is tried again."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from hyperframe.frame import GoAwayFrame
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy.layers import http

from jwtproxy.mitm import forgetting, patches, retries
from jwtproxy.mitm.stream import Stream
from tests.support.http2 import Http2
from tests.support.inside import Opens, Serve, Upstream

pytestmark = pytest.mark.usefixtures("pristine")

OK = [(b":status", b"200")]
CLOSES = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
REFUSED = "[Errno 111] Connection refused"


@pytest.fixture(autouse=True)
def installed(pristine: None) -> None:
    patches.install()


# --- what failed


def test_an_upstream_that_was_down_is_tried_again_by_the_next_request() -> None:
    client = Http2(both=True)
    client.down = REFUSED
    assert [client.codes[client.get("a.example")] for _ in range(2)] == ["502", "502"]
    assert client.connections <= 1
    client.down = ""
    stream = client.get("a.example")
    client.answer_headers(1, OK)
    assert client.codes[stream] == "200"


def test_what_was_dialled_for_the_first_request_is_not_dialled_again_for_it_but_for_the_next() -> None:
    """Eagerly, as mitmproxy does for tunnels and in front of one server."""
    client = Http2(both=True)
    client.context.server.address, client.context.server.error = ("a.example", 80), REFUSED
    assert client.codes[client.get("a.example")] == "502"
    assert client.opened == []
    stream = client.get("a.example")
    client.answer_headers(1, OK)
    assert client.codes[stream] == "200"


# --- what is over


def test_closed_connections_are_forgotten_while_their_client_stays() -> None:
    client = Http2(both=True)
    for _ in range(9):
        client.get("a.example")
        client.answer_headers(1, OK)
        client.say(GoAwayFrame(0, last_stream_id=1))
    assert len(client.opened) == 9
    assert client.connections == 1
    for _ in range(len(client.wakeups)):  # mitmproxy looks whether they are still alive
        client.wake()
    client.get("a.example")
    client.answer_headers(1, OK)
    assert client.codes[19] == "200"


@pytest.mark.parametrize("closing", ["the answer says so", "the upstream does"])
def test_in_a_real_proxy_too(serve: Serve, upstream: type[Upstream], closing: str) -> None:
    asks = 12

    async def run() -> None:
        async with upstream(*[CLOSES] * asks) as target, serve(Opens()) as proxy, proxy.client() as client:
            for _ in range(asks):
                assert (await client.ask(target.request())).code == 200
                target.hang_up()
                await asyncio.sleep(0.01)
            gc.collect()
            port = int(target.authority.partition(":")[2])
            kept = [one for one in gc.get_objects() if type(one) is Server and one.address == ("127.0.0.1", port)]
            assert target.connections == asks
            assert len(kept) <= 2

    asyncio.run(run())


def _layer(connections: dict[Server, Any], *waiting: Server) -> Any:
    layer: Any = http.HttpLayer.__new__(http.HttpLayer)
    layer.connections, layer.waiting_for_establishment = connections, {one: [] for one in waiting}
    layer.streams, layer.command_sources = {}, {}
    return layer


def _server(state: ConnectionState = ConnectionState.CLOSED, **known: Any) -> Server:
    server = Server(address=("a.example", 80))
    server.state = state
    vars(server).update(known)
    return server


STREAM: Any = Stream.__new__(Stream)
WAS_OPEN: dict[str, Any] = {"peername": ("127.0.0.1", 80)}


@pytest.mark.parametrize(
    ("server", "child", "kept"),
    [
        (_server(ConnectionState.OPEN, **WAS_OPEN), "layer", True),
        (_server(ConnectionState.CAN_WRITE, **WAS_OPEN), "layer", True),
        (_server(**WAS_OPEN), "layer", True),  # mitmproxy has yet to say so
        (_server(**WAS_OPEN, error="TLS"), "layer", True),
        (_server(**WAS_OPEN, timestamp_end=1.0), "layer", False),
        (_server(timestamp_end=1.0), "layer", False),  # by another proxy
        (_server(), "layer", False),
        (_server(error=REFUSED), "layer", False),
        (_server(error=REFUSED), STREAM, False),
        (_server(), STREAM, True),  # of a tunnel, and about to be connected
        (_server(**WAS_OPEN, timestamp_end=1.0), STREAM, False),
    ],
)
def test_what_may_still_be_heard_of_stays(server: Server, child: Any, kept: bool) -> None:
    layer = _layer({server: child})
    forgetting.forget((object(), layer))
    assert list(layer.connections) == [server] * kept


def test_nobody_chooses_one_that_failed() -> None:
    server = _server(error="TLS", **WAS_OPEN)
    forgetting.forget((_layer({server: "layer"}, server),))
    assert not retries.leaves(server), "it has not been told yet"
    forgetting.forget((_layer({server: "layer"}),))
    assert retries.leaves(server)


def test_what_is_being_made_stays_with_what_carries_it() -> None:
    inner, outer = _server(), _server()
    layer = _layer({inner: "layer", outer: "layer"}, inner)
    forgetting.forget((layer,))
    assert list(layer.connections) == [inner, outer]


def test_nor_is_one_that_has_failed_forgotten_before_who_waits_for_it_is_told() -> None:
    """As where a hook still runs for a handshake that was given up."""
    server = _server(timestamp_end=1.0, error="TLS")
    layer = _layer({server: "layer"}, server)
    forgetting.forget((layer,))
    assert list(layer.connections) == [server]


def test_a_tunnel_still_hears_what_it_waits_for_when_its_upstream_is_gone() -> None:
    server, wakeup, hook = _server(timestamp_end=1.0), object(), object()
    tunnel = SimpleNamespace(context=SimpleNamespace(server=_server()))
    layer = _layer({server: tunnel})
    layer.streams, layer.command_sources = {1: tunnel}, {wakeup: tunnel, hook: tunnel}
    forgetting.forget((layer,))
    assert list(layer.connections) == []
    assert layer.command_sources == {wakeup: tunnel, hook: tunnel}


def test_what_a_request_still_has_stays() -> None:
    server = _server(timestamp_end=1.0)
    layer = _layer({server: "layer"})
    layer.streams = {1: SimpleNamespace(context=SimpleNamespace(server=server)), 3: SimpleNamespace()}
    forgetting.forget((layer,))
    assert list(layer.connections) == [server]
