"""Tell other machines what has passed here, and know what has passed there: by Redis, beside all that passes.

Nothing waits for it: whoever asks is told what was known last. Where Redis is away, it is tried again, less and less
often; all else goes on.
"""

import asyncio
import contextlib
import logging
import mmap
import os
import random
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..config import files
from ..config.errors import SettingsError
from ..stores.redis import LIFETIME, WRITE_AS, Address, Redis, reason_of, write_last
from . import instances
from .counters import Counters
from .instances import Instance, Known

URL = "JWT_REDIS_URL"
URL_FILE = "JWT_REDIS_URL_FILE"

PAUSE = 1.0
"""Seconds from one exchange to the next."""
_FIRST = 0.05, 0.25
"""The same from the start to the first: not at the same moment in all workers."""
_PATIENCE = 3.0
"""Seconds for one exchange."""
_AGAIN, _LONGEST = 0.5, 8.0
"""Seconds until the next try where Redis is away: at first, each time twice as many, and at most."""
_FAREWELL = 0.5
"""Seconds that the end may wait for Redis, if it was there a moment ago."""

_UNKNOWN, _UP, _AWAY = range(3)

logger = logging.getLogger(__name__)


def find(*sources: Mapping[str, str]) -> Address | None:
    """Where the first source that says anything says that Redis is. Raises SettingsError."""
    for source in sources:
        url, file = source.get(URL), source.get(URL_FILE)
        if url and file:
            raise SettingsError(f"both {URL} and {URL_FILE} are set", "keep one of the two")
        if url:
            return _address(url, URL)
        if file:
            return _read(file)
    return None


def new_id() -> str:
    """Of this start: the machine's name, for people, and what makes it the only one."""
    name = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname())[:64]
    return f"{name}-{secrets.token_hex(4)}"


class Sharing:
    """mitmproxy addon: keeps others informed, if it was told where. Made before processes are forked."""

    def __init__(self, counters: Counters, address: Address | None = None, *, is_script: bool = False) -> None:
        """`address`: where Redis is; a script, which is alone, goes by the environment."""
        self.id = new_id()
        self._counters, self._address, self._is_script = counters, address, is_script
        self._state = mmap.mmap(-1, 1)
        """What was told last: of all workers, the first that notices a change tells it."""
        self._mine = _UNKNOWN
        self._since = 0.0
        """On the monotonic clock: from when on Redis has been there."""
        self._clock = 0.0
        """How much Redis's clock is ahead of ours, in seconds."""
        self._others: dict[str, Known] = {}
        self._lost: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def load(self, loader: object) -> None:
        """Of a script, find out where. A mistake ends it, as what it raises would only be logged."""
        try:
            self._address = find(os.environ) if self._is_script else self._address
        except SettingsError as error:
            sys.exit(f"jwtproxy: error: {error}\njwtproxy: hint: {error.hint}")

    def running(self) -> None:
        """Begin."""
        if self._address:
            self._task = asyncio.get_running_loop().create_task(self._run(Redis(self._address, _PATIENCE)))

    def done(self) -> None:
        """End; a script, which is alone, says so."""
        if self._task:
            self._task.cancel()
        if self._is_script:
            self.leave()

    def leave(self) -> None:
        """Have others know that all has ended here, and with which totals. Does not wait long, nor where it is away."""
        if self._address and self._state[0] == _UP:
            last = threading.Thread(target=self._say_last, args=(self._address,), daemon=True)
            last.start()
            last.join(_FAREWELL)

    @property
    def is_up(self) -> bool | None:
        """Whether Redis was there when it was asked last; None where nobody asks."""
        return self._mine == _UP if self._address else None

    def members(self) -> dict[str, Any]:
        """What `/status` says of it; nothing where there is no Redis."""
        if not self._address:
            return {}
        redis = "connected" if self._mine == _UP else "away"
        return {"redis": redis, **instances.members(self._own(), self._others)}

    async def _run(self, redis: Redis) -> None:
        pause, again = random.uniform(*_FIRST), _AGAIN  # noqa: S311  # no secret
        try:
            while True:
                await asyncio.sleep(pause)
                try:
                    async with asyncio.timeout(_PATIENCE):
                        await self._exchange(redis)
                except Exception as error:  # whatever it is: nothing else may suffer from it
                    self._note(_AWAY, reason_of(error))
                    await _drop(redis)
                    pause, again = again * random.uniform(0.8, 1.0), min(2 * again, _LONGEST)  # noqa: S311
                else:
                    self._note(_UP)
                    pause, again = PAUSE, _AGAIN
        finally:
            await _drop(redis)

    async def _exchange(self, redis: Redis) -> None:
        """Tell what is known here, and learn what is known there."""
        now, records = await redis.read()
        self._clock = now - time.time()
        told = (Instance.read(name, text) for name, text in records.items() if name != self.id)
        found = [one for one in told if one]
        ours = [self._own(), *instances.missing(self._others, found)]
        asked = {one.id for one in found}
        alive = await redis.write(self.id, {one.id: one.text for one in ours}, self._lost, asked)
        settled = self._mine == _UP and time.monotonic() - self._since > LIFETIME
        known = instances.learn(self._others, found, alive, settled=settled)
        self._others, self._lost = instances.bounded(known)

    def _note(self, state: int, reason: str = "") -> None:
        """Redis is there, or not; who is the first to notice tells it."""
        if state == self._mine:
            return
        self._mine, self._since = state, time.monotonic()
        before, self._state[0] = self._state[0], state
        assert self._address
        if state == _AWAY and before != _AWAY:
            logger.warning("jwtproxy: warning: Redis at %s is away: %s", self._address.shown, reason)
        elif state == _UP and before == _AWAY:
            logger.info("jwtproxy: Redis at %s is back", self._address.shown)

    def _own(self, *, ended: bool = False) -> Instance:
        return Instance.of(self._counters, self.id, time.time() + self._clock, ended=ended)

    def _say_last(self, address: Address) -> None:
        with contextlib.suppress(Exception):  # it was there a moment ago; nobody is left to whom it matters
            write_last(address, self.id, self._own(ended=True).text, _FAREWELL)


async def _drop(redis: Redis) -> None:
    """Give a connection up, whatever state it is in, and do not wait for the other side."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_FAREWELL):
            await redis.drop()


def _address(url: str, name: str) -> Address:
    try:
        return Address.parse(url.strip())
    except ImportError:
        raise SettingsError(
            f"{name} is set, and the package redis is not installed",
            "run: pip install 'jwtproxy[redis]', or pipx inject mitmproxy redis",
        ) from None
    except ValueError as error:
        raise SettingsError(f"bad URL in {name}: {error}", WRITE_AS) from None


def _read(file: str) -> Address:
    if "://" in file:
        raise SettingsError(f"{URL_FILE} holds a URL, not a path", f"write it to a file, or set {URL}")
    try:
        url = files.read(file, f"the file that {URL_FILE} names").decode()
    except UnicodeDecodeError:
        raise SettingsError(f"the file that {URL_FILE} names is not text", WRITE_AS) from None
    if not url.strip():
        raise SettingsError(f"the file that {URL_FILE} names is empty", WRITE_AS)
    return _address(url, f"the file that {URL_FILE} names")
