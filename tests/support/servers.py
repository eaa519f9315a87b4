"""The end of a server of asyncio: nothing of it is left to the collector, which would complain in another test."""

from __future__ import annotations

import asyncio
import sys

_TURNS = 4
"""Of the loop: accepted, a transport, a task that has begun; or cancelled, closed, gone."""


async def end(server: asyncio.Server) -> None:
    """Close it with all its connections, those in the midst of being accepted too.

    asyncio forgets to close a connection whose server is closed between its acceptance and the making of its transport.
    """
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener)
    await turns()
    server.close()
    if sys.version_info >= (3, 13):
        server.abort_clients()
    await turns()


async def turns() -> None:
    """Give what is being opened or closed the few turns of the loop that it needs."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
