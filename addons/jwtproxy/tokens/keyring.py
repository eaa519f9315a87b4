"""The keys of one source: which of them signs now, and which are published."""

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config.errors import SettingsError
from ..config.watch import Watched
from . import key_folder, key_formats, key_source, keys
from .key_source import KeySource
from .keys import Key, KeyRequest


class NoKeyError(SettingsError):
    """No key may sign now."""

    def __init__(self, hint: str, until: float) -> None:
        super().__init__("no key may sign now", hint)
        self.until = until
        """When one may, if nothing changes: seconds since the epoch."""


class Keyring:
    """Keys in the order in which they follow one another.

    Of those whose time it is, the one with the latest `not_before` signs; among those without one, the last by name.
    """

    def __init__(self, found: Iterable[Key], ready: Mapping[object, float] | None = None) -> None:
        self.keys: Sequence[Key] = sorted(found, key=lambda key: key.not_before)
        self._ready = {key: max(key.not_before, (ready or {}).get(_version(key), -math.inf)) for key in self.keys}

    def signing(self, now: float) -> Key:
        """The key that signs at this time (seconds since the epoch). Raises NoKeyError where there is none."""
        private = [key for key in self.keys if key.private is not None and now < key.not_after]
        if ready := [key for key in private if self.ready(key) <= now]:
            return ready[-1]
        # Published, but not for long: the oldest goes on. Verifiers know it, if they know any.
        if young := [key for key in private if key.not_before <= now]:
            return young[0]
        raise NoKeyError(self._why(), min((key.not_before for key in private), default=math.inf))

    def ready(self, key: Key) -> float:
        """When the key may begin to sign: at `not_before`, and when it has been published for long enough."""
        return self._ready[key]

    def _why(self) -> str:
        says = [
            f"{key.place} is "
            + ("public only" if key.private is None else f"for {_when(key.not_before)} to {_when(key.not_after)}")
            for key in self.keys
        ]
        return f"{'; '.join(says)}; add a key, or fix {key_folder.MANIFEST}"


class Reader:
    """Reads keyrings, and notes what it has read."""

    def __init__(self, delay: float, known: Mapping[object, float] | None = None) -> None:
        """`delay`: seconds that a key is published before it signs. `known`: `since` of the reading before."""
        self._delay, self._known = delay, known
        self.since = dict[object, float]()
        """When each key of a folder was first seen: seconds since the epoch."""
        self.watched = Watched()
        """The files and folders whose change matters, also those that could not be read."""

    def ring(self, source: KeySource, algorithm: str, kid: str = "") -> Keyring:
        """The keys of a source. Raises SettingsError."""
        if source.secret is not None:
            return Keyring([key_formats.shared(source.secret, source.name, KeyRequest(algorithm, kid))])
        for name in filter(None, (source.path, source.passphrase_file)):
            self.watched.add(name)
        path = Path(os.path.expanduser(source.path))  # noqa: PTH111  # Path's own raises where there is no home
        request = KeyRequest(algorithm, kid, source.read_passphrase())
        if os.path.isdir(path) and source.name != key_source.SECRET_FILE:  # noqa: PTH112  # as below
            return self._folder(source, path, request)
        if source.name == key_source.KEY_DIR:
            reason = "not a folder" if os.path.exists(path) else "no such folder"  # noqa: PTH110  # as below
            raise SettingsError(f"cannot read {_place(source)}: {reason}", "name a folder; JWT_KEY_FILE names one file")
        found = _file(source, request)
        if all(key.private is None for key in found):
            raise SettingsError(f"{_place(source)} holds only a public key", "name the file of the private key")
        return Keyring(unique(found))

    def _folder(self, source: KeySource, folder: Path, request: KeyRequest) -> Keyring:
        if request.kid:
            hint = f"name it in {key_folder.MANIFEST}"
            raise SettingsError(f"jwt_kid is set, but {source.path!r} is a folder of keys", hint)
        entries = key_folder.entries(folder, _place(source))
        found = [key for name, entry in entries.items() for key in self._listed(folder / name, request, entry)]
        return Keyring(unique(found), {_version(key): self.since[_version(key)] + self._delay for key in found})

    def _listed(self, path: Path, request: KeyRequest, entry: Mapping[str, Any]) -> list[Key]:
        """The keys of one file of a folder, as the manifest wants them."""
        request = replace(request, kid=entry.get("kid", ""), algorithm=entry.get("algorithm", request.algorithm))
        place = repr(str(path))
        found = key_formats.parse(key_source.read(str(path), place), place, request)
        for key in found:
            now = time.time()
            first = min(path.stat().st_mtime, now) if self._known is None else now
            self.since[_version(key)] = (self._known or {}).get(_version(key), first)
        times = {name: entry[name] for name in ("not_before", "not_after") if name in entry}
        return [replace(key, **times) for key in found]


def unique(found: Iterable[Key]) -> list[Key]:
    """Each key once, the private one of a pair. Raises SettingsError where a kid means two things."""
    kept: dict[str, Key] = {}
    for key in found:
        other = kept.setdefault(_name(key), key)
        if _identity(other) != _identity(key):
            raise SettingsError(
                f"{other.place} and {key.place} give the kid {key.kid!r} to two keys, or one key two algorithms",
                f"give one of them its own kid, in the JWK or in the folder's {key_folder.MANIFEST}",
            )
        if other.private is None:
            kept[_name(key)] = key
    return list(kept.values())


def _name(key: Key) -> str:
    return key.kid or key.place


def _version(key: Key) -> object:
    """What tells a key from another that is given its kid later."""
    return (key.kid, keys.thumbprint(key.public)) if key.public else key.place


def _identity(key: Key) -> object:
    return (keys.thumbprint(key.public), key.algorithm) if key.public else key.private


def _place(source: KeySource) -> str:
    return f"{source.name} {source.path!r}"


def _file(source: KeySource, request: KeyRequest) -> list[Key]:
    text = key_source.read(source.path, _place(source))
    if source.name == key_source.SECRET_FILE:
        secret = key_formats.decode_hex(text, _place(source))
        return [key_formats.shared(secret, _place(source), request)]
    return key_formats.parse(text, _place(source), request)


def _when(seconds: float) -> str:
    if math.isinf(seconds):
        return "ever"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
