"""Give up on an upstream that stays silent: one timer for all requests of a client connection.

A sleeping task for each request would outlive it by minutes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mitmproxy.options import Options
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import RequestWakeup
from mitmproxy.proxy.layer import CommandGenerator

from ..config.options import Option, seconds
from . import limits

_OPTION = Option(
    "jwt_response_timeout",
    "300",
    seconds,
    "failures",
    "Seconds an upstream may take from the last byte of a request to its response's head before the client gets 504; "
    "0 = no limit.",
    limit=True,
)
OPTIONS = (_OPTION,)
NAME = _OPTION.name


def limit(options: Options) -> float:
    """Seconds from the last byte of a request to the head of its answer; 0 = no limit, as where no addon of ours is."""
    return float(limits.value_of(options, _OPTION))


TimeOut = Callable[[float], CommandGenerator[None]]
"""Answer a request whose upstream took longer than this many seconds."""


@dataclass
class Alarm:
    """The timer of one client connection, and who waits for an answer."""

    _waiting: dict[Any, tuple[float, float, TimeOut]] = field(default_factory=dict)
    _wakeup: RequestWakeup | None = None

    def start(self, stream: object, timeout: float, time_out: TimeOut) -> CommandGenerator[bool]:
        """Have this stream wait at most `timeout` seconds; true if it is the one that is woken for all."""
        self._waiting[stream] = (time.monotonic() + timeout, timeout, time_out)
        if self._wakeup:
            return False
        yield self._wake_after(timeout)
        return True

    def stop(self, stream: object) -> None:
        """This stream waits no longer."""
        self._waiting.pop(stream, None)

    def is_mine(self, event: events.Event) -> bool:
        """Whether this is the timer's signal."""
        return isinstance(event, events.Wakeup) and event.command is self._wakeup

    def ring(self) -> CommandGenerator[None]:
        """Time out every stream whose time is up, then sleep until the next one's."""
        while self._waiting:
            stream, (deadline, timeout, time_out) = min(self._waiting.items(), key=lambda waiting: waiting[1][0])
            if (left := deadline - time.monotonic()) > 0:
                yield self._wake_after(left)
                return
            del self._waiting[stream]
            yield from time_out(timeout)
        self._wakeup = None

    def _wake_after(self, seconds: float) -> RequestWakeup:
        self._wakeup = RequestWakeup(seconds)
        return self._wakeup
