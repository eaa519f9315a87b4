"""The options that bound what is accepted, and what clients are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.options import Options
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.conduct.crowd import Crowd, Full
from jwtproxy.launcher.addons import connections
from jwtproxy.launcher.addons.connections import Connections
from jwtproxy.launcher.master import Master
from jwtproxy.launcher.processes import descriptors
from jwtproxy.launcher.processes.sockets import Loop
from jwtproxy.mitm import limits, upstream_limit

pytestmark = pytest.mark.usefixtures("pristine")


def bounds(monkeypatch: pytest.MonkeyPatch, **options: str) -> tuple[list[int], list[int], list[str]]:
    """What is in force with these options, and 1032 descriptors; the same of upstreams; what /status tells of it."""
    monkeypatch.setattr(descriptors, "limit", lambda: 1032)
    hung: list[Crowd] = []
    monkeypatch.setattr(upstream_limit, "hang", lambda of, crowd: hung.append(crowd))

    async def run() -> tuple[list[int], list[int], list[str]]:
        loop: Any = asyncio.get_running_loop()
        master, addon = Master(Options()), Connections()
        master.addons.add(addon)
        master.options.update(**options)
        addon.attend(loop)
        clients, upstreams = ([crowd.most, crowd.most_each] for crowd in (loop.acceptor.crowd, hung[-1]))
        return clients, upstreams, [limits.in_force(master.options, name) for name in Full]

    return asyncio.run(run(), loop_factory=Loop)


@pytest.mark.parametrize(
    ("options", "clients", "upstreams"),
    [
        ({"jwt_max_connections": "auto"}, [500, 250], [500, 250]),
        ({"jwt_max_connections": "9"}, [9, 4], [500, 250]),
        ({"jwt_max_connections": "900"}, [900, 450], [900, 450]),
        ({"jwt_max_connections": "0"}, [0, 0], [0, 0]),
        ({"jwt_max_client_connections": "7"}, [500, 7], [500, 250]),
        ({"jwt_max_client_connections": "400"}, [500, 400], [500, 400]),
        ({"jwt_max_client_connections": "0"}, [500, 0], [500, 0]),
    ],
)
def test_what_is_left_open_is_derived(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], clients: list[int], upstreams: list[int]
) -> None:
    assert bounds(monkeypatch, **options) == (clients, upstreams, [str(number) for number in clients])


@pytest.mark.parametrize("name", Full)
def test_a_bad_value_is_an_error(monkeypatch: pytest.MonkeyPatch, name: Full) -> None:
    with pytest.raises(exceptions.OptionsError, match=f"bad value 'many' for {name}"):
        bounds(monkeypatch, **{name.value: "many"})


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        *[("regular", True), ("upstream:http://a.example:1", True), ("reverse:https://a.example", True)],
        *[("reverse:tcp://a.example:1", False), ("socks5", False), ("transparent", False)],
    ],
)
def test_who_may_speak_http_is_told(monkeypatch: pytest.MonkeyPatch, mode: str, told: bool) -> None:
    async def run() -> bytes:
        manager: Any = None
        listener: Any = ServerInstance.make(ProxyMode.parse(mode), manager)
        monkeypatch.setattr(connections, "listener_of", lambda factory: listener)
        return connections.refusal_of(asyncio.Protocol)(Full.CLIENT)

    words = asyncio.run(run())
    if told:
        assert words.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nConnection: close\r\n" in words
        assert words.endswith(b"\r\n\r\njwtproxy: too many connections of this client\n")
    else:
        assert words == b""


def test_servers_that_are_not_mitmproxys_say_nothing() -> None:
    assert connections.refusal_of(asyncio.Protocol)(Full.ALL) == b""
