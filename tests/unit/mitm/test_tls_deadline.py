"""A client that takes too long for TLS is let go, and only such a one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import TCPLayer, http, tls
from mitmproxy.test import tflow

from jwtproxy.mitm import limits, time_limits
from jwtproxy.mitm.tls_deadline import TlsDeadline

LIMIT = 0.1
LONG = 2 * LIMIT  # one loop keeps the order of its timers, on a busy machine, too


class Handshake:
    """One connection, of whose fate mitmproxy's hooks tell."""

    def __init__(self, options: Options) -> None:
        self.client: Client = tflow.tclient_conn()
        self.context = Context(self.client, options)
        self.layer = NextLayer(self.context)
        self.deadline = TlsDeadline()
        self.data: Any = SimpleNamespace(context=self.context)
        self.closed = 0

    def come(self, data: bytes) -> None:
        """Bytes come of which it is not yet known what they are."""
        self.layer.events.append(events.DataReceived(self.client, data))
        self.deadline.next_layer(self.layer)

    async def on_timeout(self) -> None:
        """As mitmproxy's handler ends a connection."""
        self.closed += 1


Steps = Callable[[Handshake], Awaitable[None]]


def _outcome(monkeypatch: pytest.MonkeyPatch, steps: Steps, limit: float = LIMIT) -> tuple[int, list[str]]:
    """How often the connection was closed, and what was counted."""
    options, counted = Options(), list[str]()
    time_limits.hang(options, {row.member: limit for row in time_limits.OPTIONS})
    limits.count_with(options, counted.append)

    async def run() -> int:
        handshake = Handshake(options)
        proxyserver = SimpleNamespace(connections={handshake.client.id: handshake})
        monkeypatch.setattr(ctx, "options", options, raising=False)
        monkeypatch.setattr(ctx, "master", SimpleNamespace(addons={"proxyserver": proxyserver}), raising=False)
        await steps(handshake)
        await asyncio.sleep(LONG)
        assert not handshake.deadline._timers
        return handshake.closed

    return asyncio.run(run()), counted


async def _begins(handshake: Handshake) -> None:
    handshake.come(b"\x16")
    await asyncio.sleep(LIMIT / 2)
    handshake.come(b"\x03")


async def _is_known_for_tls(handshake: Handshake) -> None:
    handshake.come(b"\x16\x03\x01")
    handshake.layer.layer = tls.ServerTLSLayer(handshake.context)


async def _stops_after_its_hello(handshake: Handshake) -> None:
    await _is_known_for_tls(handshake)
    handshake.deadline.tls_clienthello(handshake.data)
    await asyncio.sleep(LONG)  # while the upstream is dialled
    assert not handshake.closed
    handshake.deadline.tls_start_client(handshake.data)


async def _waits_for_the_upstream(handshake: Handshake) -> None:
    await _is_known_for_tls(handshake)
    handshake.deadline.tls_clienthello(handshake.data)


async def _comes_about(handshake: Handshake) -> None:
    await _stops_after_its_hello(handshake)
    handshake.deadline.tls_established_client(handshake.data)


async def _fails(handshake: Handshake) -> None:
    await _stops_after_its_hello(handshake)
    handshake.deadline.tls_failed_client(handshake.data)


async def _leaves(handshake: Handshake) -> None:
    handshake.come(b"\x16")
    handshake.deadline.client_disconnected(handshake.client)


async def _is_passed_on(handshake: Handshake) -> None:
    """As `ignore_hosts` has it."""
    handshake.come(b"\x16")
    handshake.layer.layer = TCPLayer(handshake.context, ignore=True)


async def _is_no_tls(handshake: Handshake) -> None:
    handshake.come(b"GET")


async def _shares_its_connection(handshake: Handshake) -> None:
    """A tunnel of HTTP/2, beside other streams."""
    stream = http.HttpStream(handshake.context, 1)
    stream.flow = tflow.tflow()
    stream.flow.request.http_version = "HTTP/2.0"
    handshake.come(b"\x16")


@pytest.mark.parametrize("steps", [_begins, _is_known_for_tls, _stops_after_its_hello])
def test_a_client_that_is_late_is_let_go(monkeypatch: pytest.MonkeyPatch, steps: Steps) -> None:
    assert _outcome(monkeypatch, steps) == (1, ["jwt_tls_timeout"])


@pytest.mark.parametrize(
    "steps",
    [_waits_for_the_upstream, _comes_about, _fails, _leaves, _is_passed_on, _is_no_tls, _shares_its_connection],
)
def test_who_is_not_late_stays(monkeypatch: pytest.MonkeyPatch, steps: Steps) -> None:
    assert _outcome(monkeypatch, steps) == (0, [])


def test_no_limit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _outcome(monkeypatch, _begins, limit=0.0) == (0, [])
