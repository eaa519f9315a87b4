"""Give up on a client connection on which nothing happens, by a clock that nobody can set."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy.proxy import commands, context, events, server, tunnel
from mitmproxy.proxy.layers import http, modes

from . import limits, pressure, time_limits

_LOOK = 60.0
"""Seconds between two looks where nothing limits a connection: something may, by then."""

_UNDECIDED = (modes.HttpProxy, modes.HttpUpstreamProxy, modes.DestinationKnown, tunnel.TunnelLayer, http.HttpStream)
"""Behind which nothing has come yet that tells what follows: in a tunnel, the last of these is the one that opened."""


class Watchdog(server.TimeoutWatchdog):
    """mitmproxy's, which goes by the time of day: set back, it never ends a connection; set forward, it ends them all.

    It looks once more after a hook that kept it from looking has ended: the client was not idle meanwhile. And it asks
    whether a request is in flight: where none is, there is another limit.
    """

    def __init__(self, timeout: int, callback: Callable[[], Awaitable[None]]) -> None:
        """`timeout`: in seconds. `callback`: ends the connection; of a handler's, its options tell the limits."""
        super().__init__(timeout, callback)
        handler = getattr(callback, "__self__", None)
        self._handler: Any = handler if handler and handler.client.transport_protocol == "tcp" else None
        self.register_activity()

    def register_activity(self) -> None:
        """Something happens."""
        self.last_activity = time.monotonic()

    async def watch(self) -> None:
        """Wait until nothing has happened for as long as may be, or until cancelled."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await self.can_timeout.wait()
                left = self._left()
                if left <= 0:
                    await self.callback()
                    return
                await asyncio.sleep(left)

    def _left(self) -> float:
        """Seconds until it is worth a look; 0 if the connection is to end."""
        if not self._handler:
            return self.last_activity + self.timeout - time.monotonic()
        context = self._handler.layer.context
        found, since = time_limits.in_force(context.options), waiting_since(context, self.last_activity)
        name, limit, at = time_limits.IDLE, found.idle, self.last_activity
        if since is not None:
            name, limit, at = time_limits.KEEPALIVE, found.keepalive, since
        left = at + (limit or math.inf) - time.monotonic()
        if left <= 0:
            limits.reached(name)
            return 0.0
        return min(left, time_limits.shortest(found.idle, found.keepalive) or _LOOK)  # a request may end a moment later


def waiting_since(context: context.Context, before: float) -> float | None:
    """Since when a client could send a request, and none is in flight; None if one is, or no request is to come.

    `before`: when anything has happened last, where nothing has come that tells more. Infinity: others see to it.
    """
    innermost = context.layers[-1] if context.layers else None
    if not isinstance(innermost, http.HttpLayer):
        return before if innermost is None or isinstance(innermost, _UNDECIDED) else None
    requests: Any = innermost.connections.get(context.client)
    since: float | None = getattr(requests, "waits_since", before)
    if since is None and requests.is_tunnel:
        streams = list(innermost.streams.values())
        return waiting_since(streams[0].context, before) if len(streams) == 1 else None
    return since


async def wakeup(self: server.ConnectionHandler, request: commands.RequestWakeup) -> None:
    """Tell a layer that its time has come, which is nothing that happens on the connection."""
    await asyncio.sleep(request.delay)
    if isinstance(request, pressure.Drain):
        await pressure.drained(self, request.connection)
    task = asyncio.current_task()
    assert task is not None
    self.wakeup_timer.discard(task)
    before = self.timeout_watchdog.last_activity
    await self.server_event(events.Wakeup(request))
    self.timeout_watchdog.last_activity = before
