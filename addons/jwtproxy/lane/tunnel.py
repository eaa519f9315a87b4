"""Connections that mitmproxy has made, TLS and all: the lane takes them between two requests, and gives them back.

CONNECT, handshakes, certificates and ALPN stay mitmproxy's. Where it would put its layer for HTTP/1.1, a `Tunnel`
stands before that: at a boring request, while nothing is under way, it has pipes take the place of mitmproxy's
protocols at both transports, which go on with the very same TLS sessions; at the next odd one they leave again.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from mitmproxy.connection import ConnectionState, Server
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import events, mode_specs, server_hooks
from mitmproxy.proxy.commands import Command
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers import http, tls
from OpenSSL import SSL

from ..conduct import destination
from ..mitm.dispatch import Address
from ..mitm.handlers import handler_of
from ..mitm.stream import Stream
from . import boring, portions
from .engine import Engine
from .switch import Lane, Route
from .upstream import Upstream

logger = logging.getLogger(__name__)

_lib: Any = SSL._lib  # type: ignore[attr-defined] # pyOpenSSL's own methods take three times as long for a small record
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_SIZE = 64 * 1024
_BUFFER = _ffi.new("char[]", _SIZE)  # for what is copied at once

_OVERHEAD = 22
"""Bytes that a record has beside them in TLS 1.3, but for ciphers with short tags (RFC 8446 §5.2)."""
_SMALL = 8 * 1024
"""Bytes of a record that surely came as a whole if as many bytes came: it is the longest that come in parts."""
_LEAST_OVERHEAD = 13
"""The same in any version."""


class Pipe(asyncio.Protocol):
    """The protocol of a transport, and the transport of another protocol: what passes is TLS on one side of it."""

    def __init__(self, transport: Any, session: SSL.Connection | None) -> None:
        """`session`: None where there is no TLS."""
        self._transport, self._session = transport, session
        self._before = transport.get_protocol()
        self._receiver: Any = None
        self._is_full = False
        exact = (
            session
            and session.get_protocol_version_name() == "TLSv1.3"
            and "CCM_8" not in str(session.get_cipher_name())
        )
        self._overhead = _OVERHEAD if exact else _LEAST_OVERHEAD
        self._unread = 0
        """Bytes that TLS was given, and has not given back as content, at most."""
        self._in_doubt = True
        """Whether there may be more: part of a record that mitmproxy has given it."""

    def take(self, receiver: asyncio.Protocol) -> None:
        """Have this protocol take the place of the one that is there."""
        self._receiver = receiver
        self._transport.set_protocol(self)
        receiver.connection_made(self)  # type: ignore[arg-type] # it has all that is asked of it

    def give_back(self) -> None:
        """Leave the transport to the protocol that was there."""
        portions.end(self._transport)
        self._transport.set_protocol(self._before)
        if self._is_full:
            self._before.pause_writing()
        self._transport.resume_reading()

    # --- a protocol

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if not self._session:
            self._receiver.data_received(data)
            return
        pieces: list[bytes] = []
        ended = self._decrypt(data, pieces)
        if pieces:
            self._receiver.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended and not self._receiver.eof_received():
            self._transport.close()

    def _decrypt(self, data: bytes, pieces: list[bytes]) -> bool:
        """What has been sent; true at its end."""
        session: Any = self._session
        _lib.BIO_write(session._into_ssl, data, len(data))  # memory takes all
        self._unread += len(data)
        while self._unread > 0 or self._in_doubt:  # asking in vain costs as much as asking with success
            size = _lib.SSL_read(session._ssl, _BUFFER, _SIZE)
            if size <= 0:
                self._settle(data, pieces)
                return self._ends(size)
            pieces.append(_ffi.buffer(_BUFFER, size)[:])
            self._unread -= size + self._overhead
            if self._unread < 0 and self._overhead == _OVERHEAD:  # it had more than it was given here
                self._in_doubt = True
        self._unread = 0
        return False

    def _settle(self, data: bytes, pieces: list[bytes]) -> None:
        """All has been read but for part of a record, if anything: none, where one small record came by itself."""
        if self._in_doubt:
            self._unread = 0
            self._in_doubt = not (len(pieces) == 1 and len(pieces[0]) + self._overhead == len(data) < _SMALL)

    def _ends(self, result: int) -> bool:
        """What it means that nothing could be read: whether nothing more will come."""
        session: Any = self._session
        try:
            session._raise_ssl_error(session._ssl, result)
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.ZeroReturnError:
            pass
        except SSL.Error as error:
            logger.info("TLS error: %s", error)
            self._flush()
        return True

    def eof_received(self) -> bool:
        """No more will come."""
        return bool(self._receiver.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone: also for mitmproxy, which runs the hooks."""
        self._receiver.connection_lost(exc)
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """It takes no more for now."""
        self._is_full = True
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._is_full = False
        self._receiver.resume_writing()

    # --- a transport

    def write(self, data: bytes) -> None:
        """Send this."""
        if not self._session:
            self._transport.write(data)
            return
        session: Any = self._session
        sent, size = 0, len(data)
        start = _ffi.from_buffer(data)
        while sent < size:  # it takes one record at a time
            taken = _lib.SSL_write(session._ssl, start + sent, size - sent)
            if taken <= 0:
                self._transport.abort()
                return
            sent += taken
        self._flush()

    @property
    def raw(self) -> Any:
        """The transport that reads."""
        return self._transport

    def can_write_eof(self) -> bool:
        """There is no half of a connection in TLS."""
        return not self._session

    def is_closing(self) -> bool:
        """Whether it takes nothing more."""
        return bool(self._transport.is_closing())

    def resume_reading(self) -> None:
        """Have more come."""
        self._transport.resume_reading()

    def __getattr__(self, name: str) -> Any:  # the others are not asked for with each request
        return getattr(self._transport, name)

    def _flush(self) -> None:
        """Send what TLS has made, if the other side is to know of it."""
        session: Any = self._session
        while (size := _lib.BIO_read(session._from_ssl, _BUFFER, _SIZE)) > 0:
            self._transport.write(_ffi.buffer(_BUFFER, size)[:])
            if size < _SIZE:
                return


