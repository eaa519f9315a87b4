"""Let requests in flight finish before the end."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakSet

from mitmproxy import ctx, http
from mitmproxy.proxy import events

from jwtproxy.mitm import farewell

_BUSY = 0.5
"""Seconds until clients are told to send no more that go on sending, and always have a request under way.

Others are told when they have none: some drop what is under way when they are told (h2 does).
"""
_CUT, _LOOKS = 0.3, 30
"""Seconds that connections which are cut have to end, and looks at them: a script's hooks may wait for longer."""
_ROUND_TRIP = 0.5
"""Seconds that they may take to hear it."""


class Drain:
    """mitmproxy addon: knows which requests are in flight, and waits for them."""

    done_by_lane = ("requestheaders", "response", "error")

    def __init__(self, fast_lane: Callable[[], Iterable[Any]], *, tells: bool = True) -> None:
        """`fast_lane`: the connections that mitmproxy does not know. `tells`: whether clients can be told to leave."""
        self._tells = tells
        self._fast_lane = fast_lane
        self._in_flight: WeakSet[http.HTTPFlow] = WeakSet()
        self._draining = False
        self._http2: WeakSet[Any] = WeakSet()

    def running(self) -> None:
        """The options are those that connections get to see."""
        if self._tells:
            self._http2 = farewell.watch(ctx.options)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """A request has come."""
        if not flow.error:
            self._in_flight.add(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        """The answer is complete."""
        self._in_flight.discard(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """There will be no answer."""
        self._in_flight.discard(flow)

    def begin(self) -> None:
        """Have kept-alive connections end with their next answer, while others are still accepted."""
        if not self._draining:
            self._draining = True
            ctx.master.addons.add(_Leaving())
            for engine in list(self._fast_lane()):
                engine.lane.is_on()  # has it notice that

    async def drain(self, grace: float) -> None:
        """Accept no more connections; wait until nothing is in flight or unsent, at most `grace` seconds."""
        self.begin()
        proxyserver = ctx.master.addons.get("proxyserver")
        await proxyserver.servers.update([])
        begun = now = time.monotonic()
        untold = {connection: connection.latest for connection in self._http2}
        told: dict[Any, float] = {}
        # Polled, as nothing tells when a buffer has become empty.
        while now < begun + grace and (self._is_busy(proxyserver) or untold or not _are_heard(told, now)):
            for connection in _due(untold, late=now > begun + _BUSY):
                del untold[connection]
                told[connection] = now
                await _tell(proxyserver, connection)
            await asyncio.sleep(0.02)
            now = time.monotonic()
        for engine in list(self._fast_lane()):
            engine.close_if_idle()

    async def cut(self) -> None:
        """End every connection while those are still there who tell of requests: later, nobody would hear of these."""
        proxyserver = ctx.master.addons.get("proxyserver")
        for engine in list(self._fast_lane()):
            engine.transport.abort()
        for handler in list(proxyserver.connections.values()):
            if (io := handler.transports.get(handler.client)) and io.handler:
                io.handler.cancel("the proxy ends")
        for _ in range(_LOOKS):
            if not proxyserver.connections and not any(self._fast_lane()):
                break
            await asyncio.sleep(_CUT / _LOOKS)

    def _is_busy(self, proxyserver: Any) -> bool:
        in_flight = bool(self._in_flight) or any(engine.is_busy for engine in self._fast_lane())
        return in_flight or self._unsent(proxyserver)

    def _unsent(self, proxyserver: Any) -> bool:
        """Whether bytes of an answer still wait for a slow client."""
        writers = (io.writer for handler in proxyserver.connections.values() for io in handler.transports.values())
        transports = [getattr(writer, "transport", None) for writer in writers]
        transports += [engine.transport for engine in self._fast_lane()]
        return any(transport and transport.get_write_buffer_size() for transport in transports)


class _Leaving:
    """mitmproxy addon while we drain: a kept-alive connection is not kept."""

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The answer has begun."""
        if flow.response and not flow.request.is_http2 and flow.response.status_code != 101:
            flow.response.headers["connection"] = "close"


def _due(untold: Mapping[Any, int], *, late: bool) -> list[Any]:
    """Those connections that are to be told now. `untold`: with the number of the last request that was there then."""
    return [one for one, latest in untold.items() if one.is_idle or (late and one.latest > latest)]


async def _tell(proxyserver: Any, connection: Any) -> None:
    if handler := proxyserver.connections.get(connection.context.client.id):
        await handler.server_event(events.Wakeup(connection.farewell))


def _are_heard(told: Mapping[Any, float], now: float) -> bool:
    """Whether all who were told that we leave know it, or would have to by now."""
    return all(connection.is_heard or now > at + _ROUND_TRIP for connection, at in told.items())
