"""Where a request goes, spelled in one way only, so that no other spelling gets by a rule or into a token."""

import functools
import itertools
import re
import socket
from collections.abc import Sequence
from typing import NamedTuple

from .addresses import parse_ip

DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST_NAME = 253  # RFC 1035 §2.3.4, without the dot at the end
_LONGEST_AUTHORITY = 300  # with brackets, colon and port; more is not worth remembering
_REMEMBERED = 1024

_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ZONE = re.compile(r"(?:%[A-Za-z0-9._~-]+)?")  # RFC 6874 §2
_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]|([A-Za-z0-9._-]+))(?::([0-9]*))?")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_SLASHES = (r"%2[Ff]", r"%5[Cc]", r"\\")  # what some servers take for a slash
_AMBIGUOUS = re.compile(f"//|{'|'.join(_SLASHES)}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986 §2.3


class Destination(NamedTuple):
    """A server as `normalise` spells it. The host is in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as in a Host field: without the port where the scheme implies it (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority (RFC 6454 §6.2)."""
        return f"{self.scheme}://{self.authority}"


@functools.lru_cache(_REMEMBERED)  # of names that passed, which are short
def normalise(scheme: str, host: str, port: int) -> Destination:
    """The one spelling of a destination, whatever way it was written. Raises ValueError if it cannot be dialled."""
    if not 0 < port < 65536:
        raise ValueError(f"not a port: {port}")
    return Destination(scheme.lower(), _normal_host(host), port)


def parse_authority(value: bytes) -> tuple[str, int | None]:
    """Host, without brackets, and port of a Host or authority; None: no port (RFC 9110 §7.2, RFC 3986 §3.2.2).

    Raises ValueError, also for what is no part of it (`user@`) and for names that are never dialled (`%41`).
    """
    found = _AUTHORITY.fullmatch(value) if len(value) <= _LONGEST_AUTHORITY else None
    if not found:
        raise ValueError("not a host, with or without a port")
    address, name, port = found.groups()
    return (address or name).decode(), int(port) if port else None


def agrees(values: Sequence[bytes], destination: Destination) -> bool:
    """Whether every one of these Host or authority values names the destination."""
    for value in values:  # not all(): this is done for each request
        if len(value) > _LONGEST_AUTHORITY or _read(destination.scheme, value) != destination:
            return False
    return True


def normal_path(path: str) -> str:
    """A path, with or without a query, in its one spelling (RFC 3986 §6.2.2): escapes and dot segments resolved.

    Only unreserved characters are decoded; a `%` that begins no escape becomes `%25`.
    """
    if "%" in path:
        path = _ESCAPE.sub(_normal_escape, path)
    if "/." not in path or not path.startswith("/"):
        return path
    end = min(found for found in (path.find("?"), path.find("#"), len(path)) if found >= 0)
    return _without_dots(path[:end]) + path[end:]


def other_paths(path: str) -> set[str]:
    """How else servers read a path, each in one spelling: they differ in what is a slash, and some merge slashes."""
    path, mark, query = path.partition("?")
    if not _AMBIGUOUS.search(path):
        return set()
    found = set()
    for kinds in itertools.product((True, False), repeat=len(_SLASHES)):
        slash = "|".join(["/", *(pattern for pattern, taken in zip(_SLASHES, kinds, strict=True) if taken)])
        found.add(re.sub("/+", "/", normal_path(re.sub(slash, "/", path))))
        found.add(normal_path(re.sub(f"(?:{slash})+", "/", path)))
    return {other + mark + query for other in found}


def _normal_host(host: str) -> str:
    if len(host) > _LONGEST_AUTHORITY:
        raise ValueError("too long for a host")
    if ":" in host:
        return _normal_ipv6(host)
    # As asyncio does before it dials: full-width digits and ideographic full stops are mapped, too.
    name = host.encode("idna").decode().lower().removesuffix(".")
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError("not a host name")
    try:
        return socket.inet_ntoa(socket.inet_aton(name))  # 127.1, 0x7f.0.0.1, 2130706433: getaddrinfo takes them all
    except OSError:
        return name


def _normal_ipv6(host: str) -> str:
    ip = parse_ip(host)
    if ip is None or not _ZONE.fullmatch(host, len(host.partition("%")[0])):
        raise ValueError("not an IPv6 address")
    return str(ip)


@functools.lru_cache(_REMEMBERED)
def _read(scheme: str, value: bytes) -> Destination | None:
    try:
        host, port = parse_authority(value)
        return normalise(scheme, host, DEFAULT_PORTS.get(scheme, 0) if port is None else port)
    except ValueError:
        return None


def _normal_escape(found: re.Match[str]) -> str:
    if found[1] is None:
        return "%25"
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4 for a path that begins with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
