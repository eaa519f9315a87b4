"""What one peer of a WebSocket does is what the other sees, event by event."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers import websocket
from mitmproxy.test import tflow
from mitmproxy.websocket import WebSocketData, WebSocketMessage
from wsproto.frame_protocol import Opcode

from jwtproxy.mitm.pipes import HalfClose
from jwtproxy.mitm.websocket_relay import Messages, Relay

OPEN, CLOSED, CAN_WRITE = ConnectionState.OPEN, ConnectionState.CLOSED, ConnectionState.CAN_WRITE

HELLO = b"\x81\x85\0\0\0\0hello"
CLOSE_4001 = b"\x88\x02\x0f\xa1"  # RFC 6455 §5.5.1; unmasked, as servers send it
SIDES = pytest.mark.parametrize("side", ["client", "server"])


class WebSocket:
    """A WebSocket whose handshake is done, and what comes out of it, in short."""

    def __init__(self, *, relayed: bool = True, via: bool = False) -> None:
        context = Context(Client(peername=("", 1), sockname=("", 2), state=OPEN), Options())
        context.server = Server(address=("a.example", 80))
        context.server.via = ("http", ("b.example", 80)) if via else None
        context.server.state = OPEN
        self.flow: HTTPFlow = tflow.tflow(resp=True, ws=False)
        self.flow.live = True
        self.flow.websocket = WebSocketData()
        self.client, self.server = context.client, context.server
        self.layer: Layer = (Relay if relayed else Messages)(context, self.flow)
        self.began = self.feed(events.Start())

    def feed(self, event: events.Event) -> list[Any]:
        """What an event leads to; hooks are done at once."""
        done, todo = [], [event]
        while todo:
            for command in self.layer.handle_event(todo.pop(0)):
                done.append(self._word(command))
                if isinstance(command, commands.StartHook):
                    todo.append(events.HookCompleted(command))
        return done

    def receive(self, side: str, data: bytes) -> list[Any]:
        """A peer has sent something."""
        return self.feed(events.DataReceived(getattr(self, side), data))

    def end(self, side: str, state: ConnectionState = CAN_WRITE) -> list[Any]:
        """A peer sends nothing more; its connection is left in this state."""
        getattr(self, side).state = state
        return self.feed(events.ConnectionClosed(getattr(self, side)))

    def _word(self, command: commands.Command) -> Any:
        if not isinstance(command, commands.ConnectionCommand):
            return command.name if isinstance(command, commands.StartHook) else type(command)
        side = "client" if command.connection is self.client else "server"
        return (side, command.data) if isinstance(command, commands.SendData) else (side, type(command))


def _other(side: str) -> str:
    return "server" if side == "client" else "client"


FULL = commands.CloseConnection
ALL_CLOSED = [("server", FULL), ("client", FULL), "websocket_end"]


@SIDES
def test_bytes_pass_as_they_are(side: str) -> None:
    opened = WebSocket()
    assert opened.began == ["websocket_start"]
    for data in (HELLO, b"\xff" * 70_000, b"no frame at all", CLOSE_4001):
        assert opened.receive(side, data) == [(_other(side), data)]
    assert opened.flow.websocket
    assert opened.flow.websocket.messages == []
    assert opened.flow.live


@SIDES
def test_who_has_said_all_may_still_listen(side: str) -> None:
    opened = WebSocket()
    assert opened.end(side) == [(_other(side), HalfClose)]
    assert opened.receive(_other(side), HELLO) == [(side, HELLO)]
    assert opened.end(_other(side), CLOSED) == [(side, FULL), "websocket_end"]
    assert not opened.flow.live
    assert opened.flow.websocket
    assert opened.flow.websocket.timestamp_end
    assert opened.flow.websocket.close_code is None, "nobody has looked"


@SIDES
def test_a_connection_that_is_gone_altogether_ends_both(side: str) -> None:
    opened = WebSocket()
    assert opened.end(side, CLOSED) == [(_other(side), FULL), "websocket_end"]


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


# --- where somebody wants the messages


@SIDES
@pytest.mark.parametrize("state", [CAN_WRITE, CLOSED])
def test_who_vanishes_is_not_said_to_have_closed(side: str, state: ConnectionState) -> None:
    opened = WebSocket(relayed=False)
    assert opened.end(side, state) == ALL_CLOSED
    assert opened.flow.websocket
    assert opened.flow.websocket.close_code == 1006


def test_messages_are_kept_and_close_frames_pass() -> None:
    opened = WebSocket(relayed=False)
    assert opened.began == ["websocket_start"]
    opened.receive("client", HELLO)
    assert opened.flow.websocket
    assert [message.content for message in opened.flow.websocket.messages] == [b"hello"]
    ended = opened.receive("server", CLOSE_4001)
    assert ("client", CLOSE_4001) in ended
    assert ended[-1] == "websocket_end"
