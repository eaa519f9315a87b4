"""The options users set, their variables, and what is wrong with a bad value."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class SettingsError(ValueError):
    """A setting that cannot be used; `hint` names the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


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
    Option("jwt_algorithm", "HS512", "How tokens are signed: HS256, HS384 or HS512."),
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

# RFC 2104 takes any key; RFC 7518 §3.2 wants one at least as long as the hash.
KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
PAGES = ("auto", "on", "off")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
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


def defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """What each option is before anyone sets it: its variable's value, or our default where that is unset or empty."""
    return {option.name: environ.get(option.variable) or option.default for option in OPTIONS}


def parse(values: Mapping[str, Any]) -> Settings:
    """Check one value per option; empty means the default. Raises SettingsError naming option, value and way out."""
    parsed = {}
    for option in OPTIONS:
        value = values[option.name] or option.default
        parsed[option.name.removeprefix("jwt_")] = _PARSERS[option.name](option, value)
    return Settings(**parsed)


def parse_pages(value: str) -> str:
    """Check the value of jwt_pages alone. Raises SettingsError."""
    option = next(option for option in OPTIONS if option.name == "jwt_pages")
    pages: str = _PARSERS[option.name](option, value or option.default)
    return pages


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


def _header(option: Option, value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise _bad(option, value, "use a header name: letters, digits and hyphens")
    if value.lower().replace("_", "-") in _TAKEN_HEADERS:
        raise _bad(option, value, "that header has a meaning of its own in HTTP; use another name")
    return value


_PARSERS: dict[str, Callable[[Option, str], Any]] = {
    "jwt_user": _text,
    "jwt_header": _header,
    "jwt_algorithm": _one_of(*KEY_BYTES),
    "jwt_pages": _one_of(*PAGES),
    "jwt_connect_timeout": _seconds,
    "jwt_response_timeout": _seconds,
}
