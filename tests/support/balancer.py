"""A balancer as small as can be: it sends each connection to one of the proxies whose /readyz says ok."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

PERIOD = 0.1
"""Seconds between two probes of a proxy."""
_ASKS = b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"


class Balancer:
    """In a thread of its own; a context manager."""

    def __init__(self) -> None:
        self.backends: tuple[int, ...] = ()
        """The ports of proxies; may be set at any time."""
        self.ready: tuple[int, ...] = ()
        """Those that were ready when they were asked last."""
        self.port = 0
        self._turns: Iterator[int] = itertools.count()
        self._stop: Callable[[], object] = lambda: None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Balancer:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()
        self._thread.join(10)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task
        self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            while True:
                self.ready = tuple([port for port in self.backends if await _is_ready(port)])
                await asyncio.sleep(PERIOD)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ready = self.ready
        with contextlib.closing(writer):
            port = ready[next(self._turns) % len(ready)]
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(far_writer):
                ways = [asyncio.ensure_future(_copy(*way)) for way in ((reader, far_writer), (far_reader, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()


async def _copy(source: Any, sink: Any) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            writer.write(_ASKS)
            return (await asyncio.wait_for(reader.readline(), 5)).split()[1:2] == [b"200"]
    except OSError:
        return False
