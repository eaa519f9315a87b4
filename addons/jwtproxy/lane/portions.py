"""How much the event loop reads at a time from a connection of the lane."""

from typing import Any

from ..conduct import fair

_MOST = 256 * 1024
"""Bytes; asyncio's own."""


def begin(transport: Any) -> None:
    """Read little at first."""
    _raw(transport).max_size = fair.FIRST


def taken(transport: Any, size: int, took: float) -> None:
    """Read more or less the next time, as so many bytes have taken so many seconds."""
    raw = _raw(transport)
    raw.max_size = fair.portion(raw.max_size, size, took, _MOST)


def _raw(transport: Any) -> Any:
    """The transport that reads, where one speaks TLS by it."""
    return getattr(transport, "raw", transport)
