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


def strip(fields: Fields, name: bytes) -> Fields:
    """The fields without any copy of the normalised name, and without it among the options of `Connection`.

    Raises MalformedFieldError: a copy may hide behind a line break within a value.
    """
    size = len(name)
    kept = []
    for field in fields:
        key, value = field
        if _LINE_BREAK(value):
            raise MalformedFieldError
        if len(key) == size and normalise(key) == name:
            continue
        if len(key) == 10 and key.lower() == b"connection":
            options = _without(value, name)
            if options is None:
                continue
            field = (key, options)
        kept.append(field)
    return tuple(kept)


def attach(fields: Fields, name: bytes, token: bytes) -> Fields:
    """The fields with exactly one copy of the name, ours, at the end."""
    return (*strip(fields, normalise(name)), (name, token))


def _without(value: bytes, name: bytes) -> bytes | None:
    """A Connection value that no longer names our field: the next hop would remove it (RFC 9110 §7.6.1)."""
    if name not in normalise(value):
        return value  # byte for byte
    options = [option for option in value.split(b",") if normalise(option.strip()) != name]
    return b",".join(options).strip() or None
