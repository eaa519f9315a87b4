"""Request targets: the four forms, and which of them a method may have (RFC 9112 §3.2)."""

import functools
import re
from typing import NamedTuple

from .destination import DEFAULT_PORTS
from .host import is_path
from .malformed import MalformedError

# Some clients ask a proxy for ws://…, though a WebSocket begins with an HTTP request (RFC 6455 §4.1).
_SCHEMES = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}

_SENDABLE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++ (?:/[!\"$-~]*+|\*)").fullmatch
_NOT_VISIBLE = re.compile(rb"[^!-~]").search
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)")  # what follows is a fragment, or nothing
_AUTHORITY = re.compile(  # RFC 3986 §3.2.2 and §3.2.3, RFC 6874 §2; no user information, and no name with escapes
    rb"(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z._~%-]*)?)\]|([0-9A-Za-z._~!$&'()*+,;=-]+))(?::([0-9]{0,20}))?"
)

LONGEST_AUTHORITY = 300
"""Bytes of one that can be dialled, and more: a name has 253 (RFC 1035 §2.3.4). Others are not worth remembering."""

NO_FORM = "the request's target is neither a URL nor a path"
BAD_AUTHORITY = "the request's host or port is not valid"


class Target(NamedTuple):
    """Where a request goes. In origin and asterisk form only the path is known."""

    path: bytes
    """With the query; empty for CONNECT."""
    scheme: bytes = b""
    authority: bytes = b""
    host: str = ""
    port: int = 0


def parse(method: bytes, target: bytes) -> Target:
    """The target of a request line. Raises MalformedError."""
    check_method(method)
    target = to_ascii(target)
    if method == b"CONNECT":
        host, port = split_authority(target)
        if not port:
            raise MalformedError("CONNECT needs a host and a port")
        return Target(b"", b"", target, host, port)
    if target.startswith(b"/") or target == b"*":
        return Target(check_path(method, target))
    return _absolute(method, target)


def check_method(method: bytes) -> None:
    """Refuse what only some take for CONNECT: methods are case-sensitive (RFC 9110 §9.1). Raises MalformedError."""
    if method != b"CONNECT" and method.upper() == b"CONNECT":
        raise MalformedError("the method CONNECT is written in capitals")


def check_sendable(method: bytes, path: bytes) -> None:
    """Refuse what would be something else in a request line, whoever made it. Raises MalformedError."""
    if not _SENDABLE(b"%s %s" % (method, path)) or (path == b"*" and method != b"OPTIONS"):
        raise MalformedError("the request's method or target is none that can be sent", 502)


def for_next_hop(scheme: bytes, authority: bytes, path: bytes, *, to_proxy: bool) -> bytes:
    """How a target is written to a server, or to a proxy (RFC 9112 §3.2)."""
    if not to_proxy:
        return path
    return b"%s://%s%s" % (scheme, authority, b"" if path == b"*" else path)


def to_ascii(target: bytes) -> bytes:
    """The target in visible ASCII, other characters being percent-encoded (RFC 3986 §2.1). Raises MalformedError."""
    if not _NOT_VISIBLE(target):
        return target
    if not target.isascii():
        try:
            target.decode()
        except UnicodeDecodeError:
            raise MalformedError("the request's target is not UTF-8") from None
        target = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
    if _NOT_VISIBLE(target):
        raise MalformedError("the request's target contains a space or a control character")
    return target


def check_path(method: bytes, path: bytes) -> bytes:
    """A target in origin or asterisk form, as it is. Raises MalformedError."""
    if not is_path(method, path):
        raise MalformedError("only OPTIONS may have the target *" if path == b"*" else NO_FORM)
    return path


def split_authority(authority: bytes) -> tuple[str, int]:
    """Host, without brackets, and port; 0: none is named. Raises MalformedError."""
    return (_split if len(authority) <= LONGEST_AUTHORITY else _split.__wrapped__)(authority)


@functools.lru_cache(maxsize=1024)
def _split(authority: bytes) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        raise MalformedError(BAD_AUTHORITY)
    address, name, port = found.groups()
    number = int(port or 0)
    if port and not 0 < number < 65536:
        raise MalformedError(BAD_AUTHORITY)
    return _readable(address or name), number


def _readable(host: bytes) -> str:
    """A host with its xn--… as they are read, where they are by IDNA 2003, as this is what names are dialled by."""
    try:
        return host.decode("idna")
    except UnicodeError:
        return host.decode()


def _absolute(method: bytes, target: bytes) -> Target:
    """A URL, without its fragment, which is the client's own business (RFC 9110 §4.2.5)."""
    found = _ABSOLUTE.match(target)
    scheme = _SCHEMES.get(found[1].lower()) if found else None
    if not found or not scheme:
        raise MalformedError(NO_FORM)
    authority, path = found[2], found[3]
    host, port = split_authority(authority)
    if not path.startswith(b"/"):
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path  # RFC 9112 §3.2.4
    return Target(path, scheme, authority, host, port or DEFAULT_PORTS[scheme.decode()])
