"""Requests that are sent once more, as mitmproxy carries them: what their flows and connections tell of that."""

from dataclasses import dataclass
from typing import Any

from mitmproxy.connection import Connection, Server
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy.layers import http

from . import gate

_AGAIN = "jwtproxy_again"
"""Among a flow's attributes: it has been sent a second time."""
_USED, _LEAVING = "jwtproxy_used", "jwtproxy_leaving"
"""Among a connection's: it has carried a request; it takes no more."""


@dataclass
class NoAnswer(http.ResponseProtocolError):
    """The connection has ended, or the stream, and nothing of an answer has come."""

    untouched: bool = False
    """Whether the server has said that it has done nothing with the request."""


_matches = http.GetHttpConnection.connection_spec_matches


def matches(self: http.GetHttpConnection, connection: Connection) -> bool:
    """Whether this connection will do, as mitmproxy asks: one that takes no more requests does not."""
    return not leaves(connection) and _matches(self, connection)


def begin_again(flow: HTTPFlow, options: Any) -> None:
    """Note that a request is sent a second time: it is not counted again, and its token is another."""
    vars(flow)[_AGAIN] = True
    gate.gate_of(options).forget(flow)


def is_second_try(flow: HTTPFlow) -> bool:
    """Whether the request has been sent before."""
    return _AGAIN in vars(flow)


def use(connection: Server) -> bool:
    """Note that a connection carries a request; whether it did so before."""
    used = _USED in vars(connection)
    vars(connection)[_USED] = True
    return used


def leave(connection: Connection) -> None:
    """Note that a connection takes no more requests."""
    vars(connection)[_LEAVING] = True


def leaves(connection: Connection) -> bool:
    """Whether a connection takes no more requests."""
    return _LEAVING in vars(connection)
