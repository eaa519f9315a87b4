"""A fatal alert ends a connection in TLS (RFC 8446 §6.2): nothing can be sent any more, and its end is one.

mitmproxy fails at the former, and takes the latter for an end of which it has told before, as after a close_notify: who
waits for an answer, or for the other side of a WebSocket to end, would wait on.
"""

from typing import Any

from mitmproxy.proxy import events
from mitmproxy.proxy.layer import CommandGenerator
from OpenSSL import SSL


def receive_close(layer: Any) -> CommandGenerator[None]:
    """In place of TLSLayer.receive_close: the connection below has ended."""
    if not _has_taken_leave(layer.tls):
        yield from layer.event_to_child(events.ConnectionClosed(layer.conn))


def send_data(layer: Any, data: bytes) -> CommandGenerator[None]:
    """In place of TLSLayer.send_data: what a peer does not want that has ended the connection is dropped."""
    try:
        layer.tls.sendall(data)
    except (SSL.WantReadError, SSL.WantWriteError):
        raise
    except SSL.Error:
        pass
    yield from layer.tls_interact()


def _has_taken_leave(session: SSL.Connection) -> bool:
    """Whether there was a close_notify, of which one is told whenever one asks for more."""
    if session.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
        try:
            session.recv(1)
        except SSL.ZeroReturnError:
            return True
        except SSL.Error:
            pass
    return False
