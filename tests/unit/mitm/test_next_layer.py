"""What a connection turns out to speak: a handshake that comes slowly is waited for."""

from __future__ import annotations

import pytest
from mitmproxy.addons import next_layer as theirs
from mitmproxy.addons import proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer as Waiting
from mitmproxy.proxy.layer import NextLayerHook
from mitmproxy.test import taddons, tflow

from jwtproxy.mitm.next_layer import NextLayer

pytestmark = pytest.mark.usefixtures("pristine")

TLS, HTTP = layers.ServerTLSLayer, layers.HttpLayer
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def _chosen(addon: theirs.NextLayer, data: bytes, transport: str) -> type | None:
    """What it makes of the first bytes inside a tunnel."""
    with taddons.context(proxyserver.Proxyserver(), addon) as context:
        context.options.update(rawtcp=False)
        inside = Context(tflow.tclient_conn(), context.options)
        inside.client.transport_protocol = transport  # type: ignore[assignment]
        inside.server.address = ("up.example", 443)
        inside.layers = [layers.modes.HttpProxy(inside), HTTP(inside, layers.http.HTTPMode.regular)]
        waiting = Waiting(inside)
        waiting.events = []
        waiting._data = lambda connection: data if connection is inside.client else b""  # type: ignore[method-assign]
        addon.next_layer(waiting)
        return type(waiting.layer) if waiting.layer else None


@pytest.mark.parametrize(
    ("data", "layer"),
    [
        (b"\x16", None),
        (b"\x16\x03", None),
        (b"\x16\x03\x01", TLS),
        (b"\x16\x02", HTTP),
        (b"\x17", HTTP),
        (b"G", HTTP),
        (b"GET / HTTP/1.1\r\n\r\n", HTTP),
    ],
)
def test_a_handshake_that_comes_slowly_is_waited_for(data: bytes, layer: type | None) -> None:
    assert _chosen(NextLayer(), data, "tcp") is layer


@pytest.mark.parametrize("data", [b"\x16", b"\x16\x03"])
def test_over_udp_there_are_no_single_bytes(data: bytes) -> None:
    assert _chosen(NextLayer(), data, "udp") is _chosen(theirs.NextLayer(), data, "udp") is not None


def test_there_is_none_for_a_client_that_is_gone() -> None:
    """mitmproxy's for TLS would not begin with it, and raise at the first byte that it has left."""
    with taddons.context(proxyserver.Proxyserver(), addon := NextLayer()) as context:
        gone = Context(tflow.tclient_conn(), context.options)
        gone.server.address = ("up.example", 443)
        gone.layers = [layers.modes.HttpProxy(gone), HTTP(gone, layers.http.HTTPMode.regular)]
        gone.client.state = ConnectionState.CLOSED
        waiting = Waiting(gone)
        told = []
        for event in (events.Start(), events.DataReceived(gone.client, HELLO), events.ConnectionClosed(gone.client)):
            for command in waiting.handle_event(event):
                told.append(type(command))
                if isinstance(command, NextLayerHook):
                    addon.next_layer(waiting)
                    told += map(type, waiting.handle_event(events.HookCompleted(command)))
        assert told == [NextLayerHook, commands.CloseConnection]


def test_it_is_found_in_the_place_of_mitmproxys() -> None:
    with taddons.context(addon := NextLayer()) as context:
        assert context.master.addons.get("nextlayer") is addon
