"""What is known of a request before its body, whoever carried it here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from .destination import Destination, normal_path, normalise, other_paths
from .fields import Fields
from .host import Fault

_NOT_IN_URLS = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")  # RFC 3986 §2


@dataclass  # frozen, it would take three times as long to make one for each request
class RequestHead:
    """A request's line, header fields and circumstances, as they stand now. A value: nobody changes one."""

    method: bytes
    scheme: str
    host: str
    port: int
    """Where it goes, as the carrier will dial it."""
    path: bytes
    """The request's target without scheme and authority, with its query."""
    fields: Fields
    client: tuple[str, int] | None = None
    """The client's address and port."""
    tunnel: str = ""
    """The origin that the CONNECT asked for by which the request came in."""
    http_version: bytes = b"HTTP/1.1"
    fault: Fault | None = None
    """What was wrong with it as the client sent it."""
    to_proxy: bool = False
    """Whether the next hop is a proxy that is asked for it in plain words."""
    is_given: bool = False
    """Whether it goes where the operator has said that all requests go."""
    is_ours: bool = False
    """Whether the operator makes it, and no client: a replay."""
    user: str = ""
    """Who has asked for it, by a password that was right; empty where nobody was asked for one."""

    @cached_property
    def destination(self) -> Destination:
        """Where it goes, in its one spelling. Raises ValueError where nothing can be dialled."""
        return normalise(self.scheme, self.host, self.port)

    @cached_property
    def url(self) -> str:
        """Scheme, authority and path in their one spelling, in ASCII (RFC 3986 §6.2.2). Raises ValueError."""
        path = self.path.decode("utf-8", "surrogateescape")
        return self.destination.origin + ("" if path == "*" else _NOT_IN_URLS.sub(_escape, normal_path(path)))

    @property
    def readings(self) -> "list[RequestHead]":
        """The same request, as servers may understand it that read its path otherwise."""
        path = self.path.decode("utf-8", "surrogateescape")
        return [replace(self, path=other.encode("utf-8", "surrogateescape")) for other in other_paths(path)]

    @cached_property
    def lines(self) -> bytes:
        """The header fields, one to a line, Host being that of the destination. Raises ValueError."""
        host = (b"Host", self.destination.authority.encode())
        others = [field for field in self.fields if len(field[0]) != 4 or field[0].lower() != b"host"]
        return b"".join([b"%s: %s\n" % field for field in (host, *others)])


Matcher = Callable[[RequestHead], object]
"""Tells whether something, such as a rule, is about a request."""


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))
