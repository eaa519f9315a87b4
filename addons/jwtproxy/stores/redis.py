"""Redis, where each of several machines keeps a record that the others read.

Who still writes its record is told by a key that expires, by Redis's own clock: no two clocks are ever compared.
"""

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import SplitResult, unquote, urlsplit

RECORDS = "jwtproxy:instances"
"""The hash of all records, by the id of who wrote them."""
LIFETIME = 8
"""Seconds without a sign of life after which one is gone."""
WRITE_AS = "write it as redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER], rediss:// for TLS, or unix://PATH"

_PORT = 6379
_CODE = re.compile(r"(?:^|caused error: \W*)([A-Z]{3,16})\b")
"""How errors of Redis begin, also where redis-py tells which command it was."""


class Address(NamedTuple):
    """Where Redis is, and how it lets us in."""

    url: str
    shown: str
    """The same without user, password and options: for people."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address that a URL names. Raises ValueError that repeats nothing of it; ImportError without redis-py."""
        import redis.asyncio

        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("it is not a URL") from None
        address = cls(url, _shown(parts))
        try:
            pool: Any = redis.asyncio.ConnectionPool.from_url(url)
            pool.make_connection()  # which connects to nothing yet
        except Exception:  # of many kinds, some of which repeat what they were told
            raise ValueError("its options cannot be used") from None
        return address

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


class Redis:
    """One connection, made when it is first needed. Whatever fails, it is to be dropped then."""

    def __init__(self, address: Address, patience: float) -> None:
        """`patience`: seconds for one answer."""
        self._address, self._patience = address, patience
        self._client: Any = None

    async def read(self) -> tuple[float, dict[str, str]]:
        """The time by Redis's clock, in seconds since the epoch, and all records."""
        if not self._client:
            import redis.asyncio

            self._client = redis.asyncio.Redis.from_url(self._address.url, **_options(self._patience))
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(RECORDS)
            (seconds, micros), records = await pipe.execute()
        return seconds + micros / 1e6, records

    async def write(self, own: str, records: Mapping[str, str], lost: Iterable[str], asked: Iterable[str]) -> set[str]:
        """Write records, remove others, give a sign of life of our own; which of those asked for have given theirs."""
        asked = [*asked]
        async with self._client.pipeline(transaction=True) as pipe:
            _fill(pipe, records, lost)
            pipe.set(_alive(own), 1, ex=LIFETIME)
            if asked:
                pipe.mget([_alive(one) for one in asked])
            *_, found = await pipe.execute()
        return {one for one, sign in zip(asked, found, strict=True) if sign is not None} if asked else set()

    async def drop(self) -> None:
        """Give the connection up."""
        client, self._client = self._client, None
        if client:
            await client.connection_pool.disconnect(inuse_connections=True)


def write_last(address: Address, own: str, record: str, patience: float) -> None:
    """Leave a record for good, over a connection of its own, and wait for that."""
    import redis

    options = _options(patience) | {"retry": _no_retry(redis.Redis)}
    with redis.Redis.from_url(address.url, **options) as client, client.pipeline(transaction=True) as pipe:
        _fill(pipe, {own: record}, ())
        pipe.delete(_alive(own))
        pipe.execute()


def reason_of(error: BaseException) -> str:
    """Why Redis is away, in words of ours: those of others may repeat what they were told."""
    import redis

    if isinstance(error, redis.AuthenticationError):
        return "it does not accept the user and password"
    if isinstance(error, TimeoutError | redis.TimeoutError):
        return "it does not answer"
    if isinstance(error, redis.ResponseError):
        return f"it says {found[1] if (found := _CODE.search(str(error))) else 'no'}"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):
        return f"TLS has failed: {(getattr(cause, 'reason', None) or 'error').lower().replace('_', ' ')}"
    if isinstance(cause, OSError):
        code = cause.errno or 0  # those of names are negative
        known = os.strerror(code) if code > 0 else cause.strerror
        return (known or "no connection").lower()
    return "it has closed the connection" if isinstance(error, redis.ConnectionError) else type(error).__name__


def _shown(parts: SplitResult) -> str:
    """A URL for people. Raises ValueError for one in which something is missing, or wrong."""
    if parts.fragment or "#" in parts.path:
        raise ValueError("it has a fragment; write # as %23")
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("it names no path")
        return f"unix://{unquote(parts.path)}"
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("it is none of redis://, rediss:// and unix://")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is none; write / in a password as %2F") from None
    if not parts.hostname:
        raise ValueError("it names no host")
    if not re.fullmatch(r"(/[0-9]{0,9})?", parts.path, re.ASCII):
        raise ValueError("its path is not the number of a database")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or _PORT}{parts.path.rstrip('/')}"


def _options(patience: float) -> dict[str, Any]:
    """How we want connections; what the URL says counts first."""
    from redis.asyncio import Redis as Client

    return {
        "decode_responses": True,
        "encoding_errors": "replace",
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "max_connections": 1,
        "retry": _no_retry(Client),
        "protocol": 2,
        "client_name": "jwtproxy",
    }


def _no_retry(client: Any) -> Any:
    """Of the kind that a client wants: who calls us tries again, in time."""
    from redis import asyncio, backoff, retry

    return (asyncio.retry if client is asyncio.Redis else retry).Retry(backoff.NoBackoff(), 0)


def _fill(pipe: Any, records: Mapping[str, str], lost: Iterable[str]) -> None:
    pipe.hset(RECORDS, mapping=dict(records))
    if lost := [*lost]:
        pipe.hdel(RECORDS, *lost)


def _alive(own: str) -> str:
    return f"jwtproxy:alive:{own}"
