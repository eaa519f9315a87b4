"""Let requests in flight finish before the end."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from mitmproxy import ctx, http


class Drain:
    """mitmproxy addon: knows which requests are in flight, and waits for them."""

    def __init__(self, fast_lane: Callable[[], Iterable[Any]]) -> None:
        """`fast_lane`: the connections that mitmproxy does not know."""
        self._fast_lane = fast_lane
        self._in_flight: WeakSet[http.HTTPFlow] = WeakSet()
        self._draining = False

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """A request has come."""
        if not flow.error:
            self._in_flight.add(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """While we drain, a kept-alive connection is not kept."""
        if self._draining and flow.response and not flow.request.is_http2 and flow.response.status_code != 101:
            flow.response.headers["connection"] = "close"

    def response(self, flow: http.HTTPFlow) -> None:
        """The answer is complete."""
        self._in_flight.discard(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """There will be no answer."""
        self._in_flight.discard(flow)

    async def drain(self, grace: float) -> None:
        """Accept no more connections; wait until nothing is in flight or unsent, at most `grace` seconds."""
        self._draining = True
        proxyserver = ctx.master.addons.get("proxyserver")
        await proxyserver.servers.update([])
        end = time.monotonic() + grace
        # Polled, as nothing tells when a buffer has become empty.
        while (self._in_flight or self._unsent(proxyserver)) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for engine in list(self._fast_lane()):
            engine.close_if_idle()

    def _unsent(self, proxyserver: Any) -> bool:
        """Whether bytes of an answer still wait for a slow client."""
        writers = (io.writer for handler in proxyserver.connections.values() for io in handler.transports.values())
        transports = [getattr(writer, "transport", None) for writer in writers]
        transports += [engine.transport for engine in self._fast_lane()]
        return any(transport and transport.get_write_buffer_size() for transport in transports)
