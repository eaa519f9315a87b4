"""What the log says of requests, for programs: one JSON object a line (https://jsonlines.org)."""

import functools
import json
import select
import time
from typing import Any

from ..config.options import Option, one_of
from .counters import Outcome
from .exchanges import authority, jti_of, kid_of, lane, public_path, text
from .redaction import redact

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

_OUTCOMES = [outcome.label for outcome in Outcome]
_string = json.encoder.encode_basestring_ascii
_remembered = functools.lru_cache(1024)(_string)
"""What is the same in many lines, and short."""


def as_json(row: tuple[Any, ...]) -> str:
    """The line of a Row, in ASCII, without its end. What is too long is cut, which `…` tells.

    Written by hand, as json takes three times as long for it.
    """
    (
        began, ended, client, method, scheme, host, port, path, _, status,
        outcome, reason, rule, token, waited, received, sent, fast, websocket,
    ) = row  # fmt: skip
    header, _, claims = token.partition(b".")
    jti = jti_of(claims) if claims else None
    return (
        f'{{"time": "{_time(int(began * 1000))}", {_target(client, method, scheme, host, port)}, '
        f'"path": {_usual_path(path) if len(path) <= _SHORT else _path(path)}, '
        f'"status": {status or "null"}, "outcome": "{_OUTCOMES[outcome]}", '
        f'"reason": {_or_null(redact(reason)) if reason else "null"}, '
        f'"duration_ms": {(ended - began) * 1000 if ended > began else 0:.3f}, '
        f'"upstream_ms": {"null" if waited is None else f"{waited * 1000:.3f}"}, '
        f'"bytes_received": {received}, "bytes_sent": {sent}, {_way(rule, header)}, '
        f'"jti": {_cut(jti, _SHORT) if jti else "null"}, "lane": "{lane(fast)}"'
        f"{', "websocket": true' if websocket else ''}}}"
    )


@functools.lru_cache(1024)
def _target(client: str, method: bytes, scheme: bytes, host: str, port: int) -> str:
    """What is the same in many lines: who asks whom, and how."""
    named = text(scheme)
    place, how = _short(authority(named, host, port)), _short(text(method))
    return f'"client": {_or_null(client)}, "method": {how}, "scheme": {_or_null(named)}, "host": {place}'


@functools.lru_cache(1024)
def _way(rule: str, header: bytes) -> str:
    """The same: what has decided, and which key has signed."""
    return f'"rule": {_short(rule)}, "kid": {_or_null(kid_of(header))}'


def _path(raw: bytes) -> str:
    path = public_path(text(raw))[0]
    return _cut(path, _LONG) if path else "null"


_usual_path = functools.lru_cache(1024)(_path)
"""Many are asked for again and again."""


def _or_null(value: str | None) -> str:
    return _short(value) if value else "null"


def _short(value: str) -> str:
    return _remembered(value) if len(value) <= _SHORT // 12 else _cut(value, _SHORT)


def _cut(value: str, room: int) -> str:
    """A string as JSON, short enough for a line."""
    written = _string(value)
    if len(written) <= room:
        return written
    each = 1 if len(written) == len(value) + 2 else 12  # as "\\ud83d\\ude00"
    return _string(f"{value[: room // each]}…")


@functools.lru_cache(64)  # many requests begin in one
def _time(milliseconds: int) -> str:
    """Since the epoch, as RFC 3339 has it, in UTC."""
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@functools.lru_cache(8)
def _second(epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(epoch))
