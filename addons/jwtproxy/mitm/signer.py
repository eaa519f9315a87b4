"""What is known of the addon that signs, which may be another script's, or not there at all."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy.version import VERSION

from ..config.errors import SettingsError
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
    redis = sharing.is_up if sharing else None
    if not signing or not signing.policy:
        return Facts((), VERSION, (), redis)
    rules = signing.policy.decisions.rules
    return Facts(list(_keys(signing.policy)), VERSION, [rule.name for rule in rules.rules] if rules else (), redis)


def tell_reloads(addons: Any, tell: Callable[[bool], None]) -> None:
    """Have this called whenever it takes over what changed files say: with True, or with False where it cannot."""
    if signing := addons.get("jwtinject"):
        signing.on_change = tell


def _keys(policy: Any) -> Iterator[Key]:
    """Those that sign, or will, each once."""
    told: set[Any] = set()
    rings = [maker.ring for maker in policy.decisions.all_makers]
    signing = {_signing(ring) for ring in rings}
    for ring in rings:
        for key in ring.keys:
            if key.private is not None and key not in told:
                told.add(key)
                times = _finite(ring.ready(key)), _finite(key.not_after)
                yield Key(key.kid, *times, key.algorithm, key in signing)


def _signing(ring: Any) -> Any:
    """The key of a ring that signs now, if one may."""
    try:
        return ring.signing(time.time())
    except SettingsError:
        return None


def _finite(at: float) -> float | None:
    return at if math.isfinite(at) else None
