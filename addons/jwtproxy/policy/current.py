"""The policy in force: read again when a file behind it changes, kept when the new one is broken."""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..conduct.request import Matcher
from ..config.errors import SettingsError, trace
from ..config.watch import Watched
from ..tokens.key_source import KeySource
from ..tokens.keyring import NoKeyError, Reader
from . import judge
from .settings import Settings

PERIOD = 0.5
"""Seconds between two looks at the files. A change counts when a second look finds no further one: within 1 s."""

MARGIN = 3
"""Seconds by which workers may differ in when they notice a new key: one must not sign before the last publishes."""

KEPT = "keeping the previous configuration"

Change = SettingsError | str
"""What to tell of a change: what is wrong with it, or what is now in force."""

logger = logging.getLogger(__name__)


class CurrentPolicy:
    """A policy that follows its files."""

    def __init__(self, settings: Settings, source: KeySource, compile_filter: Callable[[str], Matcher]) -> None:
        """Read everything. Raises SettingsError."""
        self.settings = settings
        self._source, self._compile = source, compile_filter
        self._watched = Watched()
        self._pending: Mapping[Any, Any] = {}
        self._noticed = 0.0
        self._retry_at = math.inf
        """When to try again what was refused as no key may sign yet: seconds since the epoch."""
        self._pseudonym = f"jwtproxy-{secrets.token_hex(4)}"
        self.policy = self._load(None)

    def poll(self) -> Change | None:
        """Look whether a file has changed; if one has, and is no longer being written, take over what it says."""
        changed = self._watched.changed()
        if not changed or changed != self._pending:
            self._pending, self._noticed = changed, time.monotonic()
            return self.reload() if not changed and time.time() >= self._retry_at else None
        # who asks may ask twice in a moment
        return self.reload() if time.monotonic() - self._noticed > PERIOD / 2 else None

    def reload(self) -> Change | None:
        """Take over what the files say now; None where they change meanwhile, as the next look will tell."""
        self._pending, self._retry_at = {}, math.inf
        try:
            self.policy = self._load(self.policy.since)
        except SettingsError as error:
            if isinstance(error, NoKeyError):
                self._retry_at = error.until
            return None if self._watched.changed() else error
        return f"reloaded: {self.policy}"

    def _load(self, known: Mapping[object, float] | None) -> judge.Policy:
        reader = Reader(self.settings.jwks_max_age + MARGIN, known)
        try:
            return judge.load(self.settings, self._source, self._compile, reader, self._pseudonym)
        except SettingsError:
            raise
        except Exception as error:  # no file must end the proxy, whatever it holds, nor be told of
            hint = "check the last change; if it is right, please report this"
            raise SettingsError(f"cannot use keys and rules: {type(error).__name__}", hint) from None
        finally:
            self._watched = reader.watched


async def follow(current: Callable[[], CurrentPolicy | None], tell: Callable[[Change | None], None]) -> None:
    """Take over what changes in the files of the policy that is current, until cancelled; tell of each look."""
    while True:
        await asyncio.sleep(PERIOD)
        try:
            if policy := current():
                tell(policy.poll())
        except Exception as error:  # nobody waits for this task: it would end unnoticed, and with it all changes
            logger.error("jwtproxy: error: cannot check keys and rules for changes\n%s", trace(error))


def announce(change: Change | None) -> None:
    """Log what became of changed files."""
    if isinstance(change, SettingsError):
        logger.error("jwtproxy: error: %s; %s\njwtproxy: hint: %s", change, KEPT, change.hint)
    elif change:
        logger.info("jwtproxy: %s", change)
