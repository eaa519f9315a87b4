"""The proxy never becomes its own upstream, whatever name or address leads to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from jwtproxy.mitm.guard import Guard


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


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("127.0.0.1", 8080), "that is the proxy itself"),
        (("localhost", 8080, 0, 0), "that is the proxy itself"),
        (("127.0.0.2", 8080), None),
        (("127.0.0.1", 80), None),
        (None, None),
    ],
)
def test_a_connection_to_the_proxy_is_not_made(address: Any, error: str | None) -> None:
    server = tflow.tserver_conn()
    server.address, server.error = address, None

    async def run() -> None:
        waiting = _guard().server_connect(ServerConnectionHookData(server, tflow.tclient_conn()))
        if waiting is not None:
            await waiting

    asyncio.run(run())
    assert server.error == error
