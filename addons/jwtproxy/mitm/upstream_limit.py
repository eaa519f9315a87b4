"""Bound the connections to upstreams that one connection of a client has: idle ones make room, then there is none.

mitmproxy keeps them until the client leaves, and one client may name a thousand hosts in a row.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mitmproxy.connection import ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy.layers import http

from ..conduct.crowd import TOO_MANY_UPSTREAM
from ..config.options import Option, number
from . import limits, retries

_OPTION = Option(
    "jwt_max_upstream_connections",
    "128",
    number,
    "guards",
    "How many connections to upstreams may be open for one connection of a client: idle ones are closed first, then "
    "requests get 503; 0 = no limit.",
    limit=True,
)
OPTIONS = (_OPTION,)
NAME = _OPTION.name


def most(options: Options) -> int:
    """How many there may be; 0 = no limit, as where no addon of ours is."""
    return int(limits.value_of(options, _OPTION))


def make_room(handler: Any, upstream: Server, most: int) -> None:
    """See to it that one more may be opened; otherwise it has an error."""
    others = [one for one in handler.transports if isinstance(one, Server) and one is not upstream]
    others = [one for one in others if not retries.leaves(one)]
    if not most or len(others) < most:
        return
    limits.reached(NAME)
    layers = list(_http_layers(handler.layer.context.layers, set()))
    idle = next((one for one in others if _is_idle(one, layers)), None)
    if idle:
        retries.leave(idle)  # nobody chooses it while it is being closed
        handler.transports[idle].handler.cancel("closed to make room")
    else:
        retries.leave(upstream)  # mitmproxy would have the next request to there fail, too
        upstream.error = TOO_MANY_UPSTREAM


def _is_idle(server: Server, layers: Iterable[http.HttpLayer]) -> bool:
    """Whether no request has a use for it: those that go by another proxy have the same layer below."""
    if server.state is not ConnectionState.OPEN:
        return False
    for layer in layers:
        if child := layer.connections.get(server):
            used = (stream.flow.server_conn for stream in layer.streams.values() if hasattr(stream, "flow"))
            return all(layer.connections.get(one) is not child for one in used)
    return False


def _http_layers(layers: Iterable[Any], seen: set[int]) -> Iterator[http.HttpLayer]:
    """Those that speak HTTP, also in tunnels."""
    for layer in layers:
        if isinstance(layer, http.HttpLayer) and id(layer) not in seen:
            seen.add(id(layer))
            yield layer
            for stream in layer.streams.values():
                if stream.child_layer:
                    yield from _http_layers(stream.child_layer.context.layers, seen)
