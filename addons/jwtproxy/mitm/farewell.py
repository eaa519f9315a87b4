"""Connections to clients by HTTP/2, which are told when we are about to leave (RFC 9113 §6.8).

Like the gate, the list of them hangs on the options of their master, as that is all that a layer can reach.
"""

from typing import Any, Protocol
from weakref import WeakSet

from mitmproxy.options import Options

_OPEN = "jwtproxy_open"


class Leaving(Protocol):
    """A connection that can be told."""

    context: Any
    farewell: Any
    """The command whose completion makes it tell its client; see `dispatch.Address`."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        ...

    @property
    def latest(self) -> int:
        """The number of the last request."""
        ...

    @property
    def is_heard(self) -> bool:
        """Whether its client has got that, or is gone."""
        ...


def watch(options: Options) -> WeakSet[Any]:
    """Keep a list of the connections of the master with these options."""
    found: WeakSet[Any] = vars(options).setdefault(_OPEN, WeakSet())
    return found


def enter(options: Options, connection: Leaving) -> bool:
    """Put a connection on the list, if there is one."""
    found: WeakSet[Any] | None = vars(options).get(_OPEN)
    if found is not None:
        found.add(connection)
    return found is not None
