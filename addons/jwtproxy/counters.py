"""Count what passes."""

import time
from datetime import UTC, datetime
from typing import Any

from . import __version__


class Counters:
    """How long the proxy has run and how many requests it set out to forward."""

    def __init__(self) -> None:
        self._started = time.time()
        self._clock = time.monotonic()  # uptime must not jump with the wall clock
        self._proxied = 0

    def count(self) -> None:
        """One more request is on its way upstream."""
        self._proxied += 1

    def snapshot(self) -> dict[str, Any]:
        """The members of `/status`."""
        return {
            "uptime_seconds": round(time.monotonic() - self._clock, 3),
            "proxied_requests": self._proxied,
            "started_at": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="milliseconds"),
            "version": __version__,
        }
