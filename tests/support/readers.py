"""Six readers of HTTP/1.1: one by the grammar, and five that forgive what servers, gateways and clients have forgiven.

A byte stream is sound where all of them find the same messages in it: then nobody down the road is led astray.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple

Fields = tuple[tuple[bytes, bytes], ...]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+ HTTP/1\.[01]")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2} [\t -~\x80-\xff]*")
_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]+)[ \t]*(?:;.*)?", re.DOTALL)


class Message(NamedTuple):
    """A whole message. Names of fields are in lower case, with `-` for `_`."""

    start: tuple[bytes, ...]
    """Method and target of a request; the status of an answer."""
    fields: Fields
    body: bytes = b""
    trailers: Fields = ()

    @property
    def status(self) -> int:
        """The status code of an answer, 0 where it is no number."""
        return int(self.start[0]) if self.start[0].isdigit() else 0

    @property
    def is_interim(self) -> bool:
        """Whether the answer itself is yet to come; after 101 something else is."""
        return len(self.start) == 1 and 100 <= self.status < 200 and self.status != 101

    @property
    def line(self) -> str:
        """Method and target."""
        return b" ".join(self.start).decode("latin-1")

    def values(self, name: str) -> list[str]:
        """All values of a field."""
        return [value.decode("latin-1") for key, value in self.fields if key == name.encode()]


class Reading(NamedTuple):
    """The messages that a reader finds, and what is left: the beginning of one more, or what it does not understand."""

    messages: list[Message]
    rest: bytes = b""

    @property
    def final(self) -> list[Message]:
        """The messages but for interim answers."""
        return [message for message in self.messages if not message.is_interim]


class _UnreadableError(Exception):
    """The end of what this reader understands, or of what there is."""


@dataclass(frozen=True)
class Reader:
    """One way to read.

    line_end: what ends a line. strict: nothing but the grammar. length_first: Content-Length beats Transfer-Encoding.
    loose_coding: any Transfer-Encoding that contains `chunked` is chunked. underscores: `_` is `-` in names.
    """

    name: str
    line_end: re.Pattern[bytes] = re.compile(rb"\r\n")
    strict: bool = False
    length_first: bool = False
    loose_coding: bool = False
    underscores: bool = False

    def requests(self, data: bytes) -> Reading:
        """Read what a client sends."""
        return self._read(data, repeat(None))

    def answers(self, data: bytes, methods: Sequence[str], *, ended: bool = True) -> Reading:
        """Read what a server sends. `methods`: of the requests that it answers. `ended`: no more will come."""
        return self._read(data, chain(methods, repeat("GET")), ended=ended)

    def _read(self, data: bytes, methods: Iterable[str | None], *, ended: bool = True) -> Reading:
        messages: list[Message] = []
        asked = iter(methods)
        method, place = next(asked), 0
        while place < len(data):
            try:
                message, place = self._message(data, place, method, ended=ended)
            except _UnreadableError:
                break
            messages.append(message)
            if not message.is_interim:
                method = next(asked)
        return Reading(messages, data[place:])

    def _message(self, data: bytes, place: int, method: str | None, *, ended: bool) -> tuple[Message, int]:
        line, place = self._line(data, place)
        while not line and not self.strict:
            line, place = self._line(data, place)
        start = self._start(line, method is None)
        fields, place = self._fields(data, place)
        shown = _comparable(fields)
        if method and _is_bodiless(method, start[0]):
            return Message(start, shown), place
        length = self._length(fields)
        if length == "chunked":
            body, trailers, place = self._chunks(data, place)
            return Message(start, shown, body, _comparable(trailers)), place
        if length is None and method is not None:
            if not ended:
                raise _UnreadableError
            return Message(start, shown, data[place:]), len(data)
        size = int(length or 0)
        if len(data) < place + size:
            raise _UnreadableError
        return Message(start, shown, data[place : place + size]), place + size

    def _line(self, data: bytes, place: int) -> tuple[bytes, int]:
        found = self.line_end.search(data, place)
        if not found:
            raise _UnreadableError
        return data[place : found.start()], found.end()

    def _start(self, line: bytes, is_request: bool) -> tuple[bytes, ...]:
        if self.strict and not (_REQUEST_LINE if is_request else _STATUS_LINE).fullmatch(line):
            raise _UnreadableError
        words = line.split()
        if len(words) < 2 or not (is_request or words[1].isdigit()):
            raise _UnreadableError
        return tuple(words[:2]) if is_request else (words[1],)

    def _fields(self, data: bytes, place: int) -> tuple[Fields, int]:
        fields = []
        line, place = self._line(data, place)
        while line:
            name, colon, value = line.partition(b":")
            if self.strict and not (colon and _TOKEN.fullmatch(name) and _VALUE.fullmatch(value)):
                raise _UnreadableError
            name = name.strip().lower()
            fields.append((name.replace(b"_", b"-") if self.underscores else name, value.strip(b" \t")))
            line, place = self._line(data, place)
        return tuple(fields), place

    def _length(self, fields: Fields) -> bytes | str | None:
        codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
        lengths = [value for name, value in fields if name == b"content-length"]
        if self.strict and (len(codings) + len(lengths) > 1 or codings not in ([], [b"chunked"])):
            raise _UnreadableError
        is_chunked = any(b"chunked" in coding for coding in codings)
        if not self.loose_coding:
            is_chunked = is_chunked and codings[-1].split(b",")[-1].strip() == b"chunked"
        if is_chunked and not (self.length_first and lengths):
            return "chunked"
        if lengths and not lengths[0].isdigit():
            raise _UnreadableError
        return lengths[0] if lengths else None

    def _chunks(self, data: bytes, place: int) -> tuple[bytes, Fields, int]:
        body = b""
        while True:
            line, place = self._line(data, place)
            found = _SIZE.fullmatch(line)
            if not found:
                raise _UnreadableError
            size = int(found[1], 16)
            if not size:
                trailers, place = self._fields(data, place)
                return body, trailers, place
            body += data[place : place + size]
            blank, place = self._line(data, place + size)
            if blank:
                raise _UnreadableError


def _comparable(fields: Fields) -> Fields:
    """The fields by names that all readers share; whether they take them for framing is another matter."""
    return tuple((name.replace(b"_", b"-"), value) for name, value in fields)


def _is_bodiless(method: str, status: bytes) -> bool:
    """RFC 9112 §6.3."""
    return (
        method == "HEAD"
        or status[:1] == b"1"
        or status in (b"204", b"304")
        or (method, status[:1]) == ("CONNECT", b"2")
    )


_LF, _ANY = re.compile(rb"\r?\n"), re.compile(rb"\r\n|\n|\r")

STRICT = Reader("strict", strict=True)
READERS = (
    STRICT,
    Reader("LF-lenient", _LF),
    Reader("CR-lenient", _ANY),
    Reader("CL-first", _LF, length_first=True),
    Reader("TE-contains-chunked", _LF, loose_coding=True),
    Reader("underscore-as-hyphen", _LF, underscores=True),
)
