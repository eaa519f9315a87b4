"""Count what passes."""

import mmap
import time
from datetime import UTC, datetime
from typing import Any

from .. import __version__

_CELLS = 4096


class Counters:
    """How long the service has run and how many requests it set out to forward, in however many processes.

    Made before they are forked. Each counts in a cell of its own, of memory they share: nobody waits for a lock, and
    what a process has counted outlives it.
    """

    def __init__(self, processes: int = 1) -> None:
        self._started = time.time()
        self._clock = time.monotonic()  # uptime must not jump with the wall clock
        cells = _CELLS if processes > 1 else 1
        shared = mmap.mmap(-1, 2 * 8 * cells) if processes > 1 else bytearray(2 * 8)
        self._all = memoryview(shared)[: 8 * cells].cast("Q")
        self._fast = memoryview(shared)[8 * cells :].cast("Q")
        self._own = 0

    def use_cell(self, process: int) -> None:
        """Count as this process from now on. Numbers start at 1 and are never given twice at the same time."""
        self._own = process % len(self._all)

    def count(self) -> None:
        """One more request is on its way upstream."""
        self._all[self._own] += 1

    def count_fast(self) -> None:
        """That one was carried by the fast lane."""
        self._fast[self._own] += 1

    def snapshot(self) -> dict[str, Any]:
        """The members of `/status`."""
        return {
            "uptime_seconds": round(time.monotonic() - self._clock, 3),
            "proxied_requests": sum(self._all),
            "started_at": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="milliseconds"),
            "version": __version__,
            "fast_lane_requests": sum(self._fast),
        }
