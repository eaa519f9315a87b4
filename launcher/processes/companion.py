"""A process beside ours that ends when we do, however that comes: it sees the end of a pair of sockets."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Self

_PATIENCE = 5.0
_LOOK = 0.02
"""Seconds."""


class Companion:
    """A process that was forked. Its outputs are our standard error, and no signal of our terminal reaches it."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid, self._line = pid, line
        self.status: int | None = None
        """How it has ended, as waitpid says, once that is known."""

    @classmethod
    def fork(cls, work: Callable[[socket.socket], int]) -> Self:
        """Do this there; its status is the exit status. The socket given to it is at its end when we leave."""
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := os.fork():
            theirs.close()
            return cls(pid, ours)
        status = 1
        try:
            ours.close()
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            status = work(theirs)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(status)  # what is registered for the end is ours to do

    def read_line(self, timeout: float) -> str:
        """What it says next; incomplete if it has ended, or says nothing for so many seconds."""
        self._line.settimeout(timeout)
        said = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while not said.endswith(b"\n") and (got := self._line.recv(1)):
                said += got
        return said.decode()

    def dismiss(self) -> str:
        """Have it end, surely; the last line that it has said."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)
        last = ""
        while line := self.read_line(_PATIENCE):
            last = line
        self._line.close()
        deadline = time.monotonic() + _PATIENCE
        while not self.has_ended():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(_LOOK)
        return last

    def has_ended(self) -> bool:
        """Whether it is over."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is not None
