"""Lines for a reader who may be slow, or gone: who writes never waits for it."""

import errno
import os
import queue
import threading
from collections.abc import Iterator

from .report import warn

_MOST = 8 * 1024 * 1024
"""Characters that may wait for the reader; what is more is dropped, and counted."""


class Lines:
    """Writes lines to a descriptor, by a thread of its own, each as a whole."""

    def __init__(self, descriptor: int, longest: int, most: int = _MOST) -> None:
        """`longest`: bytes that are written at once, without what others write there coming in between."""
        self._descriptor, self._longest, self._most = descriptor, longest, most
        self._handed: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._taken = 0
        """Characters that were handed over, and that were written: each is changed by one thread only."""
        self._dropped = self._told = 0
        self._is_gone = False
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def write(self, lines: list[str]) -> None:
        """Have these written, without their ends; in time, unless the reader is too slow."""
        if self._waiting - self._taken > self._most:
            self._dropped += len(lines)
            return
        self._waiting += sum(map(len, lines))
        self._handed.put(lines)

    def end(self, patience: float) -> None:
        """Wait until all is written, but no longer than so many seconds."""
        self._handed.put(None)
        self._thread.join(patience)

    def _run(self) -> None:
        while (lines := self._handed.get()) is not None:
            for data in _portions(lines, self._longest):
                self._write(data)
            self._taken += sum(map(len, lines))
            if self._told < self._dropped and not self._is_gone:
                more, self._told = self._dropped - self._told, self._dropped
                warn(f"{more} lines of the log were dropped, as its reader is too slow")

    def _write(self, data: bytes) -> None:
        try:
            while data and not self._is_gone:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self._is_gone = error.errno == errno.EPIPE  # else there may be room again later


def _portions(lines: list[str], longest: int) -> Iterator[bytes]:
    """The lines, in ASCII, as bytes, as many at once as are written as a whole."""
    first = size = 0
    for number, line in enumerate(lines):
        size += len(line) + 1
        if size > longest and number > first:
            yield "\n".join([*lines[first:number], ""]).encode()
            first, size = number, len(line) + 1
    yield "\n".join([*lines[first:], ""]).encode()
