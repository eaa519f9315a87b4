"""Lines for a reader who may be slow, or gone: who writes never waits for it."""

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Iterator

from .report import WARNING, await_room

_MOST = 8 * 1024 * 1024
"""Characters that may wait for the reader; what is more is dropped, and counted."""
_SLOW = "its reader is too slow"
_STDERR = 2
_PATIENCE = 0.5
"""Seconds that the end waits for who reads stderr."""


class Lines:
    """Writes lines to a descriptor, by a thread of its own, each as a whole."""

    def __init__(self, descriptor: int, longest: int, most: int = _MOST) -> None:
        """`longest`: bytes that are written at once, without what others write there coming in between."""
        self._descriptor, self._longest, self._most = descriptor, longest, most
        self._handed: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._waiting = self._taken = 0
        """Characters that were handed over, and that were taken: each is changed by one thread only."""
        self._given = self._dropped = 0
        """Lines in all, and those of them that were not handed over."""
        self._written = self._failed = self._told = 0
        """Lines that were written, and that could not be; lost ones of which the number was told."""
        self._rest = b""
        """Of a line that has been written in part."""
        self._loses, self._why = False, ""
        """Whether lines are lost, since that was told, and why."""
        self._is_gone = False
        self._warnings: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """By a thread that holds no lock: who does not read the log may be who does not read stderr."""
        self._threads = [threading.Thread(target=run, name="lines", daemon=True) for run in (self._run, self._tell)]
        for thread in self._threads:
            thread.start()

    def write(self, lines: list[str]) -> None:
        """Have these written, without their ends; in time, unless the reader is too slow."""
        if self._is_gone:
            return
        self._given += len(lines)
        if self._waiting - self._taken > self._most:
            self._dropped += len(lines)
            self._lose(_SLOW)
            return
        self._waiting += sum(map(len, lines))
        self._handed.put(lines)

    def end(self, patience: float) -> None:
        """Wait until all is written, but no longer than so many seconds; tell how many lines never were."""
        writes, tells = self._threads
        self._handed.put(None)
        writes.join(patience)
        lost = self._given - self._written - self._told
        if lost > 0 and not self._is_gone:
            self._warnings.put(f"{lost} lines of the log were never written: {self._why or _SLOW}")
        self._warnings.put(None)
        tells.join(_PATIENCE)

    def _run(self) -> None:
        while (lines := self._handed.get()) is not None:
            failed = self._failed
            for data in _portions(lines, self._longest):
                if not self._is_gone:
                    self._write(data)
            self._taken += sum(map(len, lines))
            if self._loses and failed == self._failed and self._waiting - self._taken <= self._most // 2:
                self._recover()

    def _write(self, data: bytes) -> None:
        """Write whole lines, after what is left of one that was begun."""
        data, at = self._rest + data, 0
        begun = bool(self._rest)
        why = ""
        try:
            while at < len(data):
                at += _write_some(self._descriptor, data[at:])
                begun = not data.endswith(b"\n", 0, at)
        except OSError as error:
            self._is_gone = error.errno == errno.EPIPE  # else there may be room again later
            why = (error.strerror or "error").lower()
        self._rest = data[at : data.index(b"\n", at) + 1] if begun else b""
        self._written += data.count(b"\n", 0, at)
        failed = data.count(b"\n", at) - begun
        if failed and not self._is_gone:
            self._failed += failed
            self._lose(why)

    def _lose(self, why: str) -> None:
        """Tell that lines are lost, once until they pass again."""
        if not self._loses:
            self._loses, self._why = True, why
            self._warnings.put(f"lines of the log are dropped: {why}")

    def _recover(self) -> None:
        """Tell how many were lost, unless nobody is there to miss them."""
        if self._is_gone:
            return
        self._loses = False
        lost = self._dropped + self._failed - self._told
        self._told += lost
        self._warnings.put(f"{lost} lines of the log were dropped: {self._why}; they are written again")
        self._why = ""

    def _tell(self) -> None:
        with contextlib.suppress(OSError):
            while (message := self._warnings.get()) is not None:
                data = f"{WARNING}{message}\n".encode()
                while data:
                    data = data[_write_some(_STDERR, data) :]


def _portions(lines: list[str], longest: int) -> Iterator[bytes]:
    """The lines, in ASCII, as bytes, as many at once as are written as a whole."""
    first = size = 0
    for number, line in enumerate(lines):
        size += len(line) + 1
        if size > longest and number > first:
            yield "\n".join([*lines[first:number], ""]).encode()
            first, size = number, len(line) + 1
    yield "\n".join([*lines[first:], ""]).encode()


def _write_some(descriptor: int, data: bytes) -> int:
    """Write the first of these bytes, how many ever; wait until that can be, also where whoever reads has it fail."""
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            await_room(descriptor)
