"""HTTP/2 that a client begins without having agreed on it (RFC 9113 §3.3): it is refused, in words that it understands.

- Its first request is answered, for that is what clients show; gRPC in the way that its clients understand.
- GOAWAY follows, and not before. A gRPC client that gets it first connects again at once, and again, until its call has
  timed out.
- Its code is INADEQUATE_SECURITY. HTTP_1_1_REQUIRED would say more, but gRPC's core (1.85) aborts its process at that.
"""

from logging import WARNING
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from mitmproxy.connection import Connection
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, Log, RequestWakeup, SendData
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.utils import human

from ..conduct.proxy_status import ErrorType
from ..observe import pages
from . import flows

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""What such a connection begins with, up to where a head of HTTP/1 would end (RFC 9113 §3.4)."""
PATIENCE = 1.0
"""Seconds until it is closed: the client may say what it wants, and read what it is told."""

_UNIMPLEMENTED = b"12"  # of gRPC's status codes, one that nobody takes for a reason to try again


class Refusal:
    """The server's side of such a connection."""

    def __init__(self, connection: Connection) -> None:
        """`connection`: to the client."""
        self._connection = connection
        self._reason = "HTTP/2 without TLS (h2c) is not supported: use TLS, or HTTP/1.1"
        if connection.tls:
            self._reason = "HTTP/2 was not agreed on by ALPN: offer h2 in the TLS handshake, or use HTTP/1.1"
        config = h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        self._told = False
        """Whether the client has been told."""

    def begin(self, data: bytes) -> CommandGenerator[None]:
        """Take what has come so far."""
        yield Log(f"{human.format_address(self._connection.peername)}: {self._reason}", WARNING)
        yield RequestWakeup(PATIENCE)
        self._h2.initiate_connection()
        yield from self._receive(data)

    def handle_event(self, event: events.Event) -> CommandGenerator[None]:
        """Take what the client does, until it has gone or its time is over."""
        if isinstance(event, events.DataReceived):
            yield from self._receive(event.data)
            return
        if isinstance(event, events.Wakeup):
            yield from self._go_away()
        yield CloseConnection(self._connection)

    def _receive(self, data: bytes) -> CommandGenerator[None]:
        if self._told:
            return
        try:
            for event in self._h2.receive_data(data):
                if isinstance(event, h2.events.RequestReceived) and not self._told:
                    self._answer(event)
                    yield from self._go_away(event.stream_id)
        except h2.exceptions.ProtocolError:
            yield from self._go_away()
        yield from self._flush()

    def _answer(self, event: Any) -> None:
        fields, stream = [(bytes(name), bytes(value)) for name, value in event.headers], event.stream_id
        if any(name == b"content-type" and value.startswith(b"application/grpc") for name, value in fields):
            said = [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", _UNIMPLEMENTED)]
            self._h2.send_headers(stream, [*said, (b"grpc-message", self._text)], end_stream=True)
            return
        page = pages.text(505, self._reason, ErrorType.HTTP_REQUEST_ERROR)
        answer = flows.answer_of(page, dict(fields).get(b"accept", b"").decode("latin-1"))
        said = [(b":status", b"505"), *((name.lower(), value) for name, value in answer.headers.fields)]
        bodiless = (b":method", b"HEAD") in fields
        self._h2.send_headers(stream, said, end_stream=bodiless)
        if not bodiless:
            self._h2.send_data(stream, answer.raw_content or b"", end_stream=True)

    def _go_away(self, last_stream: int = 0) -> CommandGenerator[None]:
        """Say that the connection ends, and why (RFC 9113 §6.8). `last_stream`: the last one that was answered."""
        if not self._told:
            self._told = True
            self._h2.close_connection(ErrorCodes.INADEQUATE_SECURITY, self._text, last_stream)
            yield from self._flush()

    def _flush(self) -> CommandGenerator[None]:
        if data := self._h2.data_to_send():
            yield SendData(self._connection, data)

    @property
    def _text(self) -> bytes:
        return f"jwtproxy: {self._reason}".encode()
