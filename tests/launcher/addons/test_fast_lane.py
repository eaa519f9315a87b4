"""The fast lane's option, and how connections get to it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons import proxyserver
from mitmproxy.proxy import layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons, tflow

from jwtproxy.lane.tunnel import Tunnel
from jwtproxy.launcher.addons.fast_lane import FastLane
from tests.support.inside import Opens

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream

pytestmark = pytest.mark.usefixtures("pristine")


def _lane(**how: Any) -> FastLane:
    return FastLane(lambda: None, **how)


# --- the option


def test_it_is_on_unless_somebody_wants_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with taddons.context(_lane()) as context:
        assert context.options.jwt_fast_lane == "on"
    monkeypatch.setenv("JWT_FAST_LANE", "off")
    with taddons.context(_lane()) as context:
        assert context.options.jwt_fast_lane == "off"


@pytest.mark.parametrize("value", ["yes", "ON", "1"])
def test_a_bad_value_is_an_error(value: str) -> None:
    with taddons.context(lane := _lane()) as context:
        with pytest.raises(exceptions.OptionsError) as caught:
            context.configure(lane, jwt_fast_lane=value)
        assert str(caught.value) == f"bad value '{value}' for jwt_fast_lane"
        for good in ("off", "on"):
            context.configure(lane, jwt_fast_lane=good)


# --- listeners


def _factory(mode: str = "regular") -> Any:
    """What asyncio makes protocols by, for a listener of mitmproxy's."""
    manager: Any = object()
    instance: Any = ServerInstance.make(ProxyMode.parse(mode), manager)
    return lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), instance.handle_stream)


def test_a_listener_of_mitmproxys_is_wrapped() -> None:
    async def run() -> None:
        with taddons.context(proxyserver.Proxyserver(), lane := _lane()):
            factory = _factory()
            assert lane.wrap(factory) is not factory
            assert lane.wrap(asyncio.Protocol) is asyncio.Protocol, "another server"
            assert list(lane.connections()) == []
            factory = _factory("pages@127.0.0.1:9090")
            assert lane.wrap(factory) is factory, "where nothing is carried"

    asyncio.run(run())


def test_where_it_is_not_possible_nothing_is_wrapped() -> None:
    async def run() -> None:
        with taddons.context(proxyserver.Proxyserver(), lane := _lane(possible=False)):
            factory = _factory()
            assert lane.wrap(factory) is factory

    asyncio.run(run())


def test_what_it_carries_is_known_and_ends_with_it(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            lane = proxy.lane
            assert lane
            assert (await client.ask(server.request())).code == 200
            assert len(list(lane.connections())) == 1
            lane.done()
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""
            await asyncio.sleep(0.02)
            assert list(lane.connections()) == []

    asyncio.run(run())


# --- tunnels


def test_http_in_a_tunnel_gets_the_lane_in_front(serve: Serve) -> None:
    """Only that of its own listener."""

    async def run() -> None:
        async with serve(Opens(), lane=True) as proxy:
            lane = proxy.lane
            assert lane
            context = Context(tflow.tclient_conn(), proxy.master.options)
            http: Any = layers.HttpLayer(context, layers.http.HTTPMode.transparent)
            context.client.proxy_mode = ProxyMode.parse("socks5")
            assert lane.put_before_http(context, http) is http, "of another listener"
            assert lane.put_before_http(context, None) is None
            (instance,) = proxy.master.addons.get("proxyserver").servers
            context.client.proxy_mode = instance.mode
            context.client.alpn = b"http/1.1"
            before: Any = lane.put_before_http(context, http)
            assert type(before) is Tunnel
            context.client.alpn = b"h2"
            assert lane.put_before_http(context, http) is http

    asyncio.run(run())
