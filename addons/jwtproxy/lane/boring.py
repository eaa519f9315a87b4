"""What is boring: a head that all readers understand alike, and that asks for nothing out of the common.

A grammar of what is taken, not of what is refused: whatever it does not match is left to mitmproxy, and what is wrong
with it to `conduct`.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from ..conduct import destination, forwarding, target
from ..conduct.fields import Fields
from ..conduct.framing import CHUNKED

LONGEST = 64 * 1024
"""Bytes of a head."""

_METHOD = rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)"
_PATH = rb"(/[!$-.0-;=?-Z\[\]_a-z~/]*+)"  # RFC 3986 §3.3 and §3.4, without a fragment
_AUTHORITY = rb"http://([a-z0-9.-]++(?::[1-9][0-9]{0,4}+)?+)"
_ABSOLUTE = re.compile(_METHOD + b" " + _AUTHORITY + b"(?:" + _PATH + rb")?+ HTTP/1\.1")
_ORIGIN = re.compile(_METHOD + rb" ()" + _PATH + rb" HTTP/1\.1")
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) ([\t -~\x80-\xff]++)")
_FIELD = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([\t -~\x80-\xff]*+)\r\n", re.MULTILINE)
_MOST_FIELDS = 100
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,14}+")
_END = b"\r\n\r\n"
_OTHER_END = re.compile(rb"\n\r?\n")

_ODD = frozenset((
    b"content_length", b"expect", b"http2-settings", b"max-forwards", b"proxy-authenticate", b"proxy-authorization",
    b"te", b"trailer", b"transfer_encoding", b"upgrade", b"via",
))  # fmt: skip
_ODD_IN_ANSWERS = frozenset((
    b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization", b"proxy-connection",
    b"te", b"upgrade",
))  # fmt: skip
_TOLD_ONCE = (b"connection", b"content-length", b"transfer-encoding")
_GOES_ON = frozenset((b"", b"keep-alive", b"Keep-Alive"))
_CLOSES = frozenset((b"close", b"Close"))


class Head(NamedTuple):
    """A boring request's line and fields."""

    method: bytes
    authority: bytes
    """Of the target, and of Host, byte by byte."""
    path: bytes
    fields: Fields
    length: int | None
    """Of the body, in bytes, as `framing` has it."""
    closes: bool
    """Whether the client wants its connection closed after the answer."""


class Answer(NamedTuple):
    """A boring answer's line and fields."""

    status: int
    reason: bytes
    fields: Fields
    """As conduct would pass them on: without what is for one hop, and with a Date."""
    length: int | None
    """Of the body, in bytes, as `framing` has it."""
    closes: bool
    """Whether the upstream closes its connection afterwards."""


def find_end(data: bytes) -> int:
    """How many bytes of this are a head; 0: it has not come to its end."""
    end = data.find(_END)
    return end + len(_END) if end >= 0 else 0


def may_become_one(data: bytes) -> bool:
    """Whether what comes may make a boring head of bytes that are none yet."""
    return len(data) < LONGEST and data[:1].isupper() and not _OTHER_END.search(data)


def read(head: bytes, *, origin_form: bool = False) -> Head | None:
    """A head, of exactly these bytes, if it is boring. `origin_form`: its target is a path alone, as servers get it."""
    line, _, lines = head.partition(b"\r\n")
    found = (_ORIGIN if origin_form else _ABSOLUTE).fullmatch(line)
    told = _look_up(_recent_requests, _read_request, lines) if found and len(head) <= LONGEST else None
    if not found or not told:
        return None
    method, authority, path = found.groups()
    if not origin_form and told.host != authority:
        return None
    if path is None and method == b"OPTIONS":  # that is about all paths
        return None
    return Head(method, told.host, path or b"/", told.fields, told.length, told.closes)


def read_answer(head: bytes, method: bytes) -> Answer | None:
    """A head, of exactly these bytes, if it is boring and a body, perhaps an empty one, follows it."""
    line, _, lines = head.partition(b"\r\n")
    found = _STATUS.fullmatch(line)
    if not found or len(head) > LONGEST or method == b"HEAD" or found[1] in (b"204", b"304"):
        return None
    told = _look_up(_recent_answers, _read_answer, lines)
    if not told:
        return None
    fields = told.fields if told.is_dated else forwarding.with_date(told.fields)
    return Answer(int(found[1]), found[2], fields, told.length, told.closes)


