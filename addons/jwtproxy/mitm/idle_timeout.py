"""Give up on a client connection on which nothing happens, by a clock that nobody can set."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from mitmproxy.proxy import server


class Watchdog(server.TimeoutWatchdog):
    """mitmproxy's, which goes by the time of day: set back, it never ends a connection; set forward, it ends them all.

    It looks once more after a hook that kept it from looking has ended: the client was not idle meanwhile.
    """

    def __init__(self, timeout: int, callback: Callable[[], Awaitable[None]]) -> None:
        """`timeout`: in seconds. `callback`: ends the connection."""
        super().__init__(timeout, callback)
        self.register_activity()

    def register_activity(self) -> None:
        """Something happens."""
        self.last_activity = time.monotonic()

    async def watch(self) -> None:
        """Wait until nothing has happened for as long as may be, or until cancelled."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await self.can_timeout.wait()
                left = self.last_activity + self.timeout - time.monotonic()
                if left <= 0:
                    await self.callback()
                    return
                await asyncio.sleep(left)
