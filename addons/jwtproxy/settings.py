"""The options users set, their variables, and what is wrong with a bad value."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from .claims import Profile
from .claims import check as check_claims
from .errors import SettingsError as SettingsError


class Option(NamedTuple):
    """One `jwt_…` option. All are strings to mitmproxy, which drops a script whose `int` option is bad."""

    name: str
    default: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable of this option."""
        return self.name.upper()


OPTIONS = (
    Option("jwt_user", "username", "The user that each token names, as payload.user."),
    Option("jwt_header", "x-my-jwt", "The request header that carries the token."),
    Option(
        "jwt_algorithm",
        "auto",
        "How tokens are signed: HS, RS, PS or ES with 256, 384 or 512, or EdDSA; auto is HS512 for a shared secret, "
        "else what fits the key.",
    ),
    Option("jwt_key_file", "", "A file with the signing key: PEM, JWK, JWKS or a shared secret in hexadecimal."),
    Option("jwt_key_dir", "", "A folder of such files, for rotation; the last by name signs, all are published."),
    Option("jwt_kid", "", "The kid that tokens name their key by; its RFC 7638 thumbprint if empty."),
    Option("jwt_issuer", "", "The iss of each token."),
    Option("jwt_subject", "", "The sub of each token."),
    Option("jwt_audience", "", "The aud of each token; origin is scheme://host[:port] of the request's destination."),
    Option("jwt_ttl", "", "Seconds until a token expires: adds exp, and nbf a minute back."),
    Option("jwt_claims", "", "Further claims for each token, as a JSON object."),
    Option("jwt_typ", "JWT", "The typ of each token."),
    Option("jwt_rules", "", "A YAML file with rules for some requests: other claims, another key, no token, or none."),
    Option(
        "jwt_host_mismatch",
        "refuse",
        "What becomes of a request in a CONNECT tunnel whose Host contradicts the tunnel's destination: refuse (421) "
        "or allow.",
    ),
    Option(
        "jwt_jwks_max_age",
        "300",
        "Seconds for which verifiers may keep /.well-known/jwks.json; a key that is added to jwt_key_dir signs only "
        "after as long.",
    ),
    Option(
        "jwt_pages",
        "auto",
        "Whether the proxy answers its own pages, such as /status: auto (in regular and upstream mode), on or off.",
    ),
    Option(
        "jwt_connect_timeout",
        "10",
        "Seconds an upstream may take to accept a connection before the client gets 502; 0 = no limit.",
    ),
    Option(
        "jwt_response_timeout",
        "300",
        "Seconds an upstream may take from the last byte of a request to its answer's head before the client gets "
        "504; 0 = no limit.",
    ),
)

ALGORITHMS = (*(f"{family}{bits}" for family in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)), "EdDSA")
PAGES = ("auto", "on", "off")

_CENTURY = 100 * 365 * 86_400
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+/-]+", re.ASCII)  # RFC 7515 §4.1.9, RFC 6838 §4.2
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
# Names that frame, route or connect a message: a token there would break the request, not identify it.
_TAKEN_HEADERS = frozenset(
    "connection content-encoding content-length content-type cookie expect host keep-alive proxy-authenticate "
    "proxy-authorization proxy-connection te trailer transfer-encoding upgrade via".split()
)


@dataclass(frozen=True)
class Settings:
    """The checked values of all options. Time-outs in seconds, 0 = none."""

    user: str
    header: str
    algorithm: str
    pages: str
    connect_timeout: float
    response_timeout: float
    key_file: str
    key_dir: str
    kid: str
    issuer: str
    subject: str
    audience: str
    ttl: int
    claims: dict[str, Any]
    typ: str
    rules: str
    host_mismatch: str
    jwks_max_age: int

    @property
    def profile(self) -> Profile:
        """What the tokens say that no rule is about. Raises SettingsError."""
        names = "user header issuer subject audience ttl claims typ".split()
        profile = Profile(**{name: getattr(self, name) for name in names})
        profile.check()
        return profile


def defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """What each option is before anyone sets it: its variable's value, or our default where that is unset or empty."""
    return {option.name: environ.get(option.variable) or option.default for option in OPTIONS}


def parse(values: Mapping[str, Any]) -> Settings:
    """Check one value per option; empty means the default. Raises SettingsError naming option, value and way out."""
    return Settings(**{option.name.removeprefix("jwt_"): check(option.name, values[option.name]) for option in OPTIONS})


def check(name: str, value: str) -> Any:
    """The value of one option, checked; empty means its default. Raises SettingsError."""
    option = next(option for option in OPTIONS if option.name == name)
    return _PARSERS[name](option, value or option.default)


def unknown(names: Mapping[str, Any] | set[str]) -> str | None:
    """The first name that looks like one of ours but is none."""
    known = {option.name for option in OPTIONS}
    return next((name for name in sorted(names) if name.startswith("jwt_") and name not in known), None)


def unknown_error(name: str) -> SettingsError:
    """The error for an option that does not exist."""
    return SettingsError(f"unknown option {name!r}", f"options are {', '.join(option.name for option in OPTIONS)}")


def _bad(option: Option, value: str, wanted: str) -> SettingsError:
    return SettingsError(f"bad value {value!r} for {option.name}", f"{wanted} ({option.name} or {option.variable})")


def _text(option: Option, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(option, value, "use UTF-8") from None
    return value


def _one_of(*choices: str) -> Callable[[Option, str], str]:
    def check(option: Option, value: str) -> str:
        if value not in choices:
            raise _bad(option, value, f"use one of {', '.join(choices)}")
        return value

    return check


def _seconds(option: Option, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise _bad(option, value, "use a number of seconds, 0 for no limit")
    return seconds


def _whole_seconds(least: int) -> Callable[[Option, str], int]:
    def check(option: Option, value: str) -> int:
        if not value:
            return 0
        short = value.isascii() and value.isdigit() and len(value) <= len(str(_CENTURY))
        if not (short and least <= int(value) <= _CENTURY):
            raise _bad(option, value, f"use a whole number of seconds, {least} to {_CENTURY}")
        return int(value)

    return check


def _claims(option: Option, value: str) -> dict[str, Any]:
    if not value:
        return {}
    try:
        members = json.loads(value, parse_constant=_no_json, parse_float=_finite, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _bad(option, value, f"use a JSON object: {error}") from None
    if not isinstance(members, dict):
        raise _bad(option, value, 'use a JSON object, such as {"scope": "read"}')
    try:
        check_claims(members)
    except SettingsError as error:
        raise SettingsError(f"bad value for {option.name}: {error}", error.hint) from None
    return members


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_json(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name stands in it twice")
    return members


def _typ(option: Option, value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value):
        raise _bad(option, value, "use a media type without application/, such as JWT or at+jwt")
    return value


def _header(option: Option, value: str) -> str:
    if not TOKEN.fullmatch(value):
        raise _bad(option, value, "use a header name: letters, digits and hyphens")
    if value.lower().replace("_", "-") in _TAKEN_HEADERS:
        raise _bad(option, value, "that header has a meaning of its own in HTTP; use another name")
    return value


_PARSERS: dict[str, Callable[[Option, str], Any]] = {
    "jwt_user": _text,
    "jwt_header": _header,
    "jwt_algorithm": _one_of("auto", *ALGORITHMS),
    "jwt_pages": _one_of(*PAGES),
    "jwt_connect_timeout": _seconds,
    "jwt_response_timeout": _seconds,
    "jwt_key_file": _text,
    "jwt_key_dir": _text,
    "jwt_kid": _text,
    "jwt_issuer": _text,
    "jwt_subject": _text,
    "jwt_audience": _text,
    "jwt_ttl": _whole_seconds(1),
    "jwt_claims": _claims,
    "jwt_typ": _typ,
    "jwt_rules": _text,
    "jwt_host_mismatch": _one_of("refuse", "allow"),
    "jwt_jwks_max_age": _whole_seconds(0),
}
