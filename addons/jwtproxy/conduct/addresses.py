"""Tell whether an address is the proxy's own."""

import functools
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import Any

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class OwnAddresses:
    """The addresses the proxy listens on, as (host, port, …) of its sockets."""

    def __init__(self, listening: Iterable[tuple[Any, ...]]) -> None:
        self._listening = [(parse_ip(host), port) for host, port, *_ in listening]
        self.ports = frozenset(port for _, port in self._listening)

    def include(self, ip: IP, port: int) -> bool:
        """Whether a connection to this address would come back to the proxy."""
        return any(port == own_port and _reaches(ip, own) for own, own_port in self._listening)


_LONGEST = 64  # characters of an address; a name may have more than is worth remembering


def parse_ip(host: str) -> IP | None:
    """An address literal, scope and IPv4-in-IPv6 wrapping removed; None for a name."""
    return _parse(host) if len(host) <= _LONGEST else _parse.__wrapped__(host)


@functools.lru_cache(maxsize=1024)  # reading one takes as long as a small request's head, and most are the same
def _parse(host: str) -> IP | None:
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _reaches(ip: IP, own: IP | None) -> bool:
    if own is None:
        return False
    if ip.is_unspecified:  # connecting to 0.0.0.0 or :: means this machine
        return own.is_unspecified or own.is_loopback
    if own.is_unspecified:
        return own.version == ip.version and _on_this_machine(ip)
    return ip == own


def _on_this_machine(ip: IP) -> bool:
    """Only a local address can be bound; nothing is sent."""
    if ip.is_loopback:
        return True
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        return any(_can_bind(probe, address) for address in _scoped(ip))


def _scoped(ip: IP) -> Iterator[tuple[Any, ...]]:
    """An address as sockets have it: a link-local one belongs to an interface (RFC 4007 §6)."""
    yield str(ip), 0
    if ip.version == 6 and ip.is_link_local:
        yield from ((str(ip), 0, 0, index) for index, _ in socket.if_nameindex())


def _can_bind(probe: socket.socket, address: tuple[Any, ...]) -> bool:
    try:
        probe.bind(address)
    except OSError:
        return False
    return True
