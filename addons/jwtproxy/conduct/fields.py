"""Put our token into header fields, and take every other copy out."""

import re

from .malformed import MalformedError

Fields = tuple[tuple[bytes, bytes], ...]

_LINE_BREAK = re.compile(rb"[\r\n\0]").search


def normalise(name: str | bytes) -> bytes:
    """A field name as gateways compare it: lower case, and `_` read as `-`, as CGI and WSGI servers do."""
    raw = name.encode() if isinstance(name, str) else name
    return raw.lower().replace(b"_", b"-")


def strip(fields: Fields, names: frozenset[bytes]) -> Fields:
    """The fields without any copy of the normalised names.

    Raises MalformedError: a copy may hide behind a line break within a value.
    """
    sizes = {len(name) for name in names}
    kept = []
    for field in fields:
        key, value = field
        if _LINE_BREAK(value):
            raise MalformedError("a header value contains a line break; the request was not forwarded")
        if len(key) in sizes and normalise(key) in names:
            continue
        kept.append(field)
    return tuple(kept)
