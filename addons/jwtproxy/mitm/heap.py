"""Give memory back to the system that is kept after many large buffers were in use, as after an attack.

Connections that have ended wait for the collector, which comes when more is made: after a burst that may be never.
"""

import asyncio
import ctypes
import gc
import sys
import time
from typing import Any

_LOOK = 2.0
"""Seconds between two looks."""
_MUCH = 2 * 1024 * 1024
"""Bytes whose return is worth milliseconds."""
_FEW = 2
"""Collections of what is young between two looks, up to which little happens."""
_SHARE = 0.01
"""Of the time that collecting may take."""


class _Figures(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>."""

    _fields_ = (
        *((f"other_{place}", ctypes.c_size_t) for place in range(8)),
        ("unused", ctypes.c_size_t),
        ("other_9", ctypes.c_size_t),
    )


class Heap:
    """mitmproxy addon: look now and then how much there is that nobody uses."""

    def __init__(self, libc: Any = None) -> None:
        self._libc = libc or _glibc()
        self._given_back = 0
        """Bytes that are unused, and no longer in memory."""
        self._young = self._older = 0
        """Collections, at the last look, and when all was collected."""
        self._rests_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def running(self) -> None:
        """Begin: what there is stays, so that the collector need not look at it, for a tenth of a second each time."""
        gc.freeze()
        self._young, self._older = _collections()
        self._look()

    def done(self) -> None:
        """End."""
        gc.unfreeze()
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        self._collect()
        if self._libc:
            self._trim()
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _collect(self) -> None:
        """Collect all once it is quiet again after much has happened."""
        young, older = _collections()
        is_quiet, self._young = young <= self._young + _FEW, young
        began = time.monotonic()
        if is_quiet and older != self._older and began >= self._rests_until:
            gc.collect()
            self._older = older
            self._rests_until = began + (time.monotonic() - began) / _SHARE

    def _trim(self) -> None:
        unused = self._libc.mallinfo2().unused
        if unused > self._given_back + _MUCH:
            self._libc.malloc_trim(0)
            self._given_back = unused
        self._given_back = min(self._given_back, unused)


def _collections() -> tuple[int, int]:
    """How often the collector has looked at what is young, and at what is older."""
    young, older = (kind["collections"] for kind in gc.get_stats()[:2])
    return young, older


def _glibc() -> Any:
    """What there is of it; None on another system, or with another library."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Figures
    return libc
