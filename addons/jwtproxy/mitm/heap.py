"""Give memory back to the system that glibc keeps after many large buffers were in use, as after an attack."""

import asyncio
import ctypes
import sys
from typing import Any

_LOOK = 2.0
"""Seconds between two looks."""
_MUCH = 8 * 1024 * 1024
"""Bytes whose return is worth milliseconds."""


class _Figures(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>."""

    _fields_ = (
        *((f"other_{place}", ctypes.c_size_t) for place in range(8)),
        ("unused", ctypes.c_size_t),
        ("other_9", ctypes.c_size_t),
    )


class Heap:
    """mitmproxy addon: look now and then how much there is that nobody uses. Where there is no glibc, do nothing."""

    def __init__(self, libc: Any = None) -> None:
        self._libc = libc or _glibc()
        self._given_back = 0
        """Bytes that are unused, and no longer in memory."""
        self._timer: asyncio.TimerHandle | None = None

    def running(self) -> None:
        """Begin."""
        if self._libc:
            self._look()

    def done(self) -> None:
        """End."""
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        unused = self._libc.mallinfo2().unused
        if unused > self._given_back + _MUCH:
            self._libc.malloc_trim(0)
            self._given_back = unused
        self._given_back = min(self._given_back, unused)
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)


def _glibc() -> Any:
    """What there is of it; None on another system, or with another library."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Figures
    return libc
