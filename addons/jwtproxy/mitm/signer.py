"""What is known of the addon that signs, which may be another script's, or not there at all."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy.version import VERSION

from ..observe import health, pages
from ..observe.metrics import Facts, Key


def published(addons: Any) -> tuple[str, int]:
    """The JWKS of what it signs with, and for how many seconds that may be kept."""
    signing = addons.get("jwtinject")
    published: tuple[str, int] = signing.published if signing else pages.NOTHING_PUBLISHED
    return published


def lacking(addons: Any) -> str:
    """What it lacks to sign a request now, in words; empty if nothing."""
    signing = addons.get("jwtinject")
    if not signing:
        return ""
    if not signing.policy:
        return health.UNUSABLE
    lacking: str = signing.policy.lacking(time.time())
    return lacking


def facts(addons: Any) -> Facts:
    """What metrics tell of it, of mitmproxy, and of Redis."""
    signing, sharing = addons.get("jwtinject"), addons.get("sharing")
    keys = list(_keys(signing.policy)) if signing and signing.policy else ()
    return Facts(keys, VERSION, sharing.is_up if sharing else None)


def tell_reloads(addons: Any, tell: Callable[[bool], None]) -> None:
    """Have this called whenever it takes over what changed files say: with True, or with False where it cannot."""
    if signing := addons.get("jwtinject"):
        signing.on_change = tell


def _keys(policy: Any) -> Iterator[Key]:
    """Those that sign, or will, each once."""
    told: set[Any] = set()
    for maker in policy.decisions.all_makers:
        for key in maker.ring.keys:
            if key.private is not None and key not in told:
                told.add(key)
                yield Key(key.kid, _finite(maker.ring.ready(key)), _finite(key.not_after))


def _finite(at: float) -> float | None:
    return at if math.isfinite(at) else None
