"""Where the body of a message ends (RFC 9112 §6), and whether its connection goes on afterwards (RFC 9112 §9.3)."""

import re
from typing import NamedTuple

from .fields import Fields, normalise
from .malformed import MalformedError

CHUNKED = None
UNTIL_CLOSED = -1

_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
_LENGTH_NAME, _CODING_NAME = b"content-length", b"transfer-encoding"
_FRAMING = {_LENGTH_NAME, _CODING_NAME}
_FRAMING_SIZES = {len(name) for name in _FRAMING}
_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


def request_length(version: bytes, fields: Fields) -> int | None:
    """Bytes in a request's body; CHUNKED: unknown. Raises MalformedError where readers could differ."""
    lengths, codings = _named(fields, strict=True)
    if codings:
        _check_codings(version, lengths, codings)
        if codings[0].lower() != b"chunked":
            last = codings[0].rpartition(b",")[2].strip(b" \t").lower()
            raise MalformedError("no transfer coding but chunked is supported", 501 if last == b"chunked" else 400)
        return CHUNKED
    return _length(lengths) if lengths else 0


def response_length(method: bytes, status: int, version: bytes, fields: Fields) -> int | None:
    """Bytes in the body of an answer to this method; CHUNKED; UNTIL_CLOSED. Raises MalformedError."""
    lengths, codings = _named(fields, strict=False)
    if codings:
        _check_codings(version, lengths, codings)
        coding = codings[0].lower()
        if coding not in (b"chunked", b"identity"):
            raise MalformedError("no transfer coding but chunked is supported")
    length = _length(lengths) if lengths else UNTIL_CLOSED
    if has_no_body(method, status) or is_tunnel(method, status):
        return 0
    return CHUNKED if codings and codings[0].lower() == b"chunked" else length


def frame_response(method: bytes, status: int, fields: Fields, *, old: bool) -> tuple[int | None, Fields]:
    """How the body of an answer is sent: CHUNKED, UNTIL_CLOSED, or 0 as its head says; and the fields that say so.

    `old`: the client speaks HTTP/1.0, which has no chunks.
    """
    if has_no_body(method, status) or is_tunnel(method, status):
        return 0, without_framing(fields, keep=b"" if status in (204, 101) or method == b"CONNECT" else _LENGTH_NAME)
    coded = chunked = length = False
    for name, value in fields:
        if len(name) in _FRAMING_SIZES:
            if name.lower() == _CODING_NAME:
                coded, chunked = True, chunked or b"chunked" in value.lower()
            length = length or name.lower() == _LENGTH_NAME
    # Never both, whatever a script has made of it (RFC 9112 §6.2).
    if chunked and not old:
        return CHUNKED, without_framing(fields, keep=_CODING_NAME) if length else fields
    if length and not chunked:
        return 0, without_framing(fields, keep=_LENGTH_NAME) if coded else fields
    return UNTIL_CLOSED, without_framing(fields)  # not chunks: that all has come is more than we know (RFC 9112 §8)


class Framed(NamedTuple):
    """How an answer is sent to an HTTP/1 client."""

    coding: int | None
    """As `frame_response` has it."""
    fields: Fields
    closes: bool
    """Whether the connection ends with it."""


def frame_for_client(version: bytes, method: bytes, status: int, fields: Fields, *, closes: bool) -> Framed:
    """How an answer is sent to a client that spoke this version, whose connection `closes` afterwards, or goes on.

    A Connection field is a hook's: what came from upstream is gone.
    """
    old = version == b"HTTP/1.0"
    asked = not persists(b"HTTP/1.1", fields)
    coding, fields = frame_response(method, status, fields, old=old)
    if is_tunnel(method, status):
        return Framed(coding, fields, closes)
    closes = closes or asked or coding == UNTIL_CLOSED
    if closes and not asked:
        fields = (*fields, (b"Connection", b"close"))
    elif old and not closes:
        fields = (*fields, (b"Connection", b"keep-alive"))
    return Framed(coding, fields, closes)


def is_tunnel(method: bytes, status: int) -> bool:
    """Whether something other than HTTP follows an answer (RFC 9110 §9.3.6, §15.2.2)."""
    return status == 101 or (200 <= status < 300 and method == b"CONNECT")


def without_identity(fields: Fields) -> Fields:
    """The fields without a transfer coding that is none, of which RFC 2616 §3.6 still told."""
    return tuple(field for field in fields if not _is_identity(field)) if any(map(_is_identity, fields)) else fields


def has_no_body(method: bytes, status: int) -> bool:
    """Whether an answer ends with its head, whatever that says (RFC 9110 §6.4.1)."""
    return method == b"HEAD" or status in (204, 304) or status < 200


def frame_request(method: bytes, length: int | None, fields: Fields) -> Fields:
    """A request's fields as they say by HTTP/1.1 how long its body is. `length`: None where nobody knows it yet."""
    names = {name.lower() for name, _ in fields}
    if length is None:
        return fields if _LENGTH_NAME in names else (*fields, (_CODING_NAME, b"chunked"))
    if length or needs_length(method):
        return (*without_framing(fields), (_LENGTH_NAME, b"%d" % length))
    return fields


def needs_length(method: bytes) -> bool:
    """Whether servers expect a length even where there is no body (RFC 9110 §8.6)."""
    return method in _WITH_BODY


def persists(version: bytes, fields: Fields) -> bool:
    """Whether the sender of a message lets the connection go on after it (RFC 9112 §9.3)."""
    options: list[bytes] = []
    for name, value in fields:
        if len(name) == 10 and name.lower() == b"connection":
            options += [option.strip(b" \t").lower() for option in value.split(b",")]
    return b"close" not in options and (version == b"HTTP/1.1" or b"keep-alive" in options)


def _named(fields: Fields, *, strict: bool) -> tuple[list[bytes], list[bytes]]:
    """The values of Content-Length and of Transfer-Encoding, which some servers also read with underscores."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in fields:
        if len(name) in _FRAMING_SIZES and normalise(name) in _FRAMING:
            if b"_" not in name:
                (lengths if len(name) == 14 else codings).append(value)
            elif strict:
                raise MalformedError("Content-Length and Transfer-Encoding are written with a hyphen")
    return lengths, codings


def without_framing(fields: Fields, *, keep: bytes = b"") -> Fields:
    """The fields without those that tell of a body, but for the one to `keep`, in lower case."""
    gone = _FRAMING - {keep}
    return tuple(field for field in fields if len(field[0]) not in _FRAMING_SIZES or field[0].lower() not in gone)


def _is_identity(field: tuple[bytes, bytes]) -> bool:
    name, value = field
    return len(value) == 8 and value.lower() == b"identity" and name.lower() == _CODING_NAME


def _check_codings(version: bytes, lengths: list[bytes], codings: list[bytes]) -> None:
    if lengths:
        raise MalformedError("Content-Length and Transfer-Encoding exclude each other")
    if len(codings) > 1:
        raise MalformedError("Transfer-Encoding is given more than once")
    if version != b"HTTP/1.1":
        raise MalformedError("HTTP/1.0 has no Transfer-Encoding")


def _length(lengths: list[bytes]) -> int:
    if len(lengths) > 1:
        raise MalformedError("Content-Length is given more than once")
    if not _LENGTH.fullmatch(lengths[0]):
        raise MalformedError("Content-Length is not a number of at most 19 digits without leading zeros")
    return int(lengths[0])
