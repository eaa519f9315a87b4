"""How long a client may take, and how long a connection may be silent: the values in force, where all can reach them.

Like the gate, they hang on the options of their master, as that is all that a layer can reach.
"""

from collections.abc import Mapping
from typing import NamedTuple

from mitmproxy.options import Options

from ..config.options import Option, seconds
from . import connect_deadline, response_timeout, stock

OPTIONS = (
    Option(
        "jwt_head_timeout",
        "30",
        seconds,
        "guards",
        "Seconds a client may take from the first byte of a request's head to its last before it gets 408; "
        "0 = no limit.",
        limit=True,
    ),
    Option(
        "jwt_keepalive_timeout",
        "120",
        seconds,
        "guards",
        "Seconds after which a connection with no request in flight is closed; 0 = no limit.",
        limit=True,
    ),
    Option(
        "jwt_body_timeout",
        "60",
        seconds,
        "guards",
        "Seconds within which each next byte of a request's body must come before its client gets 408; 0 = no limit.",
        limit=True,
    ),
    Option(
        "jwt_idle_timeout",
        "600",
        seconds,
        "guards",
        "Seconds of silence in both directions after which a connection is closed although a request, a WebSocket or "
        "a tunnel is open on it; 0 = no limit.",
        limit=True,
    ),
    Option(
        "jwt_tls_timeout",
        "15",
        seconds,
        "guards",
        "Seconds a client may take for its TLS handshake before its connection is closed; 0 = no limit.",
        limit=True,
    ),
)
ALL = (*connect_deadline.OPTIONS, *response_timeout.OPTIONS, *OPTIONS)
"""Those of clients, and those of upstreams."""

HEAD, KEEPALIVE, BODY, IDLE, TLS = (row.name for row in OPTIONS)


class TimeLimits(NamedTuple):
    """In seconds each; 0 = no limit."""

    head: float = 0.0
    keepalive: float = 0.0
    body: float = 0.0
    idle: float = 0.0
    tls: float = 0.0


NONE = TimeLimits()
_HUNG = "jwtproxy_time_limits"
_TCP_TIMEOUT = 600
"""mitmproxy's default, which says nothing of what its user wants."""


def hang(options: Options, values: Mapping[str, float]) -> None:
    """Have these be the limits of the master with these options."""
    names = (row.member for row in OPTIONS)
    vars(options)[_HUNG] = TimeLimits(*(values[name] for name in names))  # past what mitmproxy takes for a setting


def of(options: Options) -> TimeLimits:
    """The limits of the master with these options; none where no addon of ours is."""
    limits: TimeLimits = vars(options).get(_HUNG, NONE)
    return limits


def in_force(options: Options) -> TimeLimits:
    """The same, with mitmproxy's tcp_timeout, which counts for every silence if it is set, or where none of ours is."""
    limits, theirs = of(options), float(stock.option(options, "tcp_timeout", _TCP_TIMEOUT))
    if theirs == _TCP_TIMEOUT and limits is not NONE:
        return limits
    return limits._replace(keepalive=shortest(limits.keepalive, theirs), idle=shortest(limits.idle, theirs))


def shortest(*limits: float) -> float:
    """The shortest of limits; 0 = none."""
    return min(filter(None, limits), default=0.0)


def late_head(limit: float) -> str:
    """What a client is told whose head takes too long."""
    return f"the request's head was not complete within {limit:g} s"


def late_body(limit: float) -> str:
    """What a client is told that sends no more of its body."""
    return f"nothing more of the request's body came within {limit:g} s"
