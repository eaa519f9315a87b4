"""How many requests there were, every few seconds of the last minutes, in however many processes."""

import mmap
from itertools import pairwise

INTERVAL = 5.0
"""Seconds from one note to the next."""
LENGTH = 120
"""Intervals that are told: ten minutes."""
_SLOTS = LENGTH + 4


class History:
    """Totals by time, in a ring. Made before the processes are forked.

    All of them note the same, or nearly so, and whoever is first has done it for all: nobody waits for a lock, and one
    that was started a minute ago tells what there was before.
    """

    def __init__(self, processes: int = 1) -> None:
        """processes: whether there is one, or any number."""
        size = 2 * 8 * _SLOTS
        shared = mmap.mmap(-1, size) if processes > 1 else bytearray(size)
        self._cells = memoryview(shared).cast("Q")
        """For each slot, the number of its interval, from 1 on, and the total when that began."""

    def note(self, uptime: float, total: int) -> None:
        """There have been so many after so many seconds: noted if nobody has done that since an interval began."""
        number, at = _place(int(uptime / INTERVAL))
        if self._cells[at] != number:
            self._cells[at + 1] = total
            self._cells[at] = number

    def rates(self, uptime: float) -> list[float]:
        """Requests a second in each interval that is over, the oldest first."""
        last = int(uptime / INTERVAL)
        known = [(tick, total) for tick in range(max(0, last - LENGTH), last + 1) if (total := self._at(tick)) >= 0]
        rates: list[float] = []
        for (before, fewer), (tick, more) in pairwise(known):
            rates += [(more - fewer) / ((tick - before) * INTERVAL)] * (tick - before)
        return rates

    def rate(self, uptime: float, total: int) -> float:
        """Requests a second now, of which there have been so many: in the last interval or two."""
        last = int(uptime / INTERVAL)
        for tick in range(last - 1, max(-1, last - LENGTH), -1):
            if (before := self._at(tick)) >= 0:
                return (total - before) / (uptime - tick * INTERVAL)
        return total / uptime if uptime else 0.0

    def _at(self, tick: int) -> int:
        """The total then; -1 if nobody has noted it."""
        number, at = _place(tick)
        return self._cells[at + 1] if self._cells[at] == number else -1


def _place(tick: int) -> tuple[int, int]:
    """The number that an interval has in its slot, and where that is."""
    return tick + 1, 2 * (tick % _SLOTS)
