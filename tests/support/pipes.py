"""Pipes that nobody reads for a while."""

from __future__ import annotations

import contextlib
import os


def full_pipe() -> tuple[int, int, int]:
    """Both ends, and how many bytes are in it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    return reading, writing, size
