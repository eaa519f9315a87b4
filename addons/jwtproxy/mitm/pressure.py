"""Stop reading while nobody takes: what a peer has sent waits in the peer, and not in our memory.

Whoever cannot pass on more of a message, as its receiver's HTTP/2 window is closed or an upstream is still being
connected, says so with `Pressure`, which the stream takes to where the message comes from. There a `Valve` keeps the
connection's task from reading (HTTP/1.1), or what came is not acknowledged, so that its sender's window closes
(HTTP/2).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

from mitmproxy.connection import Connection
from mitmproxy.proxy import server
from mitmproxy.proxy.layers import http

HIGH, LOW = 64 * 1024, 16 * 1024
"""Bytes that may wait for a receiver before the sender is stopped, and to which they fall before it goes on."""

_VALVE = "jwtproxy_valve"


class Why(Flag):
    """Why a connection is not read."""

    BEHIND = auto()
    """It has sent more requests than we can take now."""
    HELD = auto()
    """What it has sent of a message waits."""


class Valve:
    """Of one connection, among whose attributes it stands."""

    def __init__(self) -> None:
        self._why = Why(0)
        self._open = asyncio.Event()
        self._open.set()

    def turn(self, why: Why, *, shut: bool) -> None:
        """Shut it for this reason, or no longer."""
        self._why = self._why | why if shut else self._why & ~why
        self._open.clear() if self._why else self._open.set()

    @property
    def is_shut(self) -> bool:
        """Whether the connection is not read."""
        return bool(self._why)

    async def passage(self) -> None:
        """Wait until it is open."""
        await self._open.wait()


def turn(connection: Connection, why: Why, *, shut: bool) -> None:
    """Shut the valve of a connection for this reason, or no longer."""
    valve = vars(connection).get(_VALVE)
    if valve is None:
        if not shut:
            return
        valve = vars(connection)[_VALVE] = Valve()
    valve.turn(why, shut=shut)


def valve_of(connection: Connection) -> Valve | None:
    """The valve, if it has ever been shut."""
    found: Valve | None = vars(connection).get(_VALVE)
    return found


def share(connection: Connection, outer: Connection) -> None:
    """Have both have the same valve, as one is carried by the other."""
    vars(outer)[_VALVE] = vars(connection).setdefault(_VALVE, Valve())


async def drain_writers(self):  # type: ignore[no-untyped-def] # it looks as mitmproxy's does
    """mitmproxy's, but that a connection whose valve is shut is not read."""
    task = asyncio.current_task()
    for connection, io in list(self.transports.items()):
        if io.handler is task and (valve := valve_of(connection)):
            await valve.passage()
    await _drain_writers(self)


_drain_writers = server.ConnectionHandler.drain_writers


@dataclass
class Pressure(http.HttpEvent):
    """The receiver of a stream's message takes no more for now, or does again."""

    full: bool
    of_request: bool
    """Whether the message is the request."""


def waiting(connection: Any) -> dict[int, int]:
    """Bytes by stream that wait in an HTTP/2 connection for its peer to open windows."""
    return {stream: sum(len(piece.data) for piece in pieces) for stream, pieces in connection.stream_buffers.items()}


class Backlog:
    """The streams of a connection of which much waits."""

    def __init__(self) -> None:
        self._full: set[int] = set()

    def changes(self, waiting: Mapping[int, int]) -> list[tuple[int, bool]]:
        """The streams that have become full, or are no longer, where so many bytes wait of each."""
        if not waiting and not self._full:
            return []
        more = [stream for stream, size in waiting.items() if size > HIGH and stream not in self._full]
        less = [stream for stream in self._full if waiting.get(stream, 0) <= LOW]
        self._full.update(more)
        self._full.difference_update(less)
        return [*((stream, True) for stream in more), *((stream, False) for stream in less)]
