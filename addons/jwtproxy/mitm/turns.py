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

_waiting: deque[tuple[Callable[[], None], float]] = deque()
"""Of this process, which has one event loop: what is to be called, and what it may take, in seconds."""

_spent: list[float] = []
"""What each turn has taken at this go, in seconds."""

_begun: list[Client] = []
"""Those of whom one has, at this go: once for each."""


@dataclass
class Turn(commands.StartHook):
    """Have a layer wait for its turn. No addon has such a hook."""

    name = "jwtproxy_turn"
    client: Client


def may_begin(client: Client, most: int = 1) -> bool:
    """Whether a request of this client, or its handshake, may begin at once. Else it is to wait for its turn.

    most: how many of one client may, at one go.
    """
    if not _begun and not _at_the_next_go(_begun.clear):
        return True
    if len(_begun) >= _AT_ONCE or _begun.count(client) >= most:
        return False
    _begun.append(client)
    return True


def has_to_wait(took: float) -> bool:
    """Whether somebody whose turn has taken so long, in seconds, has to wait for the next.

    It was dear, or others wait, or they have taken what there is at one go.
    """
    if not took:
        return False
    if not _spent and not _at_the_next_go(_spent.clear):
        return fair.is_dear(took)
    _spent.append(took)
    return fair.is_dear(took) or bool(_waiting) or sum(_spent) > fair.GO


def queue(begin: Callable[[], None], cost: float = fair.GO) -> None:
    """Have this called when it is its turn. cost: what that may take, in seconds."""
    _waiting.append((begin, cost))
    if len(_waiting) == 1:
        asyncio.get_running_loop().call_soon(_next)


async def turn(cost: float = fair.GO) -> None:
    """Wait for one's turn, which may take so many seconds."""
    come = asyncio.Event()
    queue(come.set, cost)
    await come.wait()


def _next() -> None:
    loop, left = asyncio.get_running_loop(), fair.GO
    while _waiting and left > 0:
        begin, cost = _waiting.popleft()
        left -= cost
        loop.call_soon(begin)
    if _waiting:
        loop.call_soon(_next)


def _at_the_next_go(callback: Callable[[], None]) -> bool:
    """Have this called then; false if there is no event loop, and so nobody who could have to wait."""
    try:
        asyncio.get_running_loop().call_soon(callback)
    except RuntimeError:
        return False
    return True
