"""One turn after the other for what is dear: others wait for one of them, and not for all."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy.connection import Client
from mitmproxy.proxy import commands

from ..conduct import fair

_AT_ONCE = 32
"""Requests and handshakes that may begin at one go of the event loop without waiting for their turn."""
_BESIDE_MUCH = 3
"""The same where what others send has taken what there is at one go."""


@dataclass
class Turn(commands.StartHook):
    """Have a layer wait for its turn. No addon has such a hook."""

    name = "jwtproxy_turn"
    client: Client


class _Turns:
    """Those of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[tuple[Callable[[], None], float]] = deque()
        """What is to be called, and what it may take, in seconds."""
        self._spent: list[float] = []
        """What each turn has taken at this go, in seconds."""
        self._begun: list[Client] = []
        """Those of whom a request or a handshake has begun at this go: once for each."""

    def may_begin(self, client: Client, most: int) -> bool:
        if not self._begun:
            self.loop.call_soon(self._begun.clear)
        at_once = _AT_ONCE if sum(self._spent) < fair.GO else _BESIDE_MUCH
        if len(self._begun) >= at_once or self._begun.count(client) >= most:
            return False
        self._begun.append(client)
        return True

    def are_taken(self, took: float) -> bool:
        """Whether others wait, or have taken what there is at this go, with this turn."""
        if not self._spent:
            self.loop.call_soon(self._spent.clear)
        self._spent.append(took)
        return bool(self._waiting) or sum(self._spent) > fair.GO

    def queue(self, begin: Callable[[], None], cost: float) -> None:
        self._waiting.append((begin, cost))
        if len(self._waiting) == 1:
            self.loop.call_soon(self._next)

    def _next(self) -> None:
        left = fair.GO
        while self._waiting and left > 0:
            begin, cost = self._waiting.popleft()
            left -= cost
            self.loop.call_soon(begin)
        if self._waiting:
            self.loop.call_soon(self._next)


def may_begin(client: Client, most: int = 1) -> bool:
    """Whether a request of this client, or its handshake, may begin at once. Else it is to wait for its turn.

    most: how many of one client may, at one go.
    """
    turns = _turns()
    return not turns or turns.may_begin(client, most)


def has_to_wait(took: float) -> bool:
    """Whether somebody whose turn has taken so long, in seconds, has to wait for the next.

    It was dear, or others wait, or they have taken what there is at one go.
    """
    turns = _turns() if took else None
    return bool(turns and turns.are_taken(took)) or fair.is_dear(took)


def queue(begin: Callable[[], None], cost: float = fair.GO) -> None:
    """Have this called when it is its turn. cost: what that may take, in seconds."""
    turns = _turns()
    assert turns
    turns.queue(begin, cost)


async def turn(cost: float = fair.GO) -> None:
    """Wait for one's turn, which may take so many seconds."""
    come = asyncio.Event()
    queue(come.set, cost)
    await come.wait()


_latest: _Turns | None = None


def _turns() -> _Turns | None:
    """Those of the event loop that runs; None without one, where nobody could have to wait."""
    global _latest  # a loop has no attributes
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    if not _latest or _latest.loop is not loop:
        _latest = _Turns(loop)
    return _latest
