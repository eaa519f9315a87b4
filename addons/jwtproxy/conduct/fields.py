"""Put our token into header fields, and take every other copy out."""

import re

from .malformed import MalformedError

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search  # those that no field value may have (RFC 9110 §5.5)

_SENDABLE = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++\0[\t -~\x80-\xff]*+\n)*+").fullmatch


def normalise(name: str | bytes) -> bytes:
    """A field name as gateways compare it: lower case, and `_` read as `-`, as CGI and WSGI servers do."""
    raw = name.encode() if isinstance(name, str) else name
    return raw.lower().replace(b"_", b"-")


def strip(fields: Fields, names: frozenset[bytes]) -> Fields:
    """The fields without any copy of the normalised names. Raises MalformedError: one may hide within another field."""
    check(fields)
    sizes = {len(name) for name in names}
    return tuple([field for field in fields if len(field[0]) not in sizes or normalise(field[0]) not in names])


def check(fields: Fields) -> None:
    """Refuse what would not be one line each, whoever made it. Raises MalformedError."""
    if not _SENDABLE(b"".join([b"%s\0%s\n" % field for field in fields])):
        named = all(TOKEN.fullmatch(name) for name, _ in fields)
        raise MalformedError(
            "a header value contains a control character" if named else "a header's name is not a token", 502
        )
