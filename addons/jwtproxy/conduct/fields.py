"""Put our token into header fields, and take every other copy out."""

import re

Fields = tuple[tuple[bytes, bytes], ...]

_LINE_BREAK = re.compile(rb"[\r\n\0]").search


class MalformedFieldError(ValueError):
    """A field value that some recipients would read as several lines (RFC 9110 §5.5)."""


def normalise(name: str | bytes) -> bytes:
    """A field name as gateways compare it: lower case, and `_` read as `-`, as CGI and WSGI servers do."""
    raw = name.encode() if isinstance(name, str) else name
    return raw.lower().replace(b"_", b"-")


def strip(fields: Fields, names: frozenset[bytes]) -> Fields:
    """The fields without any copy of the normalised names.

    Raises MalformedFieldError: a copy may hide behind a line break within a value.
    """
    sizes = {len(name) for name in names}
    kept = []
    for field in fields:
        key, value = field
        if _LINE_BREAK(value):
            raise MalformedFieldError
        if len(key) in sizes and normalise(key) in names:
            continue
        kept.append(field)
    return tuple(kept)
