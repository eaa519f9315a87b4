"""mitmdump's master with our addons: their order, and what its own do differently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons import default_addons
from mitmproxy.options import Options
from mitmproxy.proxy import layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import http
from mitmproxy.test import tflow

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.addons.status import Status
from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.addons.drain import Drain
from jwtproxy.launcher.master import Master
from jwtproxy.mitm import dispatch
from jwtproxy.observe.counters import Counters
from jwtproxy.tokens.key_source import SECRET, KeySource

pytestmark = pytest.mark.usefixtures("pristine")


def _with(look: Callable[[Master], Any]) -> Any:
    async def run() -> Any:
        master = Master(Options())
        try:
            return look(master)
        finally:
            await master.done()

    return asyncio.run(run())


def test_every_addon_of_mitmdump_is_there_and_ours_come_last() -> None:
    def look(master: Master) -> list[str]:
        master.add_ours(JwtInject(KeySource(SECRET, bytes(64))), Counters(), announces=False)
        assert all(master.addons.get(type(addon).__name__.lower()) for addon in default_addons())
        assert master.addons.get("termlog").announces is False
        return [type(addon).__name__ for addon in master.addons.chain]

    assert _with(look)[-1] == "JwtInject"


@pytest.mark.parametrize(
    ("data", "layer"),
    [
        (b"\x16", None),
        (b"\x16\x03", None),
        (b"\x16\x03\x01", layers.ServerTLSLayer),
        (b"G", layers.HttpLayer),
        (b"GET / HTTP/1.1\r\n\r\n", layers.HttpLayer),
    ],
)
def test_a_handshake_that_comes_slowly_is_waited_for(data: bytes, layer: type | None) -> None:
    def look(master: Master) -> NextLayer:
        master.options.update(rawtcp=False)
        context = Context(tflow.tclient_conn(), master.options)
        context.server.address = ("up.example", 443)
        context.layers = [layers.modes.HttpProxy(context), layers.HttpLayer(context, layers.http.HTTPMode.regular)]
        waiting = NextLayer(context)
        waiting.events = []
        waiting._data = lambda connection: data if connection is context.client else b""  # type: ignore[method-assign]
        master.addons.get("nextlayer").next_layer(waiting)
        return waiting

    chosen = _with(look).layer
    assert type(chosen) is (layer or type(None))


def test_a_mitmproxy_that_lacks_what_makes_it_fast_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(AddonManager, "invoke_addon")
    assert not isinstance(_with(lambda master: master.addons), dispatch.AddonManager)
    assert "AddonManager.invoke_addon" in caplog.text


def test_a_mitmproxy_that_lacks_what_makes_it_safe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(http.HttpStream, "flow_done")
    with pytest.raises(SettingsError, match=r"not suitable: it lacks HttpStream\.flow_done$") as caught:
        _with(lambda master: None)
    assert "mitmproxy>=12.2,<13" in caught.value.hint


def test_probes_are_told_before_connections_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends requests hears of it late."""
    told: list[object] = []
    monkeypatch.setattr(Status, "leave", lambda self: told.append("leave"))

    async def drain(self: Drain, grace: float) -> None:
        told.append(grace)

    async def run() -> None:
        monkeypatch.setattr(Drain, "drain", drain)
        monkeypatch.setattr(Drain, "begin", lambda self: told.append("begin"))
        master = Master(Options())
        master.add_ours(JwtInject(KeySource(SECRET, bytes(64))), Counters())
        draining = asyncio.ensure_future(master.drain(0.05, 3))
        await asyncio.sleep(0.001)
        assert told == ["leave"]
        await draining
        assert told == ["leave", "begin", 3]
        await master.done()

    asyncio.run(run())
