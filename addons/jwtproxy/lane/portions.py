"""How much the event loop reads at a time from a connection of the lane."""

import time
from typing import Any

from ..conduct import fair
from ..mitm import dispatch, turns

_MOST = 256 * 1024
"""Bytes; asyncio's own."""


def begin(transport: Any) -> None:
    """Read little at first."""
    _raw(transport).max_size = fair.FIRST


def end(transport: Any) -> None:
    """Read as mitmproxy does from now on."""
    _raw(transport).max_size = dispatch.READ


def clock(transport: Any, size: int) -> float:
    """When so many bytes are about to be taken, in processor time; 0 where they are too few to keep others waiting."""
    now: int = getattr(transport, "raw", transport).max_size
    return time.thread_time() if fair.is_worth_timing(now, size) else 0.0


def taken(transport: Any, size: int, began: float) -> float:
    """Read more or less the next time, as the bytes have taken longer or shorter since `clock` was asked.

    What they took, in seconds, if the next have to wait for their turn.
    """
    raw, took = _raw(transport), time.thread_time() - began
    raw.max_size = fair.portion(raw.max_size, size, took, _MOST)
    return took if turns.has_to_wait(took) else 0.0


def _raw(transport: Any) -> Any:
    """The transport that reads, where one speaks TLS by it."""
    return getattr(transport, "raw", transport)
