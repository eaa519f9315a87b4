"""mitmdump's master with our addons: their order, and what its own do differently."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.launcher import dispatch
from jwtproxy.launcher.master import Master
from mitmproxy.addons import default_addons
from mitmproxy.options import Options
from mitmproxy.proxy import layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.test import tflow

from jwtproxy.counters import Counters
from jwtproxy.key_source import SECRET, Source
from jwtproxy.settings import SettingsError

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
        master.add_ours(JwtInject(Source(SECRET, bytes(64))), Counters(), first=False)
        assert all(master.addons.get(type(addon).__name__.lower()) for addon in default_addons())
        assert master.addons.get("termlog").first is False
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


def test_the_first_error_of_the_start_ends_it() -> None:
    async def run() -> None:
        master = Master(Options())
        check = master.addons.get("errorcheck")
        await check.shutdown_if_errored()
        logging.getLogger("x").error("no %s", "good")
        logging.getLogger("x").error("worse")
        with pytest.raises(SettingsError, match=r"^no good$"):
            await check.shutdown_if_errored()
        await master.done()

    asyncio.run(run())


def test_after_the_start_errors_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    def look(master: Master) -> None:
        logging.getLogger("x").error("early")
        master.addons.get("errorcheck").finish()
        logging.getLogger("x").error("late")

    _with(look)
    assert capsys.readouterr().err == "jwtproxy: error: late\n"


def test_a_newer_mitmproxy_is_served_by_its_own_manager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "_MADE_FOR", dict.fromkeys(dispatch._MADE_FOR, "(another) -> None"))
    assert not isinstance(_with(lambda master: master.addons), dispatch.AddonManager)
    assert "newer" in caplog.text
