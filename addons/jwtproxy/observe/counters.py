"""Count what passes."""

import mmap
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from .. import __version__

_CELLS = 4096


class Counters:
    """How long the service has run and how many requests it set out to forward, in however many processes.

    Made before they are forked. Each counts in a cell of its own, of memory they share: nobody waits for a lock, and
    what a process has counted outlives it.
    """

    def __init__(self, processes: int = 1, limits: Iterable[str] = ()) -> None:
        """`limits`: the names of those whose reaching is counted, each by itself."""
        self._started = time.time()
        self._clock = time.monotonic()  # uptime must not jump with the wall clock
        cells = _CELLS if processes > 1 else 1
        names = ("all", "fast", *limits)
        size = 8 * cells
        shared = mmap.mmap(-1, size * len(names)) if processes > 1 else bytearray(size * len(names))
        found = memoryview(shared)
        self._all, self._fast, *reached = (
            found[size * number : size * (number + 1)].cast("Q") for number in range(len(names))
        )
        self._reached = dict(zip(names[2:], reached, strict=True))
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

    def count_reached(self, limit: str) -> None:
        """What this limits has come to its limit once more; one that is not counted must not end what reached it."""
        if (cells := self._reached.get(limit)) is not None:
            cells[self._own] += 1

    @property
    def reached(self) -> dict[str, int]:
        """How often each limit was reached."""
        return {name: sum(cells) for name, cells in self._reached.items()}

    def snapshot(self) -> dict[str, Any]:
        """The members of `/status`."""
        return {
            "uptime_seconds": round(time.monotonic() - self._clock, 3),
            "proxied_requests": sum(self._all),
            "started_at": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="milliseconds"),
            "version": __version__,
            "fast_lane_requests": sum(self._fast),
        }
