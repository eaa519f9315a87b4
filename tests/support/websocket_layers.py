"""A WebSocket inside the proxy, one event at a time."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.test import tflow
from mitmproxy.websocket import WebSocketData

from jwtproxy.mitm import limits
from jwtproxy.mitm.websocket_messages import Messages
from jwtproxy.mitm.websocket_relay import Relay

OPEN, CLOSED, CAN_WRITE = ConnectionState.OPEN, ConnectionState.CLOSED, ConnectionState.CAN_WRITE

HELLO = b"\x81\x85\0\0\0\0hello"
CLOSE_4001 = b"\x88\x02\x0f\xa1"  # RFC 6455 §5.5.1; unmasked, as servers send it
SIDES = pytest.mark.parametrize("side", ["client", "server"])


class WebSocket:
    """A WebSocket whose handshake is done, and what comes out of it, in short."""

    def __init__(self, *, relayed: bool = True, via: bool = False, **most: int) -> None:
        """`most`: limits, by name: max_body, max_bodies."""
        options = Options()
        limits.hang(options, {**limits.DEFAULT._asdict(), **most})
        context = Context(Client(peername=("", 1), sockname=("", 2), state=OPEN), options)
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


def other(side: str) -> str:
    """The other side."""
    return "server" if side == "client" else "client"


FULL = commands.CloseConnection
ALL_CLOSED = [("server", FULL), ("client", FULL), "websocket_end"]
