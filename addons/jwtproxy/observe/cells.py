"""Numbers that processes keep together: each writes in a row of its own, any of them adds up all rows.

So nobody waits for a lock, and what a process has counted outlives it.
"""

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from itertools import compress

from ..conduct.verdict import OTHERS

_ROWS = 4096
"""As many processes may have counted before rows are used a second time, which go on from what is there."""
_WIDTH = 64
"""Bytes of a name."""


def fitting(name: str) -> str:
    """The name as it is kept: of one that is too long, the beginning, and what tells it from others that begin so."""
    encoded = name.encode(errors="replace")
    if len(encoded) <= _WIDTH:
        return encoded.decode()
    end = f"…{hashlib.sha256(encoded).hexdigest()[:8]}"
    return encoded[: _WIDTH - len(end.encode())].decode(errors="ignore") + end


class Cells:
    """Rows of whole numbers, of others, and of names. Made before the processes are forked."""

    def __init__(self, whole: int, real: int = 0, names: int = 0, each: int = 1, processes: int = 1) -> None:
        """How many of each a row has. each: whole numbers more of a name. processes: whether one, or any number."""
        self._first, self._each, self._names, self._real = whole, each, names, real
        self._whole = whole + each * names + 2  # the last: whether it is used, its names
        self._rows = _ROWS if processes > 1 else 1
        sizes = (8 * self._whole * self._rows, 8 * real * self._rows, _WIDTH * names * self._rows)
        self._ints: list[int] | memoryview[int]
        self._floats: list[float] | memoryview[float]
        self._texts: bytearray | memoryview
        if processes > 1:
            view = memoryview(mmap.mmap(-1, sum(sizes)))
            self._ints = view[: sizes[0]].cast("Q")
            self._floats = view[sizes[0] : sizes[0] + sizes[1]].cast("d")
            self._texts = view[sizes[0] + sizes[1] :]
        else:  # lists take a fifth of the time
            self._ints, self._floats, self._texts = [0] * self._whole, [0.0] * real, bytearray(sizes[2])
        self.use_row(0)

    def use_row(self, process: int) -> None:
        """Write in this process's row from now on. Numbers are never given twice at the same time."""
        row = process % self._rows
        self._row, at, at_real = row, row * self._whole, row * self._real
        alone = self._rows == 1
        self.whole = self._ints if alone else self._ints[at : at + self._whole]
        """This row's whole numbers: what is counted for each request is written here."""
        self.real = self._floats if alone else self._floats[at_real : at_real + self._real]
        """The others."""
        self.places = {name: self._first + self._each * at for at, name in enumerate(self._names_of(row))}
        """The first cell of each name that has any in this row; `place` is for others too."""

    def place(self, name: str) -> int:
        """The first cell of a name, new or not, in this row; where there is no more room, of OTHERS, the last."""
        try:
            return self.places[name]
        except KeyError:
            return self._learn(name)

    def add(self, cell: int, more: int = 1) -> None:
        """Count."""
        self.whole[cell] += more

    def clear(self, cells: range, process: int | None = None) -> None:
        """Set cells to 0: this process's, or those of another, which has ended."""
        row = self._row if process is None else process % self._rows
        for cell in cells:
            self._ints[row * self._whole + cell] = 0

    def begin(self) -> None:
        """This row is one that counts."""
        self.whole[self._whole - 2] = 1

    def totals(self, cells: range) -> list[int]:
        """The sums of these cells over all rows."""
        rows = [self._ints[at + cells.start : at + cells.stop] for at in self._all_at()]
        return [sum(column) for column in zip(*rows, strict=True)] if len(rows) != 1 else list(rows[0])

    def real_total(self, cell: int) -> float:
        """The sum of one over all rows."""
        return sum(self._floats[row * self._real + cell] for row in self._used())

    def by_row(self, cell: int) -> dict[int, int]:
        """What each process that has counted has in a cell."""
        return {row: self._ints[row * self._whole + cell] for row in self._used()}

    def by_name(self) -> dict[str, list[int]]:
        """Those that belong to names, added up."""
        found: dict[str, list[int]] = {}
        for row in self._used():
            for number, name in enumerate(self._names_of(row)):
                at = row * self._whole + self._first + self._each * number
                own: Sequence[int] = self._ints[at : at + self._each]
                before = found.get(name)
                found[name] = [*own] if before is None else [a + b for a, b in zip(before, own, strict=True)]
        return found

    def _learn(self, name: str) -> int:
        if (kept := fitting(name)) != name:
            self.places[name] = place = self.place(kept)
            return place
        count = self.whole[self._whole - 1]
        if count == self._names:
            return self._first + self._each * (count - 1)
        if count == self._names - 1 and name != OTHERS:
            return self.place(OTHERS)
        at = (self._row * self._names + count) * _WIDTH
        self._texts[at : at + _WIDTH] = name.encode().ljust(_WIDTH, b"\0")
        self.whole[self._whole - 1] = count + 1
        self.places[name] = place = self._first + self._each * count
        return place

    def _names_of(self, row: int) -> Iterator[str]:
        for number in range(self._ints[(row + 1) * self._whole - 1]):
            at = (row * self._names + number) * _WIDTH
            yield bytes(self._texts[at : at + _WIDTH]).rstrip(b"\0").decode(errors="replace")

    def _used(self) -> list[int]:
        return [*compress(range(self._rows), self._ints[self._whole - 2 :: self._whole])] or [self._row]

    def _all_at(self) -> Iterator[int]:
        return (row * self._whole for row in self._used())
