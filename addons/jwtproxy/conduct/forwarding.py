"""What a proxy does to the fields of messages that it forwards (RFC 9110 §7.6)."""

import functools
import re
from collections.abc import Iterator
from email.utils import formatdate
from typing import NamedTuple

from .fields import TOKEN, Fields
from .host import Fault
from .malformed import MalformedError

_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"))
"""Fields for the next hop alone, but for framing, which each carrier makes for itself."""
TO_PROXY = frozenset((b"proxy-authorization", b"proxy-authenticate", b"proxy-authentication-info"))
"""Fields between a client and a proxy."""

_FOR_ONE_HOP = _HOP_BY_HOP | TO_PROXY
_SIZES = frozenset(map(len, _FOR_ONE_HOP))
_NEVER_NAMED = frozenset((b"host", b"content-length", b"transfer-encoding", b"content-type"))
_Field = tuple[bytes, bytes]
_HOPS = re.compile(rb"[0-9]{1,9}")

ALLOW = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT"


def request_fields(fields: Fields, *, version: bytes = b"HTTP/1.1", to_proxy: bool = False) -> Fields:
    """A request's fields without those for this hop alone (RFC 9110 §7.6.1).

    `version`: of HTTP, by which it came: HTTP/1.0 knows no upgrade and no trailers, and in HTTP/2 no Connection names
    them. `to_proxy`: the next hop is a proxy, whose credentials pass. Raises MalformedError for a Connection field that
    may hide what it names.
    """
    return _without_hops(fields, to_proxy=to_proxy, version=version, strict=True)


def response_fields(fields: Fields, *, from_proxy: bool = False) -> Fields:
    """An answer's fields without those for this hop alone. `from_proxy`: it is by the next proxy, or came by it."""
    return _without_hops(fields, to_proxy=from_proxy, version=b"HTTP/1.1", strict=False)


def with_date(fields: Fields) -> Fields:
    """An answer's fields, with a Date (RFC 9110 §6.6.1)."""
    for name, _ in fields:
        if len(name) == 4 and name.lower() == b"date":
            return fields
    return (*fields, (b"Date", formatdate(usegmt=True).encode()))  # RFC 9110 §5.6.7


@functools.lru_cache(maxsize=16)
def via(version: bytes, pseudonym: str) -> bytes:
    """The entry in Via of who received a message in this version of HTTP (RFC 9110 §7.6.3)."""
    number = b"2" if version == b"HTTP/2.0" else version.removeprefix(b"HTTP/")
    return b"%s %s" % (number, pseudonym.encode())


def with_via(fields: Fields, entry: bytes) -> Fields:
    """The fields with this entry last in Via, and there only."""
    return (*[field for field in fields if field[1] != entry or field[0].lower() != b"via"], (b"Via", entry))


def has_passed(fields: Fields, pseudonym: str) -> bool:
    """Whether a message has been here before (RFC 9110 §7.6.3)."""
    own = pseudonym.encode()
    return bool(own) and any(len(name) == 3 and name.lower() == b"via" and own in value for name, value in fields)


def to_http1(fields: Fields, authority: bytes) -> Fields:
    """The fields of a request that came by another version, as HTTP/1.1 has them. `authority`: where it goes."""
    cookies = [value for name, value in fields if len(name) == 6 and name.lower() == b"cookie"]
    kept = [field for field in fields if field[0].lower() != b"te"]  # trailers cannot be sent
    if len(cookies) > 1:  # RFC 9113 §8.2.3
        first = next(place for place, field in enumerate(kept) if field[0].lower() == b"cookie")
        rest = [field for field in kept[first + 1 :] if field[0].lower() != b"cookie"]
        kept = [*kept[:first], (kept[first][0], b"; ".join(cookies)), *rest]
    if not any(name.lower() == b"host" for name, _ in kept):
        kept.insert(0, (b"Host", authority))
    return tuple(kept)


