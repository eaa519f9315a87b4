"""Forget connections to upstreams that are over, with all that carried them.

mitmproxy keeps each that a client's connection has ever used until that ends; and where one could not be made, it tells
that to every later request to there, and does not try again.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import http

from . import retries


class _Nobody:
    """In the place of a layer that is gone, for which a wake-up is still under way."""

    def handle_event(self, event: events.Event) -> Iterator[commands.Command]:
        """Do nothing."""
        yield from ()


_NOBODY: Any = _Nobody()


def forget(layers: Iterable[Any]) -> None:
    """Forget, in each layer that speaks HTTP, the connections that are over; nobody chooses one that has failed."""
    for layer in layers:
        if isinstance(layer, http.HttpLayer):
            _forget(layer)


def pass_over(server: Server) -> None:
    """Have no other request told that a connection could not be made, now that one has been."""
    if server.error:
        retries.leave(server)


def is_being_made(server: Server, layer: http.HttpLayer) -> bool:
    """Whether somebody waits for a connection, or for one by the same layers, to be established."""
    child = layer.connections.get(server)
    return any(layer.connections.get(one) is child for one in layer.waiting_for_establishment)


def _forget(layer: http.HttpLayer) -> None:
    servers = [one for one in layer.connections if isinstance(one, Server)]
    for server in servers:
        if server not in layer.waiting_for_establishment:
            pass_over(server)
    over = [one for one in servers if _is_over(one, layer)]
    if not over:
        return
    used = {stream.context.server for stream in layer.streams.values() if hasattr(stream, "context")}
    gone = [layer.connections.pop(server) for server in over if server not in used]
    kept = [*layer.connections.values(), *layer.streams.values()]  # in a tunnel, what carries them is a stream
    for command, source in layer.command_sources.items():
        if source in gone and source not in kept:
            layer.command_sources[command] = _NOBODY


def _is_over(server: Server, layer: http.HttpLayer) -> bool:
    """Whether nothing can come of it any more: mitmproxy has said that it is closed, or it could not be made."""
    if server.state is not ConnectionState.CLOSED or is_being_made(server, layer):
        return False
    if server.timestamp_end is not None:
        return True
    # What a stream has opened is of the layers in its tunnel, which may be about to connect it.
    is_made = server.error is not None or not isinstance(layer.connections[server], http.HttpStream)
    return server.peername is None and is_made
