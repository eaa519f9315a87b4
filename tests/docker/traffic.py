"""An upstream outside of the containers, and a load to put on them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import ssl
import threading
import time
from types import TracebackType
from typing import Self

CONNECTIONS = 20
LONG = b"x" * 100_000


class Upstream:
    """An HTTP server of this machine. Its answer to anything is the head of the request, as JSON."""

    def __init__(self, host: str, tls: ssl.SSLContext | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            starting = asyncio.start_server(self._serve, host, 0, ssl=tls)
            self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        except BaseException:
            self._end()
            raise
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._end()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            while True:
                line, fields = await _head(reader)
                await reader.readexactly(int(fields.get("content-length", 0)))
                body = json.dumps({"line": line, "headers": fields}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """First line and fields of a message, names in lower case. No name may come twice."""
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    pairs = [field.partition(":")[::2] for field in lines]
    fields = {name.lower(): value.strip() for name, value in pairs}
    assert len(fields) == len(pairs), lines
    return line, fields


def load(proxy: int, url: str, seconds: float, most: float = math.inf) -> int:
    """Send requests for a URL through the proxy on this port of 127.0.0.1, as fast as it takes them; how many.

    For so many seconds, but at most so many requests.
    """

    async def work() -> int:
        until = time.monotonic() + seconds
        clients = (_client(proxy, url, until, most / CONNECTIONS) for _ in range(CONNECTIONS))
        return sum(await asyncio.gather(*clients))

    return asyncio.run(work())


async def _client(proxy: int, url: str, until: float, most: float) -> int:
    """One connection after the other, a hundred requests on each, one in ten of them with a long body."""
    sent = 0
    short = f"GET {url} HTTP/1.1\r\nHost: upstream\r\n\r\n".encode()
    long = f"POST {url} HTTP/1.1\r\nHost: upstream\r\nContent-Length: {len(LONG)}\r\n\r\n".encode() + LONG
    while sent < most and time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
        for number in range(100):
            writer.write(short if number % 10 else long)
            line, fields = await _head(reader)
            body = await reader.readexactly(int(fields["content-length"]))
            assert line.split()[1] == "200", (line, body)
            assert b"x-my-jwt" in body
            sent += 1
            if time.monotonic() > until:
                break
        writer.close()
        await writer.wait_closed()
    return sent
