"""The keys of one source: which of them signs now, and which are published."""

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import key_source, keys, yaml_nodes
from .errors import SettingsError
from .key_source import Source
from .keys import Key, Wish
from .settings import ALGORITHMS
from .watch import Watched

MANIFEST = "keys.yaml"
"""In a folder of keys, what their files do not say: `not_before`, `not_after`, `kid`, `algorithm` of each."""

_MANIFEST_KEYS = ("not_before", "not_after", "kid", "algorithm")


class Keyring:
    """Keys in the order in which they follow one another.

    Of those whose time it is, the one with the latest `not_before` signs; among those without one, the last by name.
    """

    def __init__(self, found: Iterable[Key], ready: Mapping[object, float] | None = None) -> None:
        self.keys: Sequence[Key] = sorted(found, key=lambda key: key.not_before)
        self._ready = {key: max(key.not_before, (ready or {}).get(_version(key), -math.inf)) for key in self.keys}

    def signing(self, now: float) -> Key:
        """The key that signs at this time (seconds since the epoch). Raises SettingsError where there is none."""
        private = [key for key in self.keys if key.private is not None and now < key.not_after]
        if ready := [key for key in private if self.ready(key) <= now]:
            return ready[-1]
        # Published, but not for long: the oldest goes on. Verifiers know it, if they know any.
        if young := [key for key in private if key.not_before <= now]:
            return young[0]
        raise SettingsError("no key may sign now", self._why())

    def ready(self, key: Key) -> float:
        """When the key may begin to sign: at `not_before`, and when it has been published for long enough."""
        return self._ready[key]

    def _why(self) -> str:
        says = [
            f"{key.place} is "
            + ("public only" if key.private is None else f"for {_when(key.not_before)} to {_when(key.not_after)}")
            for key in self.keys
        ]
        return f"{'; '.join(says)}; add a key, or mend {MANIFEST}"


class Reader:
    """Reads keyrings, and notes what it has read."""

    def __init__(self, delay: float, known: Mapping[object, float] | None = None) -> None:
        """`delay`: seconds that a key is published before it signs. `known`: `since` of the reading before."""
        self._delay, self._known = delay, known
        self.since = dict[object, float]()
        """When each key of a folder was first seen: seconds since the epoch."""
        self.watched = Watched()
        """The files and folders whose change matters, also those that could not be read."""

    def ring(self, source: Source, algorithm: str, kid: str = "") -> Keyring:
        """The keys of a source. Raises SettingsError."""
        if source.secret is not None:
            return Keyring([keys.shared(source.secret, source.name, Wish(algorithm, kid))])
        for name in filter(None, (source.path, source.passphrase_file)):
            self.watched.add(name)
        path = Path(os.path.expanduser(source.path))  # noqa: PTH111  # Path's own raises where there is no home
        wish = Wish(algorithm, kid, source.read_passphrase())
        if os.path.isdir(path) and source.name != key_source.SECRET_FILE:  # noqa: PTH112  # as below
            return self._folder(source, path, wish)
        if source.name == key_source.KEY_DIR:
            reason = "not a folder" if os.path.exists(path) else "no such folder"  # noqa: PTH110  # as below
            raise SettingsError(f"cannot read {_place(source)}: {reason}", "name a folder; JWT_KEY_FILE names one file")
        found = _file(source, wish)
        if all(key.private is None for key in found):
            raise SettingsError(f"{_place(source)} holds only a public key", "name the file of the private key")
        return Keyring(unique(found))

    def _folder(self, source: Source, folder: Path, wish: Wish) -> Keyring:
        if wish.kid:
            raise SettingsError(f"jwt_kid is set, but {source.path!r} is a folder of keys", f"name it in {MANIFEST}")
        try:
            names = sorted(path.name for path in folder.iterdir() if is_key_file(path))
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise SettingsError(f"cannot read {_place(source)}: {reason}", "name a folder this user may read") from None
        if not names:
            hint = f"make one with: jwtproxy-run keys new --out {source.path}/"
            raise SettingsError(f"there is no key in {_place(source)}", hint)
        entries = _manifest(folder, names)
        found = [key for name in names for key in self._listed(folder / name, wish, entries.get(name, {}))]
        return Keyring(unique(found), {_version(key): self.since[_version(key)] + self._delay for key in found})

    def _listed(self, path: Path, wish: Wish, entry: Mapping[str, Any]) -> list[Key]:
        """The keys of one file of a folder, as the manifest wants them."""
        wish = replace(wish, kid=entry.get("kid", ""), algorithm=entry.get("algorithm", wish.algorithm))
        place = repr(str(path))
        found = keys.parse(key_source.read(str(path), place), place, wish)
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
                f"{other.place} and {key.place} give the kid {key.kid!r} to two keys, or to one for two algorithms",
                f"give one of them its own kid, in the JWK or in the folder's {MANIFEST}",
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


def _place(source: Source) -> str:
    return f"{source.name} {source.path!r}"


def _file(source: Source, wish: Wish) -> list[Key]:
    text = key_source.read(source.path, _place(source))
    if source.name == key_source.SECRET_FILE:
        return [keys.shared(keys.decode_hex(text, _place(source)), _place(source), wish)]
    return keys.parse(text, _place(source), wish)


def is_key_file(path: Path) -> bool:
    """Not what editors leave, nor what Kubernetes links to (`..data`), nor our manifest."""
    return not path.name.startswith(".") and not path.name.endswith("~") and path.name != MANIFEST and path.is_file()


def _manifest(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    if not os.path.exists(path):  # noqa: PTH110  # Path's own raises where a folder above may not be looked into
        return {}
    entries = {}
    top = yaml_nodes.read(str(path))
    if not isinstance(top.value, dict):  # said without what it is: somebody may have saved a key under this name
        raise top.error(
            "the file must be a mapping", "of names of key files to not_before, not_after, kid or algorithm"
        )
    for name, node in top.mapping().items():
        if name not in names:
            raise node.error(f"there is no key file {name!r}", f"the folder holds {', '.join(names)}")
        entries[name] = {key: _entry(key, value) for key, value in node.mapping().items()}
        if entries[name].get("not_before", -math.inf) >= entries[name].get("not_after", math.inf):
            raise node.error("not_after is not later than not_before", "swap them")
    return entries


def _entry(name: str, node: yaml_nodes.Node) -> Any:
    if name not in _MANIFEST_KEYS:
        raise node.error(f"unknown key {name!r}", f"use {', '.join(_MANIFEST_KEYS)}")
    if name == "kid":
        return node.text()
    if name == "algorithm":
        if node.text() not in ALGORITHMS:
            raise node.error(f"bad algorithm {node.text()!r}", f"use one of {', '.join(ALGORITHMS)}")
        return node.text()
    try:
        when = datetime.fromisoformat(node.text())
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        if not 0 <= seconds < keys.END_OF_TIME:
            raise ValueError
    except (ValueError, OverflowError):
        raise node.error(f"bad time {node.text()!r}", "write it as 2026-12-31 or 2026-12-31T23:59:00Z") from None
    return seconds


def _when(seconds: float) -> str:
    if math.isinf(seconds):
        return "ever"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
