"""What is known of the addon that signs, which may be another script's, or not there at all."""

import time
from typing import Any

from ..observe import health, pages


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
