"""A folder of keys, and what its manifest says of them."""

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import yaml
from ..config.errors import SettingsError
from .algorithms import ALGORITHMS
from .keys import END_OF_TIME

MANIFEST = "keys.yaml"
"""In a folder of keys, what their files do not say: `not_before`, `not_after`, `kid`, `algorithm` of each."""

_MANIFEST_KEYS = ("not_before", "not_after", "kid", "algorithm")


def entries(folder: Path, place: str) -> dict[str, dict[str, Any]]:
    """What the manifest says of each key file, by name and in their order. Raises SettingsError."""
    try:
        names = sorted(path.name for path in folder.iterdir() if is_key_file(path))
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise SettingsError(f"cannot read {place}: {reason}", "name a folder this user may read") from None
    if not names:
        raise SettingsError(f"there is no key in {place}", f"make one with: jwtproxy-run keys new --out {folder}/")
    said = _manifest(folder, names)
    return {name: said.get(name, {}) for name in names}


def is_key_file(path: Path) -> bool:
    """Not what editors leave, nor what Kubernetes links to (`..data`), nor our manifest."""
    return not path.name.startswith(".") and not path.name.endswith("~") and path.name != MANIFEST and path.is_file()


def _manifest(folder: Path, names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    path = folder / MANIFEST
    if not os.path.exists(path):  # noqa: PTH110  # Path's own raises where a folder above may not be looked into
        return {}
    said = {}
    top = yaml.read(str(path))
    if not isinstance(top.value, dict):  # said without what it is: somebody may have saved a key under this name
        raise top.error(
            "the file must be a mapping", "of names of key files to not_before, not_after, kid or algorithm"
        )
    for name, node in top.mapping().items():
        if name not in names:
            raise node.error(f"there is no key file {name!r}", f"the folder holds {', '.join(names)}")
        said[name] = {key: _entry(key, value) for key, value in node.mapping().items()}
        if said[name].get("not_before", -math.inf) >= said[name].get("not_after", math.inf):
            raise node.error("not_after is not later than not_before", "swap them")
    return said


def _entry(name: str, node: yaml.Node) -> Any:
    if name not in _MANIFEST_KEYS:
        raise node.error(f"unknown key {name!r}", f"use {', '.join(_MANIFEST_KEYS)}")
    if name == "kid":
        return node.text()
    if name == "algorithm":
        if node.text() not in ALGORITHMS:
            raise node.error(f"bad algorithm {node.text()!r}", f"use one of {', '.join(ALGORITHMS)}")
        return node.text()
    return _time(node)


def _time(node: yaml.Node) -> float:
    """Seconds since the epoch."""
    try:
        when = datetime.fromisoformat(node.text())
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        if not 0 <= seconds < END_OF_TIME:
            raise ValueError
    except (ValueError, OverflowError):
        raise node.error(f"bad time {node.text()!r}", "write it as 2026-12-31 or 2026-12-31T23:59:00Z") from None
    return seconds
