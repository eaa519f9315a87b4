"""A client connection on which nothing happens is given up, whatever becomes of the time of day."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.options import Options
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import RequestWakeup
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import TCPLayer, http, modes, tls
from mitmproxy.test import tflow

from jwtproxy.mitm import limits, time_limits
from jwtproxy.mitm.idle_timeout import Watchdog, waiting_since, wakeup
from jwtproxy.mitm.pressure import Drain

TIMEOUT: Any = 0.3  # mitmproxy's option is in whole seconds

each_clock = pytest.mark.parametrize("hour", [0, -3600, 3600])


@pytest.fixture
def hour() -> int:
    """The clock is not touched but where a test says so."""
    return 0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, hour: int) -> None:
    """The time of day, set back or forward at each look at it."""
    ticks = itertools.count(time.time(), hour)
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))


def _ends_after(steps: Callable[[Watchdog], Awaitable[None]]) -> float | None:
    """How long it takes from the end of these steps until the watchdog ends the connection; None if it is before."""

    async def run() -> float | None:
        ended = asyncio.Event()

        async def end() -> None:
            ended.set()

        watchdog = Watchdog(TIMEOUT, end)
        watching = asyncio.ensure_future(watchdog.watch())
        await steps(watchdog)
        began = time.monotonic()
        if ended.is_set():
            return None
        await asyncio.wait_for(ended.wait(), 5)
        await watching
        return time.monotonic() - began

    return asyncio.run(run())


@each_clock
def test_an_idle_connection_is_ended_in_time() -> None:
    async def nothing(watchdog: Watchdog) -> None:
        pass

    took = _ends_after(nothing)
    assert took is not None
    assert took > 0.9 * TIMEOUT


@each_clock
def test_whatever_happens_makes_it_wait_anew() -> None:
    async def busy(watchdog: Watchdog) -> None:
        for _ in range(6):
            await asyncio.sleep(0.25 * TIMEOUT)
            watchdog.register_activity()

    took = _ends_after(busy)
    assert took is not None
    assert took > 0.9 * TIMEOUT


@each_clock
def test_while_a_hook_runs_nobody_is_idle() -> None:
    async def hook(watchdog: Watchdog) -> None:
        await asyncio.sleep(0.5 * TIMEOUT)
        with watchdog.disarm():
            await asyncio.sleep(1.2 * TIMEOUT)

    took = _ends_after(hook)
    assert took is not None
    assert took > 0.9 * TIMEOUT


@pytest.mark.parametrize("hour", [0])
def test_the_end_of_a_connection_is_the_end_of_it() -> None:
    async def run() -> None:
        async def end() -> None:
            raise AssertionError

        watching = asyncio.ensure_future(Watchdog(TIMEOUT, end).watch())
        await asyncio.sleep(0.01)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        assert watching.done()

    asyncio.run(run())


# --- what a connection waits for


BEFORE = 1.0
"""When anything happened last."""


def _context(*layers: Callable[[Context], Any]) -> Context:
    context = Context(tflow.tclient_conn(), Options())
    for layer in layers:
        layer(context)
    return context


def _http(waits_since: float | None, *, is_tunnel: bool = False, inner: Context | None = None) -> Any:
    """A layer whose requests are read by one that says this of itself."""

    def make(context: Context) -> None:
        layer = http.HttpLayer(context, http.HTTPMode.regular)
        requests: Any = SimpleNamespace(waits_since=waits_since, is_tunnel=is_tunnel)
        layer.connections[context.client] = requests
        if inner:
            stream: Any = SimpleNamespace(context=inner)
            layer.streams[1] = stream

    return make


def _stream(context: Context) -> http.HttpStream:
    return http.HttpStream(context, 1)


WAITS: dict[str, tuple[Context, float | None]] = {
    "nothing decided": (_context(), BEFORE),
    "no byte yet": (_context(modes.HttpProxy), BEFORE),
    "TLS alone": (_context(modes.HttpProxy, tls.ClientTLSLayer), BEFORE),
    "kept alive": (_context(modes.HttpProxy, _http(5.0)), 5.0),
    "a request": (_context(modes.HttpProxy, _http(None)), None),
    "a tunnel with nothing in it": (_context(_http(None, is_tunnel=True, inner=_context(_stream))), BEFORE),
    "a tunnel with TLS": (_context(_http(None, is_tunnel=True, inner=_context(_stream, tls.ClientTLSLayer))), BEFORE),
    "a tunnel of HTTP": (_context(_http(None, is_tunnel=True, inner=_context(_stream, _http(7.0)))), 7.0),
    "a tunnel of bytes": (_context(_http(None, is_tunnel=True, inner=_context(_stream, TCPLayer))), None),
    "a tunnel that is gone": (_context(_http(None, is_tunnel=True)), None),
    "bytes": (_context(modes.HttpProxy, TCPLayer), None),
    "the fast lane": (_context(_http(math.inf)), math.inf),
}


@pytest.mark.parametrize(("context", "since"), WAITS.values(), ids=list(WAITS))
def test_whether_a_request_is_in_flight_is_seen_by_the_layers(context: Context, since: float | None) -> None:
    assert waiting_since(context, BEFORE) == since


class Handler:
    """As mitmproxy's, of a connection of these layers."""

    def __init__(self, context: Context, values: dict[str, float]) -> None:
        self.client, self.layer = context.client, SimpleNamespace(context=context)
        self.ended = asyncio.Event()
        self.counted: list[str] = []
        time_limits.hang(context.options, dict.fromkeys((row.member for row in time_limits.OPTIONS), 0.0) | values)
        limits.count_with(context.options, self.counted.append)

    async def on_timeout(self) -> None:
        """End the connection."""
        self.ended.set()


