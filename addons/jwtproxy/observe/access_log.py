"""What the log says of requests, for programs: one JSON object a line (https://jsonlines.org)."""

import functools
import json
import select
import time

from ..config.options import Option, one_of
from .exchanges import Exchange

OPTIONS = (
    Option(
        "jwt_log_format",
        "text",
        one_of("text", "json"),
        "logs",
        "What is logged of requests, on standard output: text, for people, or json, one object a line.",
    ),
)

LONGEST = select.PIPE_BUF
"""Bytes of a line: so many are written to a pipe as a whole, or not at all, whoever else writes there."""
_LONG = 1600
"""Characters that a path may take of it, as JSON."""
_SHORT = 200
"""The same of each of the others."""

_encode = json.JSONEncoder(separators=(", ", ": ")).encode


def as_json(exchange: Exchange) -> str:
    """The line, in ASCII, without its end. What is too long is cut, which `…` tells."""
    waited = exchange.waited
    told = {
        "time": _time(exchange.began),
        "client": exchange.client or None,
        "method": exchange.method,
        "scheme": exchange.scheme or None,
        "host": exchange.authority,
        "path": exchange.path or None,
        "status": exchange.status,
        "outcome": exchange.outcome.label,
        "reason": exchange.reason or None,
        "duration_ms": round(exchange.duration * 1000, 3),
        "upstream_ms": None if waited is None else round(waited * 1000, 3),
        "bytes_received": exchange.received,
        "bytes_sent": exchange.sent,
        "rule": exchange.rule,
        "kid": exchange.kid,
        "jti": exchange.jti,
        "lane": exchange.lane,
    }
    if exchange.websocket:
        told["websocket"] = True
    line = _encode(told)
    return line if len(line) < LONGEST else _encode({name: _cut(name, value) for name, value in told.items()})


def _cut(name: str, value: object) -> object:
    """A value short enough for a line."""
    if not isinstance(value, str):
        return value
    room, width = _LONG if name == "path" else _SHORT, len(_encode(value)) - 2
    each = 1 if width == len(value) else 12  # as "\\ud83d\\ude00"
    return value if width <= room else f"{value[: room // each]}…"


def _time(epoch: float) -> str:
    """As RFC 3339 has it, in UTC, with milliseconds."""
    milliseconds = int(epoch * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@functools.lru_cache(8)  # many requests begin in one
def _second(epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(epoch))