def take_expectation(version: bytes, fields: Fields) -> tuple[Fields, bool]:
    """The fields without `Expect: 100-continue`, and whether an answer is due: HTTP/1.0 has none (RFC 9110 §10.1.1)."""
    for field in fields:
        if len(field[0]) == 6 and field[0].lower() == b"expect" and field[1].lower() == b"100-continue":
            return tuple(other for other in fields if other[0].lower() != b"expect"), version != b"HTTP/1.0"
    return fields, False


class Way(NamedTuple):
    """What a request says about its way."""

    fields: Fields
    """Its fields, as they are to go on."""
    expects: bool = False
    """Whether its client waits for leave to send the body."""
    fault: Fault | None = None


def examine(version: bytes, method: bytes, fields: Fields, pseudonym: str) -> Way:
    """Take note of what a request says about its way. `pseudonym`: our name in Via."""
    fields, expects = take_expectation(version, fields)
    if has_passed(fields, pseudonym):
        return Way(fields, expects, Fault.LOOP)
    if method in (b"OPTIONS", b"TRACE") and (left := hops_left(fields)) is not None:
        if left == 0:
            return Way(fields, expects, Fault.HOPS)
        fields = with_hops_left(fields, left - 1)
    return Way(fields, expects)


def hops_left(fields: Fields) -> int | None:
    """How often a request may still be forwarded; None: as often as need be (RFC 9110 §7.6.2)."""
    for name, value in fields:
        if len(name) == 12 and name.lower() == b"max-forwards" and _HOPS.fullmatch(value):
            return int(value)
    return None


def with_hops_left(fields: Fields, count: int) -> Fields:
    """The fields with one Max-Forwards, which says this."""
    return (*(field for field in fields if field[0].lower() != b"max-forwards"), (b"Max-Forwards", b"%d" % count))


def _without_hops(fields: Fields, *, to_proxy: bool, version: bytes, strict: bool) -> Fields:
    hops = [field for field in fields if len(field[0]) in _SIZES and field[0].lower() in _FOR_ONE_HOP]
    if not hops:
        return fields
    gone: set[bytes] = set()
    named: set[bytes] = set()
    passed: list[tuple[bytes, bytes]] = []
    for name, value in hops:
        lower = name.lower()
        gone.add(lower)
        if lower == b"connection":
            named |= _named(value, strict=strict)
        elif lower in TO_PROXY and to_proxy:
            passed.append((name, value))
    if version != b"HTTP/1.0":
        passed += _asked_of_the_next(
            hops, upgrades=version == b"HTTP/1.1" and b"upgrade" in named, takes_trailers=strict
        )
    gone |= named
    kept = [field for field in fields if field[0].lower() not in gone]
    return (*kept, *(field for field in passed if version == b"HTTP/1.1" or field[0] != b"Connection"))


def _asked_of_the_next(hops: list[tuple[bytes, bytes]], *, upgrades: bool, takes_trailers: bool) -> Iterator[_Field]:
    """Those for one hop that are meant for the next one, too, which is told so."""
    for name, value in hops:
        lower = name.lower()
        if takes_trailers and lower == b"te" and b"trailers" in _members(value):
            yield from ((name, b"trailers"), (b"Connection", b"TE"))
        elif upgrades and lower == b"upgrade" and value.lower() == b"websocket":  # named in Connection (RFC 9110 §7.8)
            yield from ((name, value), (b"Connection", b"Upgrade"))


def _named(value: bytes, *, strict: bool) -> set[bytes]:
    """The fields that a Connection field names, in lower case."""
    options = _members(value)
    if strict and not all(map(TOKEN.fullmatch, options)):
        raise MalformedError("Connection is not a list of tokens")
    if strict and options & _NEVER_NAMED:
        raise MalformedError("Connection names a field that belongs to the message")
    return options - _NEVER_NAMED


def _members(value: bytes) -> set[bytes]:
    """Those of a list, in lower case (RFC 9110 §5.6.1)."""
    return {member.strip(b" \t").lower() for member in value.split(b",")} - {b""}
