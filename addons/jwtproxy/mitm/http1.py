"""HTTP/1.1 as mitmproxy speaks it, mended where it would crash, hang or let a peer fill the memory."""

from typing import Any

import h11
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, SendData
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http1

HEAD_LIMIT = 256 * 1024
"""Bytes of a request's line and header fields, about: as much as has been read when it is exceeded."""


class Server(http.Http1Server):
    """Towards the client: a request whose head has no end is refused (RFC 6585 §5)."""

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Take a piece of a head."""
        yield from super().read_headers(event)
        if len(self.buf) > HEAD_LIMIT and self.state == self.read_headers:
            yield SendData(self.conn, _http1.make_error_response(431, "jwtproxy: the request's head is too long"))
            yield CloseConnection(self.conn)
            self.state = self.done


class Client(http.Http1Client):
    """Towards the upstream: an interim response is not taken for the answer, which follows (RFC 9110 §15.2)."""

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Take a piece of a head; drop interim responses, as mitmproxy's HTTP/2 does."""
        for command in super().read_headers(event):
            if _is_interim(command):
                self.response = None
                if self.buf:
                    yield from self.read_headers(events.DataReceived(self.conn, b""))
                return
            yield command


def _is_interim(command: object) -> bool:
    head = command.event if isinstance(command, http.ReceiveHttp) else None
    return isinstance(head, http.ResponseHeaders) and is_interim(head.response.status_code)


def is_interim(code: int) -> bool:
    """Whether a final response follows one with this status code; after 101 something else does."""
    return 100 <= code < 200 and code != 101


class ChunkedBody(_http1.ChunkedReader):
    """h11's reader of chunked bodies, without the trailers, as RFC 9110 §6.5.1 allows; mitmproxy cannot take them."""

    def __call__(self, buf: Any) -> Any:
        """The next piece of the body."""
        event = super().__call__(buf)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event