class _Side(NamedTuple):
    """One of the two connections, as it can be taken."""

    transport: Any
    session: SSL.Connection | None


class Tunnel:
    """Stands before mitmproxy's layer for HTTP/1.1 in a tunnel, or behind a reverse proxy."""

    def __init__(self, lane: Lane, context: Context, layer: http.HttpLayer) -> None:
        self._lane, self._context, self._layer = lane, context, layer
        self._engine: Engine | None = None
        self._pipes: tuple[Pipe, ...] = ()
        self._address = Address()
        self._returned = b""

    def handle_event(self, event: events.Event) -> Iterator[Command]:
        """Take what is boring; all else is the layer's."""
        if isinstance(event, events.DataReceived) and event.connection is self._context.client:
            data = bytes(event.data)  # which it is not, whatever its type says, where a CONNECT and more came at once
            if not self._engine and self._take(data):
                self._address = Address()
                yield self._address
            if self._engine:
                self._engine.data_received(data)
                return
        if isinstance(event, events.Wakeup) and event.command is self._address:
            event, self._returned = events.DataReceived(self._context.client, self._returned), b""
        yield from self._layer.handle_event(event)

    def _take(self, data: bytes) -> bool:
        """Take both connections if this begins with a boring request, and nothing is under way."""
        end = boring.find_end(data)
        if not end or not self._lane.is_on() or not boring.read(data[:end], origin_form=True):
            return False
        handler = handler_of(self._context.client)
        server = self._idle_server()
        if not handler or not server or handler.has_events_waiting:
            return False
        client_side = _side(handler, self._context.client, self._client_session())
        server_side = _side(handler, server, self._server_session(server))
        route = self._route(server)
        if not client_side or not server_side or not route:
            return False
        self._begin(server, route, Pipe(*client_side), Pipe(*server_side), handler.timeout_watchdog)
        return True

    def _begin(self, server: Server, route: Route, to_client: Pipe, to_server: Pipe, watchdog: Any) -> None:
        engine = Engine(self._lane, route, self._give_back)
        hook_data = server_hooks.ServerConnectionHookData(client=self._context.client, server=server)
        upstream = Upstream(hook_data, engine)
        engine.be_guest(self._context.client, upstream, watchdog)
        ours: Any = self._layer.connections[self._context.client]
        ours.lent = True
        self._engine, self._pipes = engine, (to_client, to_server)
        to_server.take(upstream)
        to_client.take(engine)

    def _give_back(self, engine: Engine, data: bytes, flow: HTTPFlow | None) -> None:
        """Have mitmproxy's layer go on with these bytes."""
        ours: Any = self._layer.connections[self._context.client]
        ours.take_back(flow, engine.head_began)
        for pipe in self._pipes:
            pipe.give_back()
        self._engine, self._pipes, self._returned = None, (), data
        if handler := handler_of(self._context.client):
            self._lane.start(handler.server_event(events.Wakeup(self._address)))

    def _idle_server(self) -> Server | None:
        """The connection to the upstream, if it is open and neither side of the layer is at work."""
        ours: Any = self._layer.connections.get(self._context.client)
        speaks_http1 = isinstance(ours, http.Http1Server)
        if not speaks_http1 or self._layer.streams or ours.state != ours.read_headers or ours.buf:
            return None
        known = [server for server in self._layer.connections if isinstance(server, Server)]
        for server in (*known, self._context.server):
            if server.state is ConnectionState.OPEN and server.alpn != b"h2" and not server.via:
                return server
        return None

    def _client_session(self) -> SSL.Connection | None:
        return _session_of(self._context.client, self._context.layers)

    def _server_session(self, server: Server) -> SSL.Connection | None:
        layer = self._layer.connections.get(server)
        return _session_of(server, [layer] if isinstance(layer, tls.TLSLayer) else self._context.layers)

    def _route(self, server: Server) -> Route | None:
        """Where the requests go, and what they may say of it; None where it is not simple."""
        address, asked = self._context.server.address, None
        for layer in self._context.layers:
            if isinstance(layer, Stream):
                asked = layer.tunnel
        scheme = "https" if server.tls else "http"
        if not address or server.address != address:
            return None
        if not asked:  # nor in other modes, where it is from requests that their destination is known
            reverse = isinstance(self._lane.mode, mode_specs.ReverseMode)
            return self._lane.reverse_route(scheme, address[0], address[1]) if reverse else None
        try:
            only = destination.normalise(scheme, asked.host, asked.port)
        except ValueError:
            return None
        return Route(scheme, only, (address[0], address[1]), tunnel=only.origin)


