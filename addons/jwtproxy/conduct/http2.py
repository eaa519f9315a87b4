"""The heads of HTTP/2 messages: header lists in, values out, or what is wrong with them (RFC 9113 §8)."""

import re
from collections.abc import Sequence

from . import framing
from .destination import DEFAULT_PORTS
from .fields import CONTROLS, TOKEN, Fields
from .forwarding import TO_PROXY
from .heads import ReceivedRequest
from .malformed import MalformedError
from .target import Target, check_method, check_path, split_authority, to_ascii
from .target import parse as parse_target

_Headers = Sequence[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_STATUS = re.compile(rb"[1-9][0-9]{2}")
_CONNECTION_SPECIFIC = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_REQUEST = {b":method", b":scheme", b":path", b":authority"}
_NOT_IN_TRAILERS = frozenset((b"content-length", b"host", b"te", b"trailer")) | TO_PROXY
_VERSION = b"HTTP/2.0"
_OVERHEAD = 32  # bytes that a field counts beyond its own (RFC 9113 §6.5.2)


def request(headers: _Headers, *, ended: bool) -> ReceivedRequest:
    """The head of a request. `ended`: no body follows. Raises MalformedError."""
    pseudo, fields = _split(headers, _REQUEST)
    method = pseudo.get(b":method", b"")
    if not TOKEN.fullmatch(method):
        raise MalformedError("the request's method is not a token")
    check_method(method)
    _check_fields(fields)
    _check_length(framing.request_length(b"HTTP/1.1", fields), ended=ended)
    scheme, path, authority = pseudo.get(b":scheme"), pseudo.get(b":path"), to_ascii(pseudo.get(b":authority", b""))
    if method == b"CONNECT":
        if scheme is not None or path is not None:  # RFC 9113 §8.5
            raise MalformedError("CONNECT has neither a scheme nor a path")
        return ReceivedRequest(method, parse_target(method, authority), _VERSION, fields)
    if scheme not in (b"http", b"https"):
        raise MalformedError("the request's scheme is neither http nor https")
    if not path:
        raise MalformedError("the request has no path")
    host, port = split_authority(authority) if authority else ("", 0)
    port = port or (DEFAULT_PORTS[scheme.decode()] if authority else 0)
    target = Target(check_path(method, to_ascii(path)), scheme, authority, host, port)
    return ReceivedRequest(method, target, _VERSION, fields)


def response(headers: _Headers) -> tuple[int, Fields]:
    """Status code and fields of an answer. Raises MalformedError."""
    pseudo, fields = _split(headers, {b":status"})
    status = pseudo.get(b":status", b"")
    if not _STATUS.fullmatch(status):
        raise MalformedError("the server's answer has no status code of three digits")
    if status == b"101":  # RFC 9113 §8.6
        raise MalformedError("the server's answer switches protocols, which HTTP/2 does not allow")
    _check_fields(fields)
    framing.response_length(b"GET", int(status), b"HTTP/1.1", fields)
    return int(status), fields


def trailers(headers: _Headers) -> Fields:
    """What may follow a body of the fields that do: not those that say where it ends or goes (RFC 9110 §6.5.1).

    Raises MalformedError.
    """
    _, fields = _split(headers, set())
    _check_fields(fields)
    return tuple(field for field in fields if field[0] not in _NOT_IN_TRAILERS)


def size(headers: _Headers) -> int:
    """Bytes of a head, as SETTINGS_MAX_HEADER_LIST_SIZE counts them (RFC 9113 §6.5.2)."""
    return sum(len(name) + len(value) + _OVERHEAD for name, value in headers)


def _split(headers: _Headers, known: set[bytes]) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-header fields, each known and there once, and the others, which follow them (RFC 9113 §8.3)."""
    pseudo: dict[bytes, bytes] = {}
    count = 0
    for name, value in headers:
        if not name.startswith(b":"):
            break
        if name in pseudo or name not in known:
            raise MalformedError("a pseudo-header field is unknown, or given more than once")
        pseudo[name] = value
        count += 1
    return pseudo, tuple((bytes(name), bytes(value)) for name, value in headers[count:])


def _check_fields(fields: Fields) -> None:
    for name, value in fields:
        if not _NAME.fullmatch(name):
            raise MalformedError("a header name is not a token in lower case")  # pseudo-header fields out of place, too
        if CONTROLS(value) or value != value.strip(b" \t"):
            raise MalformedError("a header value contains a control character, or white space around it")
        if name in _CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
            raise MalformedError("a header is about the connection, which HTTP/2 does not allow")


def _check_length(length: int | None, *, ended: bool) -> None:
    if ended and length:
        raise MalformedError("Content-Length announces a body, and none follows")
