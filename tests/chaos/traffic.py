"""Honest clients that never stop asking, what becomes of each request, and one client that always leaves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import httpx

from .upstream import LARGE

LIMIT = 10.0
"""Seconds after which a request that has neither been answered nor refused hangs."""
OK, REFUSED, HUNG, TORN = "200", "refused", "hung", "torn"
"""Outcomes, beside other status codes. Torn: half an answer that looks whole."""

_CLIENTS = 3
_PER_CONNECTION = 20
_PAUSE = 0.02
_AFTER_FAILURE = 0.1
_IN_A_ROW = 3

Ask = Callable[[httpx.AsyncClient, str], Awaitable[str]]


async def _small(client: httpx.AsyncClient, url: str) -> str:
    return _outcome(await client.get(f"{url}/small"), 2)


async def _post(client: httpx.AsyncClient, url: str) -> str:
    return _outcome(await client.post(f"{url}/small", content=bytes(3000)), 2)


async def _upload(client: httpx.AsyncClient, url: str) -> str:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(1 << 15)

    return _outcome(await client.post(f"{url}/small", content=pieces()), 2)


async def _download(client: httpx.AsyncClient, url: str) -> str:
    return _outcome(await client.get(f"{url}/large"), LARGE)


_ASKS: tuple[Ask, ...] = (_small, _small, _small, _post, _upload, _download)


def _outcome(answer: httpx.Response, size: int) -> str:
    whole = answer.status_code != httpx.codes.OK or len(answer.content) == size
    return str(answer.status_code) if whole else TORN


@dataclass
class Traffic:
    """The clients: some for each kind of upstream."""

    proxy: str
    """Its URL."""
    trust: ssl.SSLContext
    kinds: Mapping[str, tuple[str, bool]]
    """By name, the URL of an upstream, and whether to ask by HTTP/2."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many requests had which outcome since somebody has last looked."""
    stopping: bool = False
    last_failure: float = 0.0
    """When a request has last ended otherwise than it should."""
    _latest: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    """By kind, when each request began, and its outcome; in the order in which they ended."""

    async def run(self) -> None:
        """Ask until told to stop."""
        self._latest = {kind: [] for kind in self.kinds}
        clients = [self._client(kind) for kind in self.kinds for _ in range(_CLIENTS)]
        await asyncio.gather(self._leave_early(), *clients)

    def well_since(self, moment: float) -> bool:
        """Whether of each kind the last few requests were answered as they should be, and began after this."""
        return all(
            len(found) == _IN_A_ROW and all(began >= moment and outcome == OK for began, outcome in found)
            for found in self._latest.values()
        )

    def take_counts(self) -> Counter[str]:
        """The counts, which begin anew."""
        counts, self.counts = self.counts, Counter()
        return counts

    async def _leave_early(self) -> None:
        """Go away at each stage of a request, politely or not."""
        port, words = int(self.proxy.rpartition(":")[2]), _beginnings(self.kinds["plain"][0], self.kinds["tls"][0])
        while not self.stopping:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                await _begin_and_leave(reader, writer, random.choice(words))
            await asyncio.sleep(_PAUSE)

    async def _client(self, kind: str) -> None:
        url, two = self.kinds[kind]
        while not self.stopping:
            with contextlib.suppress(httpx.HTTPError):  # of an end that does not go well
                async with httpx.AsyncClient(
                    proxy=self.proxy, verify=self.trust, http2=two, trust_env=False, timeout=LIMIT
                ) as client:
                    await self._ask_on(client, kind, url)

    async def _ask_on(self, client: httpx.AsyncClient, kind: str, url: str) -> None:
        for _ in range(_PER_CONNECTION):
            began = time.monotonic()
            outcome = await _ask(client, random.choice(_ASKS), url)  # no secret
            self._note(kind, began, outcome)
            if self.stopping or outcome != OK:
                await asyncio.sleep(_AFTER_FAILURE)
                return
            await asyncio.sleep(_PAUSE)

    def _note(self, kind: str, began: float, outcome: str) -> None:
        self.counts[outcome] += 1
        self._latest[kind] = [*self._latest[kind], (began, outcome)][-_IN_A_ROW:]
        if outcome != OK:
            self.last_failure = time.monotonic()


async def _begin_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> None:
    writer.write(words)
    if random.random() < 0.5:
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(reader.read(1000), 1)
    if random.random() < 0.5:
        writer.close()
        await asyncio.sleep(_PAUSE)
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _beginnings(plain: str, tls: str) -> list[bytes]:
    """Of requests that go no further."""
    get = f"GET {plain}/large HTTP/1.1\r\nHost: {plain[7:]}\r\n\r\n".encode()
    post = f"POST {plain}/small HTTP/1.1\r\nHost: {plain[7:]}\r\nContent-Length: 300000\r\n\r\n".encode()
    connect = f"CONNECT {tls[8:]} HTTP/1.1\r\nHost: {tls[8:]}\r\n\r\n".encode()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    return [b"", get[:30], get, get * 3, post, post + bytes(200_000), connect, connect + hello]


async def _ask(client: httpx.AsyncClient, ask: Ask, url: str) -> str:
    try:
        async with asyncio.timeout(LIMIT):
            return await ask(client, url)
    except (TimeoutError, httpx.TimeoutException):
        return HUNG
    except httpx.ProxyError as error:  # an answer to CONNECT
        return str(error)[:3]
    except (httpx.TransportError, ssl.SSLError, OSError):
        return REFUSED
