"""Stop reading while nobody takes: what a peer has sent waits in the peer, and not in our memory.

Whoever cannot pass on more of a message, as its receiver's HTTP/2 window is closed or an upstream is still being
connected, says so with `Pressure`, which the stream takes to where the message comes from. There a `Valve` keeps the
connection's task from reading (HTTP/1.1), or what came is not acknowledged, so that its sender's window closes
(HTTP/2).

Bytes that a peer has yet to read have everybody wait who sends to it, and with a client's connection all its streams:
by HTTP/2, one upload that is stuck would stop all others. There an upstream's connection is paced instead: the layer
that sends asks by `Drain` when to go on, and has the one stream wait meanwhile.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, server
from mitmproxy.proxy.layers import http

HIGH, LOW = 64 * 1024, 16 * 1024
"""Bytes that may wait for a receiver before the sender is stopped, and to which they fall before it goes on."""

_VALVE = "jwtproxy_valve"
_PACED, _CARRIER = "jwtproxy_paced", "jwtproxy_carrier"


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
    vars(connection)[_CARRIER] = outer


def carrier_of(connection: Connection) -> Connection:
    """The connection by which its bytes go: itself, or the one to the next proxy."""
    found: Connection = vars(connection).get(_CARRIER, connection)
    return found


def pace(connection: Connection) -> None:
    """Have nobody but its own task wait for its peer to read: who sends sees to that by `Drain`."""
    vars(carrier_of(connection))[_PACED] = True


def is_paced(connection: Connection) -> bool:
    """Whether who sends to it sees to it that not too much waits there."""
    return _PACED in vars(connection)


class Drain(commands.RequestWakeup):
    """Wakes a layer up when the peer has read nearly all that it was sent, or is gone: no timer is set."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(0)
        self.connection = connection


async def drained(self: server.ConnectionHandler, connection: Connection) -> None:
    """Wait until the peer of a connection has read nearly all; if the client goes first, drop what is left."""
    io = self.transports.get(carrier_of(connection))
    if not io or not io.writer:
        return
    try:
        await drain(io)
    except asyncio.CancelledError:
        if carrier_of(connection) in self.transports:
            abandon(io)
        raise


def abandon(io: server.ConnectionIO) -> None:
    """Drop what a peer has yet to read, as nobody waits for it: for one that never reads it would be kept for good."""
    if (transport := getattr(io.writer, "transport", None)) and transport.get_write_buffer_size():
        transport.abort()


async def drain(io: server.ConnectionIO) -> None:
    """Wait until a peer has read nearly all. Where it cannot any more, that is the end of its connection."""
    assert io.writer
    try:
        await io.writer.drain()
    except OSError as error:
        if io.handler is not None:
            io.handler.cancel(f"Error sending data: {error}")


async def drain_writers(self):  # type: ignore[no-untyped-def] # it looks as mitmproxy's does
    """mitmproxy's, but that a connection whose valve is shut is not read, and nobody waits for one that is paced."""
    task = asyncio.current_task()
    for connection, io in list(self.transports.items()):
        if io.handler is task and (valve := valve_of(connection)):
            await valve.passage()
    async with self._drain_lock:
        for connection, io in list(self.transports.items()):
            if io.writer is not None and (io.handler is task or not is_paced(connection)):
                await drain(io)


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

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._full)

    def changes(self, waiting: Mapping[int, int]) -> list[tuple[int, bool]]:
        """The streams that have become full, or are no longer, where so many bytes wait of each."""
        more = [stream for stream, size in waiting.items() if size > HIGH and stream not in self._full]
        less = [stream for stream in self._full if waiting.get(stream, 0) <= LOW]
        self._full.update(more)
        self._full.difference_update(less)
        return [*((stream, True) for stream in more), *((stream, False) for stream in less)]
