"""Whether somebody on this machine asks, and nobody by way of them.

A page from elsewhere may have a browser on this machine ask for anything. What comes back it cannot read, unless its
own name leads here, too (DNS rebinding): then that name is in Host.
"""

from collections.abc import Iterable

from .addresses import parse_ip

_HANDED_ON = frozenset(("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"))
"""Fields by which a server tells that it asks for another."""


def is_nearby(client: str, host: str, names: Iterable[str]) -> bool:
    """Whether a request comes from this machine, by a name that is only good there, and from nobody behind it.

    `host`: the value of Host, empty if there is none; `names`: those of all fields, in lower case.
    """
    return is_loopback(client) and is_loopback(_without_port(host)) and _HANDED_ON.isdisjoint(names)


def is_loopback(host: str) -> bool:
    """Whether this address or name leads to the machine itself, whoever is asked for it."""
    ip = parse_ip(host.removeprefix("[").removesuffix("]") if ":" in host else host)
    return ip.is_loopback if ip else host.lower() == "localhost"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (not port or (port.isascii() and port.isdigit())) and _is_whole(name) else host


def _is_whole(name: str) -> bool:
    """Whether this is all of a host, and not the beginning of an IPv6 address without brackets."""
    return ":" not in name or name.endswith("]")
