"""Connections come to the fast lane and leave it as they would have come to mitmproxy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11
import pytest
from mitmproxy.http import ResponseData
from mitmproxy.proxy import server
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.lane import doors
from jwtproxy.lane.engine import Engine
from jwtproxy.lane.switch import Lane
from tests.support.inside import Opens

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream

pytestmark = pytest.mark.usefixtures("pristine")


# --- what the lane leans on


def test_all_that_it_needs_is_there() -> None:
    assert doors.missing() == []


@pytest.mark.parametrize(
    ("owner", "name"), [(asyncio.StreamReader, "at_eof"), (server.ConnectionHandler, "server_event")]
)
def test_what_is_no_longer_there_is_named(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    monkeypatch.delattr(owner, name)
    assert doors.missing() == [name]


def test_flows_that_are_made_in_another_way_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "HTTPFlow", h11.Request)
    monkeypatch.setattr(doors, "RequestData", ResponseData)
    assert doors.missing() == ["HTTPFlow", "ResponseData"]


# --- listeners


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Another server."""


def test_only_mitmproxys_listeners_are_known() -> None:
    async def run() -> None:
        def protocol(callback: Any) -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), callback)

        manager: Any = object()
        for mode in ("regular", "upstream:http://a.example"):
            instance: Any = ServerInstance.make(ProxyMode.parse(mode), manager)
            assert doors.listener_of(lambda: protocol(instance.handle_stream)) is instance  # noqa: B023 # called at once
        assert doors.listener_of(lambda: protocol(_serve)) is None
        assert doors.listener_of(lambda: protocol(None)) is None
        assert doors.listener_of(asyncio.Protocol) is None

    asyncio.run(run())


# --- who gets a connection


def test_mitmproxy_gets_the_connections_of_a_lane_that_is_off(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy:
            assert proxy.lane
            for value, count in (("off", 0), ("on", 1)):
                proxy.master.options.update(jwt_fast_lane=value)
                async with proxy.client() as client:
                    await asyncio.sleep(0.05)
                    assert len(list(proxy.lane.connections())) == count
                    assert all(isinstance(engine, Engine) for engine in proxy.lane.connections())
                    assert (await client.ask(server.request())).code == 200
                    assert proxy.carried == count

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["upstream:http://127.0.0.1:1", "socks5"])
def test_mitmproxy_gets_the_connections_of_modes_that_are_not_for_the_lane(serve: Serve, mode: str) -> None:
    async def run() -> None:
        async with serve(Opens(), lane=True, mode=[mode]) as proxy, proxy.client():
            await asyncio.sleep(0.05)
            assert proxy.lane
            assert list(proxy.lane.connections()) == []

    asyncio.run(run())


@pytest.mark.parametrize("keeps", [True, False])
def test_a_reverse_proxy_has_a_lane(serve: Serve, upstream: type[Upstream], keeps: bool) -> None:
    async def run() -> None:
        async with upstream() as server:
            mode = f"reverse:http://{server.authority}"
            async with (
                serve(Opens(), lane=True, mode=[mode], keep_host_header=keeps) as proxy,
                proxy.client() as client,
            ):
                for _ in range(3):
                    assert (await client.ask(b"GET /a HTTP/1.1\r\nHost: x.example\r\n\r\n")).code == 200
                assert (proxy.carried, server.connections) == (3, 1)
                host = "x.example" if keeps else server.authority
                assert server.heads == [f"GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()] * 3

    asyncio.run(run())


# --- giving away


class Notes:
    """What mitmproxy's protocol would be."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def connection_made(self, transport: object) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append(data)


class Transport:
    """A client's connection."""

    def __init__(self) -> None:
        self.protocols: list[object] = []
        self.paused = False

    def set_protocol(self, protocol: object) -> None:
        self.protocols.append(protocol)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"PUT / HTTP/1.1\r\n\r\n" + bytes(100_000)]
)
def test_what_is_given_away_is_as_if_it_had_come_there(serve: Serve, data: bytes) -> None:
    """Whole, and no sooner than a client that is behind has got what came before."""

    async def run() -> None:
        async with serve(Opens(), lane=True) as proxy:
            lane = Lane(proxy.master, ProxyMode.parse("regular"), lambda: None)
            protocol, transport = Notes(), Transport()
            engine: Any = doors.open_to(lane, lambda: protocol)()  # type: ignore[arg-type,return-value]
            assert isinstance(engine, Engine)
            engine.connection_made(transport)
            assert lane.connections == {engine}
            engine.pause_writing()
            engine.data_received(data)
            assert protocol.told == []
            engine.resume_writing()
            assert protocol.told == ["made", data]
            assert transport.protocols == [protocol]
            assert not transport.paused
            assert lane.connections == set()

    asyncio.run(run())
