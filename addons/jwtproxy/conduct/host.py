"""Whom a request is addressed to: the proxy or an upstream, and whether all that it says of it agrees.

- In origin form a request is one to the proxy itself (RFC 9112 §3.2.1), unless it is inside a tunnel.
- Host is replaced by the target's authority (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
- Inside a tunnel, Host and target must name what the tunnel leads to.
"""

from enum import StrEnum

from .destination import Destination, agrees
from .fields import Fields


class Fault(StrEnum):
    """What may keep a request from going where it wants."""

    TARGET = "target"
    """The target is neither a URL nor a path."""
    HOST = "host"
    """There can be no such host or port."""
    TUNNEL = "tunnel"
    """It names another host than the tunnel that it is in (RFC 9110 §15.5.20)."""
    NO_HOST = "no host"
    """It has no Host, which HTTP/1.1 asks for (RFC 9112 §3.2)."""
    LOOP = "loop"
    """It has been here before (RFC 9110 §7.6.3)."""
    HOPS = "hops"
    """It is to be forwarded no further (RFC 9110 §7.6.2)."""


def is_to_proxy(host: str, *, enclosed: bool) -> bool:
    """Whether a request whose target names this host, empty in origin form, is one to the proxy itself.

    `enclosed`: in a tunnel, or on a connection that is not known to be one to a proxy.
    """
    return not host and not enclosed


def is_path(method: bytes, path: bytes) -> bool:
    """Whether this is a target in origin form, or in asterisk form, which is for OPTIONS (RFC 9112 §3.2)."""
    if path == b"*":
        return method == b"OPTIONS"
    return path.startswith(b"/") and b"#" not in path


def is_target(method: bytes, path: bytes) -> bool:
    """Whether RFC 9112 §3.2 allows this. What else a replay brings could pass for part of a host."""
    return is_path(method, path) or (method == b"CONNECT" and path != b"*")


def count_hosts(fields: Fields) -> int:
    """How many Host fields there are."""
    return len(_hosts(fields))


def with_host(fields: Fields, target: Destination, authority: bytes = b"", *, optional: bool = False) -> Fields:
    """The fields with one Host that names the target, in the client's own spelling if it has one.

    `authority`: how else the request names it. `optional`: Host may be missing, as in HTTP/2 (RFC 9113 §8.3.1).
    """
    hosts = _hosts(fields)
    if (len(hosts) == 1 and agrees(hosts, target)) or (optional and not hosts):
        return fields
    named = authority if agrees((authority,), target) else target.authority.encode()
    return only_host(fields, named) if hosts else ((b"Host", named), *fields)


def within_tunnel(fields: Fields, authority: bytes, tunnel: Destination) -> Fields | None:
    """The fields with one Host at most, if all that the request names is what its tunnel leads to; else None."""
    hosts = _hosts(fields)
    if not agrees([*hosts, authority] if authority else hosts, tunnel):
        return None
    return only_host(fields, hosts[0]) if len(hosts) > 1 else fields


def _hosts(fields: Fields) -> list[bytes]:
    return [value for name, value in fields if len(name) == 4 and name.lower() == b"host"]


def only_host(fields: Fields, value: bytes) -> Fields:
    """The fields with this value for the first Host, which there is, its name as written, and without the others."""
    place, name = next((place, name) for place, (name, _) in enumerate(fields) if name.lower() == b"host")
    others = [field for field in fields[place:] if field[0].lower() != b"host"]
    return (*fields[:place], (name, value), *others)
