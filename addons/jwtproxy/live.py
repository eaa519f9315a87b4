"""The policy in force: read anew when a file behind it changes, kept when the new one is broken."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from . import policy
from .errors import SettingsError
from .key_source import Source
from .keyring import Reader
from .rules import Matcher
from .settings import Settings
from .watch import Watched

PERIOD = 0.5
"""Seconds between two looks at the files. A change counts when a second look finds no further one: within 1 s."""

MARGIN = 3
"""Seconds by which workers may differ in when they notice a new key: one must not sign before the last publishes."""

KEPT = "what was in force stays so"

Report = SettingsError | str
"""What to tell of a change: what is wrong with it, or what is now in force."""


class Live:
    """A policy that follows its files."""

    def __init__(self, settings: Settings, source: Source, compile_filter: Callable[[str], Matcher]) -> None:
        """Read everything. Raises SettingsError."""
        self.settings = settings
        self._source, self._compile = source, compile_filter
        self._watched = Watched()
        self._pending: Mapping[Any, Any] = {}
        self._noticed = 0.0
        self.policy = self._load(None)

    def poll(self) -> Report | None:
        """Look whether a file has changed; if one has, and is no longer being written, take over what it says."""
        changed = self._watched.changed()
        if not changed or changed != self._pending:
            self._pending, self._noticed = changed, time.monotonic()
        elif time.monotonic() - self._noticed > PERIOD / 2:  # who asks may ask twice in a moment
            return self.reload()
        return None

    def reload(self) -> Report | None:
        """Take over what the files say now; None where they change meanwhile, as the next look will tell."""
        self._pending = {}
        try:
            self.policy = self._load(self.policy.since)
        except SettingsError as error:
            return None if self._watched.changed() else error
        return f"reloaded: {self.policy}"

    def _load(self, known: Mapping[object, float] | None) -> policy.Policy:
        reader = Reader(self.settings.jwks_max_age + MARGIN, known)
        try:
            return policy.load(self.settings, self._source, self._compile, reader)
        except SettingsError:
            raise
        except Exception as error:  # no file must end the proxy, whatever it holds, nor be told of
            hint = "mend what was changed last; if all of it is right, please report this"
            raise SettingsError(f"cannot use keys and rules: {type(error).__name__}", hint) from None
        finally:
            self._watched = reader.watched
