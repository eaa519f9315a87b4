"""When serving ends: at once, after requests in flight, or because there is nothing left to do."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from jwtproxy.launcher import serving
from jwtproxy.launcher.plan import Plan
from jwtproxy.observe.counters import Counters
from jwtproxy.tokens.key_source import KeySource


class _Drain:
    """What lets requests in flight finish."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self.begun, self.ended = seconds, False, False

    async def __call__(self) -> None:
        self.begun = True
        await asyncio.sleep(self._seconds)
        self.ended = True


@pytest.mark.parametrize(
    ("told", "seconds", "begun", "ended"),
    [
        ([signal.SIGINT], 0, False, False),
        ([signal.SIGTERM], 0, True, True),
        ([signal.SIGTERM, signal.SIGTERM], 60, True, False),
        ([signal.SIGTERM, signal.SIGINT], 60, True, False),
    ],
)
def test_signals_decide_whether_requests_may_finish(told: list[int], seconds: float, begun: bool, ended: bool) -> None:
    async def run() -> _Drain:
        signals: asyncio.Queue[int] = asyncio.Queue()
        drain, work = _Drain(seconds), asyncio.get_running_loop().create_future()
        for number in told:
            signals.put_nowait(number)
        await asyncio.wait_for(serving._until_told(work, signals, drain), 10)
        return drain

    drain = asyncio.run(run())
    assert (drain.begun, drain.ended) == (begun, ended)


def test_nothing_left_to_do_ends_it() -> None:
    async def run() -> None:
        work: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        work.set_result(None)
        await asyncio.wait_for(serving._until_told(work, asyncio.Queue(), _Drain(60)), 10)

    asyncio.run(run())


@pytest.mark.parametrize("terminal", [True, False])
def test_only_who_was_started_from_a_terminal_can_lose_it(terminal: bool) -> None:
    live: Any = None
    plan = Plan(KeySource("JWT_SHARED_SECRET", b"k"), live, {}, {}, {}, Counters(), 1, 0, terminal)
    assert serving.hung_up(plan) == (terminal and not os.isatty(0))
