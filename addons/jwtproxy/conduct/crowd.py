"""How many connections there are of clients, all together and each of them, and whether there is room for one more.

Those that clients make are counted so, and those to upstreams that are made for them.
"""

import functools
import ipaddress
from enum import StrEnum

from .addresses import parse_ip

RESERVE = 32
"""File descriptors that are not for connections: those of the process itself, resolvers, refusals."""
_EACH = 2
"""Descriptors that a connection takes as a rule: its own, and that to its upstream."""
_MOST = 16_384
"""However many descriptors there are: a connection takes memory, too."""

TOO_MANY_UPSTREAM = "too many connections to upstreams"
"""Why no connection was made for a client that has as many as it may have."""


class Full(StrEnum):
    """Why there is no room: the option that says so."""

    ALL = "jwt_max_connections"
    CLIENT = "jwt_max_client_connections"

    @property
    def text(self) -> str:
        """What to tell the client."""
        return "too many connections" if self is Full.ALL else "too many connections of this client"


class Crowd:
    """The connections of clients, or for them, that are open now."""

    def __init__(self) -> None:
        self.most = self.most_each = 0
        """Of all clients, and of one; 0 = no limit."""
        self._all = 0
        self._each: dict[str, int] = {}

    def enter(self, who: str) -> Full | None:
        """Count one more connection of this client's; why not, where there is no room."""
        own = self._each.get(who, 0)
        if self.most and self._all >= self.most:
            return Full.ALL
        if self.most_each and own >= self.most_each:
            return Full.CLIENT
        self._all += 1
        self._each[who] = own + 1
        return None

    def leave(self, who: str) -> None:
        """One that was counted has ended."""
        self._all -= 1
        self._each[who] -= 1
        if not self._each[who]:
            del self._each[who]

    @property
    def size(self) -> int:
        """How many connections there are."""
        return self._all


def most_for(descriptors: int) -> int:
    """How many connections go with this limit of file descriptors."""
    return max(1, min(_MOST, (descriptors - RESERVE) // _EACH))


def most_each_for(most: int) -> int:
    """How many of them one client may have: it does not keep out all others."""
    return max(1, most // 2) if most else 0


def most_upstream_for(most: int, usual: int) -> int:
    """How many there may be to upstreams where so many of clients may be: one for each, but no fewer than are `usual`.

    Who allows few clients allows each of them many upstreams: by HTTP/2 one connection may need dozens.
    """
    return max(most, usual) if most else 0


@functools.lru_cache(maxsize=1024)
def site(address: str) -> str:
    """Who has this address: of IPv6, who has all that begin with the same 64 bits (RFC 4291 §2.5.4)."""
    parsed = parse_ip(address)
    if parsed is None:
        return address
    return str(parsed if parsed.version == 4 else ipaddress.ip_network((parsed, 64), strict=False))


def is_full(reason: str) -> bool:
    """Whether this is why no connection was made, perhaps in mitmproxy's words."""
    return reason.removeprefix("Connection killed: ") == TOO_MANY_UPSTREAM
