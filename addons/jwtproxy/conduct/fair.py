"""Fair turns: how much of what a peer sends is taken before others have theirs, and how much of nothing it may send.

What a byte costs differs by a factor of a thousand: small pieces (chunks of a byte, frames that carry nothing,
pipelined requests) are dear. So whoever's bytes have taken long has fewer taken the next time. All in seconds.
"""

TURN = 0.001
"""What one peer's turn may take, about."""
GO = 0.002
"""What turns may take in all at one go of the event loop, about, before others have to wait for the next."""
FIRST, LEAST = 4 * 1024, 256
"""Bytes taken at a time at first, and at least."""


def portion(now: int, size: int, took: float, most: int) -> int:
    """How many bytes to take the next time, where `size` of the `now` that were allowed have taken so long."""
    if took > TURN:
        return max(LEAST, min(now, int(size * TURN / took)))
    return min(most, 2 * now) if size >= now and 2 * took < TURN else now


def is_dear(took: float) -> bool:
    """Whether who has taken so long is to wait for its next turn, as others like it do, one after the other."""
    return 2 * took > TURN


def is_worth_timing(now: int, size: int) -> bool:
    """Whether so many bytes of the `now` that are allowed may keep others waiting: the clock, too, takes its time."""
    return 2 * size >= now


class Budget:
    """So many at once, and so many each second: a leaky bucket."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._at: float | None = None

    def spend(self, now: float) -> bool:
        """Whether there is one left, which is gone then."""
        self._left = min(self._burst, self._left + self._rate * (now - (now if self._at is None else self._at))) - 1
        self._at = now
        return self._left >= 0

    def refund(self, count: float) -> None:
        """So many more are allowed, up to what is at once."""
        self._left = min(self._burst, self._left + count)