def place(scheme: str, authority: bytes) -> tuple[str, int] | None:
    """Host and port, if an authority names them as it would be rewritten; None where mitmproxy has to look."""
    if b"xn--" in authority:
        return None
    try:
        host, port = target.split_authority(authority)
        where = destination.normalise(scheme, host, port or destination.DEFAULT_PORTS[scheme])
    except ValueError:
        return None
    return (host, where.port) if destination.agrees((authority,), where) else None


class _Told(NamedTuple):
    """What the lines below a boring head's first one tell."""

    fields: Fields
    length: int | None
    closes: bool
    host: bytes = b""
    is_dated: bool = False


def _read_request(lines: bytes) -> _Told | None:
    """What they tell, if they are boring."""
    fields = _read_fields(lines)
    by_name = {name.lower(): value for name, value in fields}
    if not fields or len(by_name) != len(fields) or not _ODD.isdisjoint(by_name):
        return None
    host, connection = by_name.get(b"host"), by_name.get(b"connection", b"")
    closes = connection in _CLOSES
    if not host or len(host) > target.LONGEST_AUTHORITY or not (closes or connection in _GOES_ON):
        return None
    length = _length(by_name) if b"content-length" in by_name or b"transfer-encoding" in by_name else 0
    return None if length == _UNKNOWN else _Told(tuple(fields), length, closes, host)


def _read_answer(lines: bytes) -> _Told | None:
    """What they tell, if they are boring."""
    fields = _read_fields(lines)
    by_name = {name.lower(): value for name, value in fields}
    if not fields or (len(by_name) != len(fields) and _tells_twice(fields)):
        return None
    connection = by_name.get(b"connection", b"")
    closes = connection in _CLOSES
    length = _length(by_name)
    if length == _UNKNOWN or not (closes or connection in _GOES_ON) or not _ODD_IN_ANSWERS.isdisjoint(by_name):
        return None
    if b"connection" in by_name:
        fields = [field for field in fields if len(field[0]) != 10 or field[0].lower() != b"connection"]
    return _Told(tuple(fields), length, closes, is_dated=b"date" in by_name)


# Who asks again says most of what it said before, in the same bytes; and so do servers, within a second.
_REMEMBERED = 256
_LONGEST_REMEMBERED = 1024
_recent_requests = functools.lru_cache(_REMEMBERED)(_read_request)
_recent_answers = functools.lru_cache(_REMEMBERED)(_read_answer)

type _Reader = Callable[[bytes], _Told | None]


def _look_up(recent: _Reader, read: _Reader, lines: bytes) -> _Told | None:
    """What is known of these lines, or read from them; what is long is not kept."""
    return (recent if len(lines) <= _LONGEST_REMEMBERED else read)(lines)


def _read_fields(lines: bytes) -> list[tuple[bytes, bytes]]:
    """All fields of these lines, of which the last one is empty; none where one of them is no field."""
    fields: list[tuple[bytes, bytes]] = _FIELD.findall(lines)
    # Each field has taken one line, from its beginning to its end: none is left but the empty one.
    whole = lines.count(b"\n") == len(fields) + 1 and lines.endswith(_END)
    if not whole or len(fields) > _MOST_FIELDS or lines.find(b" \r") >= 0 or lines.find(b"\t\r") >= 0:
        return []
    return fields


def _tells_twice(fields: list[tuple[bytes, bytes]]) -> bool:
    names = [name.lower() for name, _ in fields]
    return any(names.count(name) > 1 for name in _TOLD_ONCE)


_UNKNOWN = -1


def _length(by_name: dict[bytes, bytes]) -> int | None:
    length, coding = by_name.get(b"content-length"), by_name.get(b"transfer-encoding")
    if coding is not None:
        return CHUNKED if coding == b"chunked" and length is None else _UNKNOWN
    return int(length) if length and _LENGTH.fullmatch(length) else _UNKNOWN
