"""Where processes put what the others may read: each its last rows, which it writes anew from time to time."""

import marshal
import mmap
import struct
import zlib
from collections.abc import Iterable
from typing import Any

from .recent import LARGEST

Row = tuple[Any, ...]

_SLOTS = 64
"""As many processes have a place of their own; of two that share one, the last to write is read."""
_LEAST = 16 * 1024
"""Bytes of a place. There is one for each process's largest rows; what is not used costs no memory."""
_FLAGS = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
"""Nor does it have to be there."""
_HEAD = struct.Struct("QQ")
"""How long it is, and its checksum: nobody waits for a lock, and what is being written is not taken for what it is."""


class Board:
    """Made before the processes are forked. What one has put there outlives it."""

    def __init__(self, rows: int) -> None:
        """`rows`: how many each may put there, shortened as recent requests are."""
        self._room = max(_LEAST, rows * LARGEST)
        self._memory = mmap.mmap(-1, _SLOTS * self._room, flags=_FLAGS)
        self._own = -1

    def use_place(self, process: int) -> None:
        """Write as this process from now on."""
        self._own = process % _SLOTS

    def put(self, rows: Iterable[Row]) -> None:
        """Put these there, in place of what was; the first are left out if there is no room for all."""
        rows = list(rows)
        data = _written(rows)
        while len(data) > self._room - _HEAD.size:
            rows = rows[len(rows) // 4 + 1 :]
            data = _written(rows)
        at = self._own * self._room
        self._memory[at : at + _HEAD.size + len(data)] = _HEAD.pack(len(data), zlib.crc32(data)) + data

    def others(self) -> list[Row]:
        """What all the others have put there."""
        return [row for slot in range(_SLOTS) if slot != self._own for row in self._read(slot)]

    def _read(self, slot: int) -> list[Row]:
        at = slot * self._room
        for _ in range(_TRIES):
            length, checksum = _HEAD.unpack_from(self._memory, at)
            data = self._memory[at + _HEAD.size : at + _HEAD.size + length]
            if zlib.crc32(data) == checksum:
                return list(marshal.loads(data)) if data else []  # noqa: S302  # we have written it ourselves
        return []


_TRIES = 3


def _written(rows: list[Row]) -> bytes:
    """As marshal has it, which is ten times as fast as JSON, but without rows that it has no way to write."""
    try:
        return marshal.dumps(rows)
    except ValueError:  # scripts may put what they like into a flow
        return marshal.dumps([row for row in rows if _can_be_written(row)])


def _can_be_written(row: Row) -> bool:
    try:
        marshal.dumps(row)
    except ValueError:
        return False
    return True
