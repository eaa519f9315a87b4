"""What the policy is made of besides files: the checked values of its options."""

import re
from dataclasses import dataclass
from typing import Any

from ..conduct.access import Access, Network
from ..config import options
from ..config.options import Option, one_of, string, whole_seconds
from ..tokens import algorithms, claims, key_source
from ..tokens.claims import Profile
from . import access

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
# Names that frame, route or connect a message: a token there would break the request, not identify it.
_TAKEN_HEADERS = frozenset(
    "connection content-encoding content-length content-type cookie expect host keep-alive proxy-authenticate "
    "proxy-authorization proxy-connection te trailer transfer-encoding upgrade via".split()
)


def _header(value: str) -> str:
    if not TOKEN.fullmatch(value):
        raise ValueError("use a header name: letters, digits and hyphens")
    if value.lower().replace("_", "-") in _TAKEN_HEADERS:
        raise ValueError("that header has a meaning of its own in HTTP; use another name")
    return value


OPTIONS = (
    *claims.OPTIONS,
    *algorithms.OPTIONS,
    *key_source.OPTIONS,
    *access.OPTIONS,
    Option("jwt_header", "x-my-jwt", _header, "claims", "The request header that carries the token."),
    Option(
        "jwt_rules",
        "",
        string,
        "rules",
        "A YAML file with rules for some requests: other claims, another key, no token, or none.",
    ),
    Option(
        "jwt_host_mismatch",
        "refuse",
        one_of("refuse", "allow"),
        "security",
        "What to do with a request in a CONNECT tunnel whose Host contradicts the tunnel's destination: refuse (421) "
        "or allow.",
    ),
    Option(
        "jwt_via",
        "auto",
        one_of("auto", "on", "off"),
        "messages",
        "Which messages name this proxy in Via: auto (answers, and requests to the next proxy in upstream mode), on or "
        "off.",
    ),
    Option(
        "jwt_trace",
        "off",
        one_of("off", "on"),
        "messages",
        "Whether TRACE requests pass, whose answers repeat the token: off (405) or on.",
    ),
    Option(
        "jwt_jwks_max_age",
        "300",
        whole_seconds(0),
        "keys",
        "Seconds for which verifiers may keep /.well-known/jwks.json; a key that is added to jwt_key_dir signs only "
        "after as long.",
    ),
)


@dataclass(frozen=True)
class Settings:
    """The checked values of the policy's options."""

    user: str
    header: str
    algorithm: str
    key_file: str
    key_dir: str
    kid: str
    issuer: str
    subject: str
    audience: str | tuple[str, ...]
    ttl: int
    """Seconds; 0: tokens do not expire."""
    claims: dict[str, Any]
    typ: str
    rules: str
    host_mismatch: str
    via: str
    trace: str
    jwks_max_age: int
    """Seconds."""
    deny_private: str
    allow_destination: tuple[str, ...]
    allow_port: tuple[range, ...]
    allow_client: tuple[Network, ...]

    @property
    def access(self) -> Access:
        """Who may use the proxy, and where it may go."""
        return access.access(self.deny_private, self.allow_destination, self.allow_port, self.allow_client)

    @property
    def profile(self) -> Profile:
        """What the tokens say that no rule is about. Raises SettingsError."""
        names = "user header issuer subject audience ttl claims typ".split()
        profile = Profile(**{name: getattr(self, name) for name in names})
        profile.check()
        return profile


def parse(values: Any) -> Settings:
    """Check each option, an attribute of `values`. Raises SettingsError naming option, value and way out."""
    return Settings(**options.parse(OPTIONS, values))


def check(name: str, value: str) -> Any:
    """The value of one option, checked; empty means its default. Raises SettingsError."""
    return next(option for option in OPTIONS if option.name == name).check(value)
