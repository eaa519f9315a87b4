"""What a token says."""

import functools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

from ..config.errors import SettingsError
from ..config.options import Option, string, whole_seconds

ORIGIN = "origin"
"""The audience that stands for scheme://host[:port] of the request's destination (RFC 6454 §6.2)."""
SKEW = 60
"""Seconds by which `nbf` lies before the request, for verifiers whose clock is behind (RFC 7519 §4.1.5)."""

_DAY = 86_400
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+/-]+", re.ASCII)  # RFC 7515 §4.1.9, RFC 6838 §4.2
_OURS = ("iat", "jti", "payload", "nbf", "exp")
_OPTIONS = {"iss": "jwt_issuer", "sub": "jwt_subject", "aud": "jwt_audience"}


@dataclass(frozen=True)
class Profile:
    """What the tokens of some requests have in common. Empty, or 0, is left out of the token."""

    user: str | None
    """None: who has asked for the request, by a password for the proxy."""
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
        "jti": os.urandom(16).hex(),
        "payload": {"user": user, "date": _date(int(now) // _DAY)},
    }


def mint(profile: Profile, origin: str, now: float, asker: str = "") -> dict[str, Any]:
    """The claims of a request made at `now` (seconds since the epoch) to this origin (RFC 7519 §4.1)."""
    claims = default_claims(asker if profile.user is None else profile.user, now)
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
            raise SettingsError(f"the claim {name!r} is the proxy's own", "remove it; jwt_user and jwt_ttl shape it")
        if name in ("iss", "sub") and not isinstance(value, str):
            raise SettingsError(f"the claim {name!r} is {value!r}", "use a string (RFC 7519 §4.1)")
        if name == "aud" and not (value and all(isinstance(one, str) for one in _listed(value))):
            raise SettingsError(f"the claim 'aud' is {value!r}", "use a string, or a list of strings (RFC 7519 §4.1.3)")


def _audience(audience: str | tuple[str, ...], origin: str) -> str | list[str]:
    if isinstance(audience, str):
        return origin if audience == ORIGIN else audience
    return [origin if one == ORIGIN else one for one in audience]


def _listed(audience: Any) -> Iterable[Any]:
    return audience if isinstance(audience, (tuple, list)) else (audience,)


@functools.lru_cache(maxsize=2)  # two: requests of the old and the new day interleave at midnight
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY, UTC).date().isoformat()


def _parse_claims(value: str) -> dict[str, Any]:
    if not value:
        return {}
    try:
        members = json.loads(value, parse_constant=_no_json, parse_float=_finite, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"use a JSON object: {error}") from None
    if not isinstance(members, dict):
        raise ValueError('use a JSON object, such as {"scope": "read"}')
    check(members)
    return members


def _parse_audience(value: str) -> str | tuple[str, ...]:
    """One, or several: a JSON list of strings, or values between commas."""
    if value.lstrip().startswith("["):
        try:
            listed = json.loads(value)
        except (ValueError, RecursionError):
            listed = None
        if not listed or not all(isinstance(one, str) and one for one in listed):
            raise ValueError('use a JSON list of strings, such as ["a", "b"], or values between commas')
        return tuple(map(string, listed))
    several = [one.strip() for one in string(value).split(",")]
    if len(several) == 1:
        return value
    if not all(several):
        raise ValueError("write a value before and after each comma")
    return tuple(several)


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_json(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name occurs twice in it")
    return members


def _typ(value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value):
        raise ValueError("use a media type without application/, such as JWT or at+jwt")
    return value


OPTIONS = (
    Option("jwt_user", "username", string, "claims", "The user that each token names, as payload.user."),
    Option("jwt_issuer", "", string, "claims", "The iss of each token."),
    Option("jwt_subject", "", string, "claims", "The sub of each token."),
    Option(
        "jwt_audience",
        "",
        _parse_audience,
        "claims",
        "The aud of each token: one, or several by commas or as a JSON list; origin is scheme://host[:port] of the "
        "request's destination.",
    ),
    Option(
        "jwt_ttl",
        "",
        whole_seconds(1),
        "claims",
        "Seconds until a token expires: adds exp, and nbf a minute before the request.",
    ),
    Option("jwt_claims", "", _parse_claims, "claims", "Further claims for each token, as a JSON object."),
    Option("jwt_typ", "JWT", _typ, "claims", "The typ of each token."),
)
