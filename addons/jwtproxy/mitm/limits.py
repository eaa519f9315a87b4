"""Limits on what others may do: what each is, and how often it was reached, whoever counts that."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mitmproxy import ctx
from mitmproxy.options import Options

from ..conduct.malformed import MalformedError
from ..config.options import Option, size, whole

OPTIONS = (
    Option(
        "jwt_max_head",
        "128k",
        size(8 * 1024),
        "guards",
        "Bytes that the line and header fields of a message may have (431, of an answer 502); k and m are understood.",
        limit=True,
    ),
    Option(
        "jwt_max_fields",
        "200",
        whole(10),
        "guards",
        "Header fields that a message may have (431, of an answer 502).",
        limit=True,
    ),
    Option(
        "jwt_max_idle_frames",
        "1000",
        whole(100),
        "guards",
        "HTTP/2 frames that bring nothing (PING, SETTINGS, RST_STREAM, empty DATA, …) that a peer may send at once, "
        "and a tenth of that each second; then its connection is closed.",
        limit=True,
    ),
    Option(
        "jwt_max_body",
        "64m",
        size(64 * 1024),
        "guards",
        "Bytes of a body that is held whole, for something that needs it so (413, of an answer 502).",
        limit=True,
    ),
    Option(
        "jwt_max_bodies",
        "256m",
        size(64 * 1024),
        "guards",
        "Bytes of all bodies that a worker holds whole at a time (503).",
        limit=True,
    ),
)


class Limits(NamedTuple):
    """The values of these options."""

    max_head: int
    max_fields: int
    max_idle_frames: int
    max_body: int
    max_bodies: int


DEFAULT = Limits(*(row.parse(row.default) for row in OPTIONS))
"""Where no addon of ours is."""

_COUNT, _LIMITS, _KEPT_TO = "jwtproxy_reached", "jwtproxy_limits", "jwtproxy_kept_to"


def hang(of: Options, values: Mapping[str, Any]) -> None:
    """Have the limits of the master with these options be the checked values of OPTIONS among these."""
    kept = {name: values[name] for name in Limits._fields}
    vars(of)[_LIMITS] = Limits(**kept)  # past what mitmproxy takes for the setting of an option


def limits_of(of: Options) -> Limits:
    """What the options say."""
    found: Limits = vars(of).get(_LIMITS, DEFAULT)
    return found


def value_of(of: Options, row: Option) -> Any:
    """The checked value of a limit that is looked up where it counts; 0, for none, where no addon of ours is."""
    value = getattr(of, row.name, None)
    return _checked(row, value) if value is not None else 0


@functools.lru_cache(maxsize=16)
def _checked(row: Option, value: str) -> Any:
    return row.check(value)


def check_head(allowed: Limits, size: int, fields: int, *, of_request: bool) -> None:
    """Look at a head of so many bytes, or of more if it is not complete. Raises MalformedError."""
    for name, found, most in (("jwt_max_head", size, allowed.max_head), ("jwt_max_fields", fields, allowed.max_fields)):
        if found > most:
            reached(name)
            raise MalformedError(_TOO_LARGE[name, of_request], 431)  # RFC 6585 §5


_TOO_LARGE = {
    ("jwt_max_head", True): "the request's head is too long",
    ("jwt_max_head", False): "the head of the server's answer is too long",
    ("jwt_max_fields", True): "the request's head has too many fields",
    ("jwt_max_fields", False): "the head of the server's answer has too many fields",
}


def count_with(of: Options, count: Callable[[str], None]) -> None:
    """Have this called with the name of an option whenever what it limits has come to its limit."""
    vars(of)[_COUNT] = count


def reached(name: str) -> None:
    """What this option limits has come to its limit."""
    known = getattr(ctx, "options", None)  # None where no master runs
    if name and isinstance(known, Options) and (count := vars(known).get(_COUNT)):
        count(name)


def keep_to(options: Options, values: Mapping[str, Any]) -> None:
    """Note what is in force of limits whose options leave that open, by the name of each."""
    vars(options)[_KEPT_TO] = {**vars(options).get(_KEPT_TO, {}), **values}


def in_force(options: Options, name: str) -> str:
    """The value of this limit that is in force."""
    return str(vars(options).get(_KEPT_TO, {}).get(name, getattr(options, name, "")))


def told(options: Options, names: Iterable[str], reached: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Each limit that there is: its value that is in force, and how often it was reached."""
    return {name: {"value": in_force(options, name), "reached": reached[name]} for name in names if name in options}
