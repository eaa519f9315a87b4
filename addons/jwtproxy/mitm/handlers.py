"""Those in mitmproxy who serve the client connections, and what only they know."""

from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Client

from . import pressure


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


def _unsent(writer: Any) -> int:
    transport = getattr(writer, "transport", None)  # there is none of UDP, nor before the connection is there
    return int(transport.get_write_buffer_size()) if transport else 0
