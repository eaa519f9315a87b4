"""The heads of HTTP/1.1 messages: lines in, values out, or what is wrong with them (RFC 9112 §2 to §5)."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from .fields import CONTROLS, TOKEN, Fields, check
from .malformed import MalformedError
from .target import Target
from .target import parse as parse_target

_FIELD_LINES = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+(?:\n|\Z))*+")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ ]+) (HTTP/[0-9]\.[0-9])")
_STATUS_LINE = re.compile(rb"(HTTP/1\.[0-9]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_BLANK = b" \t"
_BLANK_LINE = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n)*")
_PHRASES = {int(status): status.phrase.encode() for status in HTTPStatus}

_CONTROL = "a header value contains a control character"
_NAME = "a header line does not begin with a name and a colon"


class ReceivedRequest(NamedTuple):
    """A request's line and fields, as they came."""

    method: bytes
    target: Target
    version: bytes
    """HTTP/1.0 or HTTP/1.1."""
    fields: Fields


class ReceivedResponse(NamedTuple):
    """An answer's line and fields, as they came, but for folded lines."""

    version: bytes
    """HTTP/1.0 or HTTP/1.1."""
    status: int
    reason: bytes
    fields: Fields


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The lines of the head that the data begins with, without their ends, and what follows; none: it is not complete.

    Empty lines before a head are skipped (RFC 9112 §2.2).
    """
    if data[:1] in (b"\r", b"\n"):
        data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr] # it matches nothing, too
    if not (found := _BLANK_LINE.search(data)):
        return [], data
    lines = data[: found.start()].split(b"\n")
    return [line.removesuffix(b"\r") for line in lines], data[found.end() :]


def request(lines: Sequence[bytes]) -> ReceivedRequest:
    """The head of a request, from its lines without their ends. Raises MalformedError."""
    found = _REQUEST_LINE.fullmatch(lines[0])
    if not found:
        raise _bad_request_line(lines[0])
    method, target = found[1], found[2]
    version = _understood(found[3])  # first, as the rest means what the version says
    return ReceivedRequest(method, parse_target(method, target), version, _read_fields(lines[1:]))


def response(lines: Sequence[bytes]) -> ReceivedResponse:
    """The head of an answer, from its lines without their ends. Raises MalformedError."""
    found = _STATUS_LINE.fullmatch(lines[0])
    if not found:
        raise MalformedError("the server's answer does not begin with a status line of HTTP/1.1")
    version, status, reason = found.groups()
    fields = _read_fields(_unfold(lines[1:]))
    return ReceivedResponse(_understood(version), int(status), reason or b"", fields)


def accept_in(lines: Iterable[bytes]) -> str:
    """What the client accepts (RFC 9110 §12.5.1), as far as a head tells that has faults or is not complete."""
    return next((line[7:].decode("latin-1") for line in lines if line[:7].lower() == b"accept:"), "")


def is_head(line: bytes) -> bool:
    """Whether a request that begins so is answered without a body, whatever else is wrong with it."""
    return line.startswith(b"HEAD ")


def write_request(method: bytes, target: bytes, fields: Fields) -> bytes:
    """The head of a request in our version (RFC 9110 §2.5), of parts that a verdict has found to be sendable."""
    return written(b"%s %s HTTP/1.1" % (method, target), fields)


def write_response(status: int, reason: bytes, fields: Fields) -> bytes:
    """The head of an answer in our version. Raises MalformedError for what no head can carry."""
    check_status(status)
    if CONTROLS(reason):
        raise MalformedError("the reason phrase contains a control character")
    check(fields)
    return written(b"HTTP/1.1 %d %s" % (status, reason or phrase(status)), fields)


def phrase(status: int) -> bytes:
    """The standard phrase of a status code; empty where there is none."""
    return _PHRASES.get(status, b"")


def status_text(status: int) -> str:
    """A status code with its standard phrase, whatever phrase has come with it."""
    return f"{status} {phrase(status).decode()}".rstrip()


def check_status(status: int) -> None:
    """Refuse what is no status code, whoever made it (RFC 9110 §15). Raises MalformedError."""
    if not 100 <= status <= 999:
        raise MalformedError("the status code does not have three digits")


def written(line: bytes, fields: Fields) -> bytes:
    """A head of parts that are sendable."""
    return b"".join([line, b"\r\n", *[b"%s: %s\r\n" % field for field in fields], b"\r\n"])


def _understood(version: bytes) -> bytes:
    """The version as which one is read: a higher minor one as ours (RFC 9110 §2.5)."""
    if version[5] != 0x31:  # the major one
        raise MalformedError("this version of HTTP is not supported", 505)
    return version if version in (b"HTTP/1.1", b"HTTP/1.0") else b"HTTP/1.1"


def _read_fields(lines: Sequence[bytes]) -> Fields:
    if not _FIELD_LINES.fullmatch(b"\n".join(lines)):
        raise _bad_field(lines)
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(_BLANK)))
    return tuple(fields)


def _unfold(lines: Sequence[bytes]) -> Sequence[bytes]:
    """The lines with each folded one in one piece (RFC 9112 §5.2)."""
    if not any(line[:1] in (b" ", b"\t") for line in lines):
        return lines
    unfolded: list[list[bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and unfolded:
            unfolded[-1].append(line.strip(_BLANK))
        else:
            unfolded.append([line.rstrip(_BLANK) or line])
    return [b" ".join(parts) for parts in unfolded]


def _bad_request_line(line: bytes) -> MalformedError:
    parts = line.split(b" ")
    if len(parts) != 3 or not all(parts):
        return MalformedError("the request line is not a method, a target and a version, with single spaces between")
    if not TOKEN.fullmatch(parts[0]):
        return MalformedError("the request's method is not a token")
    return MalformedError("the request line does not end with a version of HTTP")


def _bad_field(lines: Sequence[bytes]) -> MalformedError:
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            return MalformedError("a header line begins with white space")
        name, colon, _ = line.partition(b":")
        if not colon or not TOKEN.fullmatch(name):
            return MalformedError(_NAME)
    return MalformedError(_CONTROL)