@pytest.mark.parametrize(
    ("waits", "values", "reached"),
    [
        (True, {"keepalive_timeout": 0.1, "idle_timeout": 9.0}, ["jwt_keepalive_timeout"]),
        (False, {"keepalive_timeout": 0.1, "idle_timeout": 0.3}, ["jwt_idle_timeout"]),
        (True, {"idle_timeout": 0.1}, []),
        (False, {"keepalive_timeout": 0.1}, []),
        (False, {}, []),
    ],
)
def test_each_has_its_limit(
    monkeypatch: pytest.MonkeyPatch, waits: bool, values: dict[str, float], reached: list[str]
) -> None:
    async def run() -> None:
        handler = Handler(_context(_http(time.monotonic() if waits else None)), values)
        monkeypatch.setattr(ctx, "options", handler.layer.context.options, raising=False)
        watching = asyncio.ensure_future(Watchdog(600, handler.on_timeout).watch())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(handler.ended.wait(), 3 if reached else 0.3)
        assert handler.counted == reached
        assert handler.ended.is_set() == bool(reached)
        watching.cancel()

    asyncio.run(run())


def test_a_request_that_ends_while_nobody_looks_is_seen_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        context = _context(_http(None))
        handler = Handler(context, {"keepalive_timeout": 0.3, "idle_timeout": 60.0})
        monkeypatch.setattr(ctx, "options", context.options, raising=False)
        watching = asyncio.ensure_future(Watchdog(600, handler.on_timeout).watch())
        await asyncio.sleep(0.1)
        layer: Any = context.layers[-1]
        layer.connections[context.client].waits_since = began = time.monotonic()
        await asyncio.wait_for(handler.ended.wait(), 5)
        assert time.monotonic() - began > 0.25
        await watching

    asyncio.run(run())


def test_an_alarm_of_ours_is_nothing_that_happens() -> None:
    async def run() -> None:
        told = list[Any]()

        async def server_event(event: Any) -> None:
            watchdog.register_activity()
            told.append(event)

        async def end() -> None:
            pass

        watchdog = Watchdog(600, end)
        before, request = watchdog.last_activity, RequestWakeup(0.02)
        timers: set[Any] = set()
        handler: Any = SimpleNamespace(timeout_watchdog=watchdog, wakeup_timer=timers, server_event=server_event)
        task = asyncio.ensure_future(wakeup(handler, request))
        timers.add(task)
        await task
        assert [event.command for event in told] == [request]
        assert (watchdog.last_activity, timers) == (before, set())

    asyncio.run(run())


def test_a_drain_wakes_its_layer_when_the_peer_has_read() -> None:
    told: list[events.Event] = []

    async def hear(event: events.Event) -> None:
        told.append(event)

    async def run() -> None:
        peer, reads = tflow.tserver_conn(), asyncio.Event()
        io = SimpleNamespace(writer=SimpleNamespace(drain=reads.wait), handler=None)
        watchdog = SimpleNamespace(last_activity=0.0)
        handler: Any = SimpleNamespace(
            timeout_watchdog=watchdog, wakeup_timer=set(), server_event=hear, transports={peer: io}
        )
        task = asyncio.ensure_future(wakeup(handler, Drain(peer)))
        await asyncio.sleep(0.02)
        assert not told
        reads.set()
        await asyncio.wait_for(task, 1)
        assert len(told) == 1

    asyncio.run(run())
