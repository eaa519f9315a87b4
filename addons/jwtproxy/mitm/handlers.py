"""Those in mitmproxy who serve the client connections, and what only they know."""

from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection

from . import pressure

_BEGAN = "jwtproxy_began"
"""Among a transport's attributes."""


def handler_of(client: Client) -> Any:
    """Who serves this connection, if it is open."""
    master = getattr(ctx, "master", None)
    proxyserver = master.addons.get("proxyserver") if master else None
    return proxyserver.connections.get(client.id) if proxyserver else None


def is_held_back(client: Client) -> bool:
    """Whether an upstream has yet to take what this client has sent: no more is read of it then."""
    valve = pressure.valve_of(client)
    if valve and valve.is_shut:
        return True
    handler = handler_of(client)
    transports = handler.transports if handler else {}
    return any(_unsent(io.writer) for connection, io in list(transports.items()) if connection is not client)


def abandon(client: Client, connection: Connection) -> None:
    """Drop what an upstream has yet to read of what this client has sent."""
    handler = handler_of(client)
    io = handler.transports.get(pressure.carrier_of(connection)) if handler else None
    if io:
        pressure.abandon(io)


def note_head(transport: Any, began: float) -> None:
    """Whoever serves this connection next is to know since when a head has been coming by it."""
    vars(transport)[_BEGAN] = began


def head_began(client: Client) -> float:
    """When the head began of which some had come before this connection was mitmproxy's; told once, and 0 if none."""
    handler = handler_of(client)
    io = handler.transports.get(client) if handler else None
    transport = getattr(io.writer, "transport", None) if io else None
    return float(vars(transport).pop(_BEGAN, 0.0)) if transport else 0.0


def _unsent(writer: Any) -> int:
    transport = getattr(writer, "transport", None)  # there is none of UDP, nor before the connection is there
    return int(transport.get_write_buffer_size()) if transport else 0
