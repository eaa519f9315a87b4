"""Where connections come to the fast lane, and where they leave it for mitmproxy."""

import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from mitmproxy.http import HTTPFlow, RequestData, ResponseData
from mitmproxy.proxy import server
from mitmproxy.proxy.layers import http, tls
from mitmproxy.proxy.mode_servers import ServerInstance
from OpenSSL import SSL

from ..mitm.handlers import note_head
from . import portions
from .engine import Engine
from .switch import Lane

_PRIVATE: tuple[tuple[object, str], ...] = (
    (asyncio.StreamReader, "at_eof"),
    (asyncio.Lock(), "_waiters"),
    (server.ConnectionHandler, "server_event"),
    (server.TimeoutWatchdog, "register_activity"),
    (http.HttpLayer, "event_to_child"),
    (http.Http1Server, "read_headers"),
    (tls.TLSLayer, "event_to_child"),
    (SSL.Connection, "_raise_ssl_error get_cipher_name get_protocol_version_name"),
    (SSL, "_ffi _lib"),
    (getattr(SSL, "_lib", None), "BIO_read BIO_write SSL_read SSL_write"),
)
"""What the lane asks of others that is not theirs to keep."""

_FLOW = "client_conn server_conn live"
_REQUEST = "http_version headers content trailers timestamp_start timestamp_end host port method scheme authority path"
_RESPONSE = "http_version headers content trailers timestamp_start timestamp_end status_code reason"

Factory = Callable[[], asyncio.BaseProtocol]


def missing() -> list[str]:
    """What this mitmproxy, asyncio or pyOpenSSL lacks of what the lane needs."""
    lacking = [name for owner, names in _PRIVATE for name in names.split() if not hasattr(owner, name)]
    if list(inspect.signature(HTTPFlow).parameters) != _FLOW.split():
        lacking.append("HTTPFlow")
    for kind, names in ((RequestData, _REQUEST), (ResponseData, _RESPONSE)):
        if [field.name for field in dataclasses.fields(kind)] != names.split():
            lacking.append(kind.__name__)
    return lacking


def listener_of(factory: Factory) -> ServerInstance[Any] | None:
    """For which of mitmproxy's listeners this makes protocols, if for one of them; as asyncio.start_server does."""
    protocol = factory()
    owner = getattr(getattr(protocol, "_client_connected_cb", None), "__self__", None)
    reader = getattr(protocol, "_stream_reader", None)
    return owner if isinstance(owner, ServerInstance) and hasattr(reader, "_buffer") else None


def open_to(lane: Lane, factory: Factory) -> Factory:
    """A factory of protocols that serve what is boring; what `factory` makes gets the rest."""

    def give_away(engine: Engine, data: bytes, flow: HTTPFlow | None) -> None:
        """Have mitmproxy go on with these bytes of a plain connection, where nothing is under way."""
        protocol: Any = factory()
        transport = engine.transport
        portions.end(transport)
        note_head(transport, engine.head_began)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if engine.is_full:
            protocol.pause_writing()
        if data:
            protocol.data_received(data)
        transport.resume_reading()

    def make() -> asyncio.BaseProtocol:
        route = lane.route() if lane.is_on() else None
        return Engine(lane, route, give_away) if route else factory()

    return make
