"""What a stream is after CONNECT or an upgrade: bytes both ways, each of which ends by itself.

Within mitmproxy such a stream is one of HTTP events on one side, and of connection events on the other, which this
translates as its HttpStream.passthrough does, but that makes of each half-close a full one: what the other peer had
still to say was lost.
"""

from typing import NamedTuple

from mitmproxy.connection import Connection
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, CloseTcpConnection, Command, ConnectionCommand, SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http


class HalfClose(CloseTcpConnection):
    """Say that nothing more comes by this connection, and go on to read from it (RFC 9293 §3.6)."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, half_close=True)


class _Words(NamedTuple):
    """How HTTP events tell what comes from, or goes to, one of the two sides."""

    data: type[http.RequestData | http.ResponseData]
    end: type[http.RequestEndOfMessage | http.ResponseEndOfMessage]
    error: type[http.RequestProtocolError | http.ResponseProtocolError]


_REQUEST = _Words(http.RequestData, http.RequestEndOfMessage, http.RequestProtocolError)
_RESPONSE = _Words(http.ResponseData, http.ResponseEndOfMessage, http.ResponseProtocolError)


def event_of(event: events.Event, context: Context) -> events.Event:
    """An event of a stream as one of a connection."""
    if isinstance(event, http.RequestData):
        return events.DataReceived(context.client, event.data)
    if isinstance(event, http.ResponseData):
        return events.DataReceived(context.server, event.data)
    if isinstance(event, (http.RequestEndOfMessage, http.RequestProtocolError)):
        return events.ConnectionClosed(context.client)
    if isinstance(event, (http.ResponseEndOfMessage, http.ResponseProtocolError)):
        return events.ConnectionClosed(context.server)
    return event


def command_of(command: Command, context: Context, stream_id: int, *, upgraded: bool) -> Command:
    """A command for a connection as one for the HTTP that leads there.

    `upgraded`: whether both connections speak HTTP, and not, as after CONNECT, only the client's.
    """
    if not isinstance(command, ConnectionCommand):
        return command
    connection = command.connection
    if connection == context.client:
        words = _RESPONSE
    elif upgraded and connection == context.server:
        words = _REQUEST
    else:
        return _full(command)
    if isinstance(command, SendData):
        return http.SendHttp(words.data(stream_id, command.data), connection)
    if isinstance(command, HalfClose):
        return http.SendHttp(words.end(stream_id), connection)
    if isinstance(command, CloseConnection):
        return http.SendHttp(words.error(stream_id, "EOF", http.ErrorCode.PASSTHROUGH_CLOSE), connection)
    return command


def _full(command: ConnectionCommand) -> Command:
    """As mitmproxy has it, whose raw TCP closes fully on both sides of a tunnel."""
    if isinstance(command, CloseTcpConnection) and not isinstance(command, HalfClose):
        return CloseConnection(command.connection)
    return command
