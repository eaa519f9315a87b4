"""A client connection on which nothing happens is given up, whatever becomes of the time of day."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jwtproxy.mitm.idle_timeout import Watchdog

TIMEOUT: Any = 0.4  # mitmproxy's option is in whole seconds

each_clock = pytest.mark.parametrize("hour", [0, -3600, 3600])


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
