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
    """The fields without any copy of the normalised names, and without them among the options of `Connection`.

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
        if len(key) == 10 and key.lower() == b"connection":
            options = _without(value, names)
            if options is None:
                continue
            field = (key, options)
        kept.append(field)
    return tuple(kept)


def _without(value: bytes, names: frozenset[bytes]) -> bytes | None:
    """A Connection value that no longer names our fields: the next hop would remove them (RFC 9110 §7.6.1)."""
    options = value.split(b",")
    kept = [option for option in options if normalise(option.strip()) not in names]
    if len(kept) == len(options):
        return value  # byte for byte
    return b",".join(kept).strip() or None
