"""What one peer of a WebSocket does is what the other sees, event by event."""

from __future__ import annotations

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import websocket
from mitmproxy.websocket import WebSocketMessage
from wsproto.frame_protocol import Opcode

from jwtproxy.mitm.pipes import HalfClose
from tests.support.websocket_layers import (
    ALL_CLOSED,
    CLOSE_4001,
    CLOSED,
    FULL,
    HELLO,
    SIDES,
    WebSocket,
    other,
)


@SIDES
def test_bytes_pass_as_they_are(side: str) -> None:
    opened = WebSocket()
    assert opened.began == ["websocket_start"]
    for data in (HELLO, b"\xff" * 70_000, b"no frame at all", CLOSE_4001):
        assert opened.receive(side, data) == [(other(side), data)]
    assert opened.flow.websocket
    assert opened.flow.websocket.messages == []
    assert opened.flow.live


@SIDES
def test_who_has_said_all_may_still_listen(side: str) -> None:
    opened = WebSocket()
    assert opened.end(side) == [(other(side), HalfClose)]
    assert opened.receive(other(side), HELLO) == [(side, HELLO)]
    assert opened.end(other(side), CLOSED) == [(side, FULL), "websocket_end"]
    assert not opened.flow.live
    assert opened.flow.websocket
    assert opened.flow.websocket.timestamp_end
    assert opened.flow.websocket.close_code is None, "nobody has looked"


@SIDES
def test_a_connection_that_is_gone_altogether_ends_both(side: str) -> None:
    opened = WebSocket()
    assert opened.end(side, CLOSED) == [(other(side), FULL), "websocket_end"]


@SIDES
def test_an_end_after_the_end_ends_both(side: str) -> None:
    """A stream of HTTP/2 that carries a tunnel may be reset after its end."""
    opened = WebSocket()
    opened.end(side)
    assert opened.end(side) == ALL_CLOSED


@SIDES
def test_nothing_follows_the_end(side: str) -> None:
    opened = WebSocket()
    opened.end("client", CLOSED)
    assert opened.receive(side, HELLO) == []
    assert opened.end(side) == []


def test_a_client_does_not_talk_to_a_server_that_is_gone() -> None:
    opened = WebSocket()
    opened.end("server")
    assert opened.receive("client", HELLO) == [("server", HELLO)], "it may have closed by half"
    opened.server.timestamp_end = 1.0
    assert opened.receive("client", HELLO) == ALL_CLOSED


def test_behind_a_next_proxy_that_cannot_be_known() -> None:
    opened = WebSocket(via=True)
    opened.end("server")
    opened.server.timestamp_end = 1.0
    assert opened.receive("client", HELLO) == [("server", HELLO)]


def test_no_message_can_be_added() -> None:
    opened = WebSocket()
    added = websocket.WebSocketMessageInjected(opened.flow, WebSocketMessage(Opcode.TEXT, True, b"hello"))
    assert opened.feed(added) == [commands.Log]
    assert opened.receive("client", HELLO) == [("server", HELLO)]


def test_a_timer_from_before_the_upgrade_is_nothing_to_it() -> None:
    assert WebSocket().feed(events.Wakeup(commands.RequestWakeup(1))) == []
