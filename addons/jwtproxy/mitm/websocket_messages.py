"""WebSockets whose messages somebody wants."""

import time
from collections.abc import Iterator
from logging import WARNING

import wsproto
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, Command, Log, SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import websocket
from mitmproxy.websocket import WebSocketMessage

from . import limits
from .whole_bodies import Held

_TOO_BIG = wsproto.events.CloseConnection(wsproto.frame_protocol.CloseReason.MESSAGE_TOO_BIG, "message too big")
"""RFC 6455 §7.4.1."""
_MESSAGE = 512
"""Bytes that a message takes beside its content, its objects and their room in lists, with something to spare."""
_FRAGMENT = 64
"""The same of a fragment of one that is not finished."""


class Messages(websocket.WebsocketLayer):
    """mitmproxy's, but that memory is bounded, and what passes is not logged.

    The oldest messages that were passed on are forgotten, and one that is too large to be held ends the WebSocket.
    Nobody is told of a normal end where a peer has vanished.
    """

    def __init__(self, context: Context, flow: HTTPFlow) -> None:
        super().__init__(context, flow)
        self._kept = Held(context.options)
        self._counted = 0
        """Messages."""
        self._forgetful = False
        self._begun: tuple[_Begun, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return bool(self._handle_event == self.done)

    def start(self, event: events.Event) -> CommandGenerator[None]:
        """Begin."""
        for command in super().start(event):
            if not isinstance(command, Log):  # of what the server's header says
                yield command
        self._begun = _Begun(self.client_ws), _Begun(self.server_ws)

    _handle_event = start

    def relay_messages(self, event: events.Event) -> CommandGenerator[None]:
        """Pass messages on."""
        for command in super().relay_messages(event):
            # Its Close frame would have the code 1000 in place of 1006, which cannot be sent (RFC 6455 §7.4.1).
            vanished = isinstance(event, events.ConnectionClosed) and isinstance(command, SendData)
            if not (vanished or isinstance(command, Log)):
                yield command
        yield from self._forget()
        if not self.is_over and self._has_begun_too_much:
            limits.reached("jwt_max_body")
            yield from self._end()

    def _forget(self) -> Iterator[Command]:
        assert self.flow.websocket
        messages = self.flow.websocket.messages
        exceeded = self._kept.change(sum(map(_size, messages[self._counted :])))
        forgotten = 0
        while exceeded and forgotten < len(messages) - 1:
            exceeded = self._kept.change(-_size(messages[forgotten]))
            forgotten += 1
        del messages[:forgotten]  # at once, as all that stays is moved each time
        self._counted = len(messages)
        if forgotten and not self._forgetful:
            self._forgetful = True
            limits.reached("jwt_max_body")
            yield Log("the oldest messages of a WebSocket are forgotten, as there are too many to be held", WARNING)

    @property
    def _has_begun_too_much(self) -> bool:
        most = limits.limits_of(self.context.options).max_body
        return any(begun.size() > most for begun in self._begun)

    def _end(self) -> CommandGenerator[None]:
        assert self.flow.websocket
        self.flow.websocket.timestamp_end = time.time()
        self.flow.websocket.close_code, self.flow.websocket.close_reason = int(_TOO_BIG.code), _TOO_BIG.reason
        for peer in (self.server_ws, self.client_ws):
            yield peer.send2(_TOO_BIG)
            yield CloseConnection(peer.conn)
        yield websocket.WebsocketEndHook(self.flow)
        self.flow.live = False
        self._handle_event = self.done  # type: ignore[method-assign]


class _Begun:
    """The message that a peer has begun, if any, added up as it grows."""

    def __init__(self, peer: websocket.WebsocketConnection) -> None:
        self._peer = peer
        self._fragments: list[bytes] = []
        self._counted = self._size = 0

    def size(self) -> int:
        """Bytes, as held."""
        fragments = self._peer.frame_buf
        if fragments is not self._fragments:  # another message
            self._fragments, self._counted, self._size = fragments, 0, 0
        complete = len(fragments) - 1
        self._size += sum(len(fragment) + _FRAGMENT for fragment in fragments[self._counted : complete])
        self._counted = complete
        return self._size + len(fragments[complete])


def _size(message: WebSocketMessage) -> int:
    return len(message.content) + _MESSAGE