def put_before_http(lane: Lane | None, context: Context, layer: Layer | None) -> Layer | None:
    """What mitmproxy has decided to put next, with a Tunnel before what speaks HTTP/1.1."""
    if not lane or not layer or context.client.alpn == b"h2" or context.client.transport_protocol != "tcp":
        return layer
    if any(isinstance(each, Stream) and each.flow.request.is_http2 for each in context.layers):
        return layer  # a CONNECT over HTTP/2: the transport carries other streams, too
    above, below = None, layer
    while isinstance(below, tls.TLSLayer) and isinstance(below.child_layer, Layer):
        above, below = below, below.child_layer
    if not isinstance(below, http.HttpLayer) or below.mode is not http.HTTPMode.transparent:
        return layer
    tunnel: Any = Tunnel(lane, below.context, below)
    if not above:
        return tunnel  # type: ignore[no-any-return]
    above.child_layer = tunnel
    return layer


def _side(handler: Any, connection: Any, session: SSL.Connection | None) -> _Side | None:
    """One side, if none of its bytes wait for mitmproxy, which would come too late then."""
    io = handler.transports.get(connection)
    if not io or not io.writer or io.reader._buffer or io.reader.at_eof() or bool(connection.tls) != bool(session):
        return None
    transport = io.writer.transport
    return None if transport.is_closing() else _Side(transport, session)


def _session_of(connection: Any, layers: list[Any]) -> SSL.Connection | None:
    """The TLS session of a connection that has one and only one."""
    sessions = [layer.tls for layer in layers if isinstance(layer, tls.TLSLayer) and layer.conn is connection]
    return sessions[0] if len(sessions) == 1 else None
