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
        shared = mmap.mmap(-1, 8 * _CELLS) if processes > 1 else bytearray(8)
        self._cells = memoryview(shared).cast("Q")
        self._own = 0

    def use_cell(self, process: int) -> None:
        """Count as this process from now on. Numbers start at 1 and are never given twice at the same time."""
        self._own = process % len(self._cells)

    def count(self) -> None:
        """One more request is on its way upstream."""
        self._cells[self._own] += 1

    def snapshot(self) -> dict[str, Any]:
        """The members of `/status`."""
        return {
            "uptime_seconds": round(time.monotonic() - self._clock, 3),
            "proxied_requests": sum(self._cells),
            "started_at": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="milliseconds"),
            "version": __version__,
        }
