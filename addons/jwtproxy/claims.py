"""What a token says."""

import functools
import secrets
from datetime import UTC, datetime
from typing import Any

_DAY = 86_400


def default_claims(user: str, now: float) -> dict[str, Any]:
    """The contract's three claims for a request made at `now` (seconds since the epoch; RFC 7519 §4.1.6, §4.1.7)."""
    return {
        "iat": int(now),
        "jti": secrets.token_hex(16),
        "payload": {"user": user, "date": _date(int(now) // _DAY)},
    }


@functools.lru_cache(maxsize=2)  # two: requests of the old and the new day interleave at midnight
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY, UTC).date().isoformat()
