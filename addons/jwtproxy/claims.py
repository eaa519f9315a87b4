"""What a token says."""

import functools
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .errors import SettingsError

ORIGIN = "origin"
"""The audience that stands for scheme://host[:port] of the request's destination (RFC 6454 §6.2)."""
SKEW = 60
"""Seconds by which `nbf` lies before the request, for verifiers whose clock is behind (RFC 7519 §4.1.5)."""

_DAY = 86_400
_OURS = ("iat", "jti", "payload", "nbf", "exp")
_OPTIONS = {"iss": "jwt_issuer", "sub": "jwt_subject", "aud": "jwt_audience"}


@dataclass(frozen=True)
class Profile:
    """What the tokens of some requests have in common. Empty, or 0, is left out of the token."""

    user: str
    header: str = "x-my-jwt"
    issuer: str = ""
    subject: str = ""
    audience: str | tuple[str, ...] = ""
    ttl: int = 0
    """Seconds."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    typ: str = "JWT"

    def check(self) -> None:
        """Refuse a claim that is set in two ways. Raises SettingsError."""
        for name, value in (("iss", self.issuer), ("sub", self.subject), ("aud", self.audience)):
            if value and name in self.claims:
                raise SettingsError(f"the claim {name!r} is set twice", f"set {_OPTIONS[name]}, or the claim, not both")

    @property
    def wants_origin(self) -> bool:
        """Whether the token names the request's destination."""
        return ORIGIN in _listed(self.audience)


def default_claims(user: str, now: float) -> dict[str, Any]:
    """The contract's three claims for a request made at `now` (seconds since the epoch; RFC 7519 §4.1.6, §4.1.7)."""
    return {
        "iat": int(now),
        "jti": secrets.token_hex(16),
        "payload": {"user": user, "date": _date(int(now) // _DAY)},
    }


def mint(profile: Profile, origin: str, now: float) -> dict[str, Any]:
    """The claims of a request made at `now` (seconds since the epoch) to this origin (RFC 7519 §4.1)."""
    claims = default_claims(profile.user, now)
    if profile.issuer:
        claims["iss"] = profile.issuer
    if profile.subject:
        claims["sub"] = profile.subject
    if profile.audience:
        claims["aud"] = _audience(profile.audience, origin)
    if profile.ttl:
        claims["nbf"] = claims["iat"] - SKEW
        claims["exp"] = claims["iat"] + profile.ttl
    claims.update(profile.claims)
    return claims


def check(members: Mapping[str, Any]) -> None:
    """Refuse further claims that are the proxy's to set, or of a wrong type (RFC 7519 §4.1). Raises SettingsError."""
    for name, value in members.items():
        if name in _OURS:
            raise SettingsError(f"the claim {name!r} is the proxy's own", "take it out; jwt_user and jwt_ttl shape it")
        if name in ("iss", "sub") and not isinstance(value, str):
            raise SettingsError(f"the claim {name!r} is {value!r}", "use a text (RFC 7519 §4.1)")
        if name == "aud" and not (value and all(isinstance(one, str) for one in _listed(value))):
            raise SettingsError(f"the claim 'aud' is {value!r}", "use a text, or a list of texts (RFC 7519 §4.1.3)")


def _audience(audience: str | tuple[str, ...], origin: str) -> str | list[str]:
    if isinstance(audience, str):
        return origin if audience == ORIGIN else audience
    return [origin if one == ORIGIN else one for one in audience]


def _listed(audience: Any) -> Iterable[Any]:
    return audience if isinstance(audience, (tuple, list)) else (audience,)


@functools.lru_cache(maxsize=2)  # two: requests of the old and the new day interleave at midnight
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY, UTC).date().isoformat()
