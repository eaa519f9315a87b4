"""What has to be noted every few seconds, whether or not anything passes."""

import asyncio
import os
from typing import Protocol

from ..observe.history import INTERVAL


class Counts(Protocol):
    """Who notes it."""

    @property
    def uptime(self) -> float:
        """Seconds since the start of the service."""
        ...

    def serve(self, pid: int) -> None:
        """This process serves from now on."""
        ...

    def note(self) -> None:
        """Note how much there has been until now."""
        ...


class Pulse:
    """mitmproxy addon: has it noted when the run begins, and at the beginning of each interval."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._next: asyncio.TimerHandle | None = None

    def running(self) -> None:
        """The start is over."""
        self._counts.serve(os.getpid())
        self._beat()

    def done(self) -> None:
        """The end has come."""
        if self._next:
            self._next.cancel()

    def _beat(self) -> None:
        self._counts.note()
        left = INTERVAL - self._counts.uptime % INTERVAL
        self._next = asyncio.get_running_loop().call_later(left + _LATE, self._beat)


_LATE = 0.001
"""Seconds after an interval has begun: a timer that is a little early would note the one before."""
