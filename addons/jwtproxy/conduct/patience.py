"""How long who has sent wrong passwords has to wait until another is looked at.

Each wrong one beyond the first few doubles the time. What has been right before is always looked at: others behind the
same address are not kept out by one who guesses.
"""

import hashlib
import math
import os

_FIRST, _LONGEST = 1.0, 60.0
_FORGOTTEN = 600.0
"""Seconds after which wrong passwords are forgotten."""
_REMEMBERED = 1024


class Patience:
    """The wrong passwords of each client, and the right ones, as far as they are remembered."""

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, float]] = {}
        """How many, and when the last."""
        self._right: dict[bytes, None] = {}
        self._key = os.urandom(32)

    def wait(self, who: str, password: str, now: float, most: int) -> int:
        """Whole seconds until this password of this client's is looked at. `most`: wrong ones without a wait; 0: all.

        `now`: in seconds, by a clock that nobody sets.
        """
        count, last = self._wrong.get(who, (0, now))
        if not most or count < most or self._digest(who, password) in self._right:
            return 0
        until = last + min(_LONGEST, _FIRST * 2.0 ** min(count - most, 10))
        return max(0, math.ceil(until - now))

    def was_wrong(self, who: str, now: float) -> None:
        """A password of this client's was wrong."""
        count, last = self._wrong.pop(who, (0, now))
        self._wrong[who] = (count + 1 if now < last + _FORGOTTEN else 1, now)
        if len(self._wrong) > _REMEMBERED:
            del self._wrong[next(iter(self._wrong))]

    def was_right(self, who: str, password: str) -> None:
        """This password of this client's was right."""
        digest = self._digest(who, password)
        self._right.pop(digest, None)
        self._right[digest] = None
        if len(self._right) > _REMEMBERED:
            del self._right[next(iter(self._right))]

    def _digest(self, who: str, password: str) -> bytes:
        """What stands for both: passwords themselves are not kept."""
        text = f"{who}\n{password}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, key=self._key, digest_size=16).digest()
