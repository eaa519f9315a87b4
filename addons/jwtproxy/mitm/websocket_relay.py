"""WebSockets (RFC 6455): bytes pass as they come, unless somebody wants the messages.

mitmproxy's layer takes each message apart, inflates, gathers and keeps it, answers for the peers, and where one of
them vanishes tells the other of a normal end.
"""

import time
from logging import WARNING

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, Log, SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator, Layer
from mitmproxy.proxy.layers import websocket

from .pipes import HalfClose


class Relay(Layer):
    """Passes on what each peer sends, and how it ends."""

    def __init__(self, context: Context, flow: HTTPFlow) -> None:
        super().__init__(context)
        self.flow = flow
        self._ended: Connection | None = None
        """Whose peer has said all."""
        self._over = False

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield websocket.WebsocketStartHook(self.flow)
        elif not self._over:
            yield from self._pass(event)

    def _pass(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            if self._is_for_nobody(event.connection):
                yield from self._end()
            else:
                yield SendData(self._other(event.connection), event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._pass_end(event.connection)
        elif isinstance(event, events.MessageInjected):
            yield Log("a message for a WebSocket was dropped: only a script with a hook for them can add some", WARNING)

    def _pass_end(self, connection: Connection) -> CommandGenerator[None]:
        # RFC 6455 §7.1.5: who gets no Close frame knows by this that its peer is gone (1006), so there is none of ours.
        if self._ended is None and connection.state is not ConnectionState.CLOSED:
            self._ended = connection
            yield HalfClose(self._other(connection))
        else:
            yield from self._end()

    def _end(self) -> CommandGenerator[None]:
        self._over = True
        for connection in (self.context.server, self.context.client):
            if connection.state is not ConnectionState.CLOSED:
                yield CloseConnection(connection)
        assert self.flow.websocket
        self.flow.websocket.timestamp_end = time.time()
        yield websocket.WebsocketEndHook(self.flow)
        self.flow.live = False

    def _other(self, connection: Connection) -> Connection:
        return self.context.server if connection == self.context.client else self.context.client

    def _is_for_nobody(self, connection: Connection) -> bool:
        """Whether this comes from a client whose server, having said all, has gone altogether.

        Of that there is no event. Behind a next proxy the time is that of its last word.
        """
        server = self.context.server
        return self._ended == server != connection and not server.via and server.timestamp_end is not None


class Messages(websocket.WebsocketLayer):
    """mitmproxy's, but that nobody is told of a normal end where a peer has vanished, nor a log of what passes."""

    def start(self, event: events.Event) -> CommandGenerator[None]:
        """Begin."""
        for command in super().start(event):
            if not isinstance(command, Log):  # of what the server's header says
                yield command

    _handle_event = start

    def relay_messages(self, event: events.Event) -> CommandGenerator[None]:
        """Pass messages on."""
        for command in super().relay_messages(event):
            # Its Close frame would have the code 1000 in place of 1006, which cannot be sent (RFC 6455 §7.4.1).
            vanished = isinstance(event, events.ConnectionClosed) and isinstance(command, SendData)
            if not (vanished or isinstance(command, Log)):
                yield command
