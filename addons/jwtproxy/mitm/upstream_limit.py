"""Bound the connections to upstreams: those of one connection of a client's, of one client, and of all.

mitmproxy keeps them until the client leaves, and one client may name a thousand hosts in a row, by hundreds of
connections. Idle ones of the same connection make room, then there is none.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy.layers import http

from ..conduct.crowd import TOO_MANY_UPSTREAM, Crowd, site
from ..config.options import Option, number
from . import forgetting, limits, retries

_OPTION = Option(
    "jwt_max_upstream_connections",
    "128",
    number,
    "guards",
    "How many connections to upstreams may be open for one connection of a client: idle ones are closed first, then "
    "requests get 503; 0 = no limit but those that go with jwt_max_connections and jwt_max_client_connections.",
    limit=True,
)
OPTIONS = (_OPTION,)
NAME = _OPTION.name

_HUNG = "jwtproxy_upstreams"
_COUNTED = "jwtproxy_counted"
"""Among a connection's attributes: where it is counted, and as whose."""


def most(options: Options) -> int:
    """How many there may be; 0 = no limit, as where no addon of ours is."""
    return int(limits.value_of(options, _OPTION))


def hang(options: Options, crowd: Crowd) -> None:
    """Have the connections to upstreams be counted there, by their clients, for the master with these options."""
    vars(options)[_HUNG] = crowd  # past what mitmproxy takes for a setting


def admit(
    options: Options, client: Client, upstream: Server, others: int, close_one: Callable[[], Server | None]
) -> None:
    """Count a connection that is about to be opened, if need be in place of one that is closed; else it has an error.

    `others`: how many this connection of the client's has. `close_one`: closes one of them, if there is an idle one.
    """
    if not 0 < most(options) <= others and _enter(options, client, upstream):
        return
    limits.reached(NAME)
    if closed := close_one():
        leave(closed)
        if _enter(options, client, upstream):
            return
    retries.leave(upstream)  # mitmproxy would have the next request to there fail, too
    upstream.error = TOO_MANY_UPSTREAM


def leave(upstream: Server) -> None:
    """A connection has ended, or is about to, or could not be made: it counts no more."""
    if counted := vars(upstream).pop(_COUNTED, None):
        crowd, who = counted
        crowd.leave(who)


def _enter(options: Options, client: Client, upstream: Server) -> bool:
    """Count one more connection; false where there is no room."""
    crowd: Crowd | None = vars(options).get(_HUNG)
    if not crowd:
        return True
    peer: Any = client.peername
    who = site(peer[0]) if peer else ""
    if crowd.enter(who):
        return False
    vars(upstream)[_COUNTED] = crowd, who
    return True


def make_room(handler: Any, upstream: Server, options: Options) -> None:
    """See to it that mitmproxy may open one more; otherwise it has an error."""
    others = [one for one in handler.transports if isinstance(one, Server) and one is not upstream]
    others = [one for one in others if not retries.leaves(one)]

    def close_one() -> Server | None:
        layers = list(_http_layers(handler.layer.context.layers, set()))
        idle = next((one for one in others if _is_idle(one, layers)), None)
        if idle:
            retries.leave(idle)  # nobody chooses it while it is being closed
            handler.transports[idle].handler.cancel("closed to make room")
        return idle

    admit(options, handler.client, upstream, len(others), close_one)


def _is_idle(server: Server, layers: Iterable[http.HttpLayer]) -> bool:
    """Whether no request has a use for it: those that go by another proxy have the same layer below."""
    if server.state is not ConnectionState.OPEN:
        return False
    for layer in layers:
        if child := layer.connections.get(server):
            if forgetting.is_being_made(server, layer):
                return False
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
