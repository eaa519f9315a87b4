"""One turn after the other for what is dear: others wait for one of them, and not for all."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy.connection import Client
from mitmproxy.proxy import commands

_AT_ONCE = 32
"""Requests and handshakes that may begin at one go of the event loop without waiting for their turn."""

_waiting: deque[Callable[[], None]] = deque()
"""Of this process, which has one event loop."""

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
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return True
    if not _begun:
        loop.call_soon(_begun.clear)
    if len(_begun) >= _AT_ONCE or _begun.count(client) >= most:
        return False
    _begun.append(client)
    return True


def queue(begin: Callable[[], None]) -> None:
    """Have this called when it is its turn: one at each go of the event loop."""
    _waiting.append(begin)
    if len(_waiting) == 1:
        asyncio.get_running_loop().call_soon(_next)


async def turn() -> None:
    """Wait for one's turn."""
    come = asyncio.Event()
    queue(come.set)
    await come.wait()


def _next() -> None:
    begin = _waiting.popleft()
    if _waiting:
        asyncio.get_running_loop().call_soon(_next)
    begin()
