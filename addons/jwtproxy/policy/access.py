"""Options about who may use the proxy, and where it may go."""

import ipaddress
import re
from collections.abc import Iterator

from ..conduct.access import CLIENTS, Access, Network
from ..conduct.destination import normalise
from ..config.options import Option, one_of

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def _destinations(value: str) -> tuple[str, ...]:
    """Networks and names, each in its one spelling."""
    return tuple(_destination(part) for part in _parts(value))


def _destination(part: str) -> str:
    try:
        return str(ipaddress.ip_network(part.strip("[]")))
    except ValueError:
        pass
    name = part.removeprefix("*.")
    try:
        if name and not re.search(r"[/:]", name):
            return part[: len(part) - len(name)] + normalise("http", name, 80).host
    except ValueError:
        pass
    raise ValueError(f"{part!r} is neither a network, as 10.0.0.0/8, nor a name, as api.internal or *.internal")


def _ports(value: str) -> tuple[range, ...]:
    return tuple(_port_range(part) for part in _parts(value))


def _port_range(part: str) -> range:
    found = _PORTS.fullmatch(part)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last < 65536:
        raise ValueError(f"{part!r} is not a port, as 443, nor a range, as 8000-8999")
    return range(first, last + 1)


def _clients(value: str) -> tuple[Network, ...]:
    return tuple(_network(part) for part in _parts(value))


def _network(part: str) -> Network:
    try:
        return ipaddress.ip_network(part.strip("[]"))
    except ValueError:
        raise ValueError(f"{part!r} is neither an address, as 10.0.0.7, nor a network, as 10.0.0.0/8") from None


def _parts(value: str) -> Iterator[str]:
    return filter(None, re.split(r"[\s,]+", value))


OPTIONS = (
    Option(
        "jwt_deny_private",
        "off",
        one_of("off", "on"),
        "guards",
        "Whether private and loopback addresses may be reached through the proxy: off (they may) or on (403).",
        limit=True,
    ),
    Option(
        "jwt_allow_destination",
        "",
        _destinations,
        "guards",
        "Networks and host names, by commas, that may be reached although they are link-local, lead to a cloud's "
        "metadata, or are private: 169.254.1.0/24, api.internal, *.svc.",
        limit=True,
    ),
    Option(
        "jwt_allow_port",
        "",
        _ports,
        "guards",
        "The only ports that may be reached through the proxy, by commas: 443, 8000-8999; empty: all of them.",
        limit=True,
    ),
    Option(
        CLIENTS,
        "",
        _clients,
        "guards",
        "The addresses and networks of clients that may use the proxy, by commas: 10.0.0.0/8, 192.0.2.7; empty: all.",
        limit=True,
    ),
)


def access(
    deny_private: str, destinations: tuple[str, ...], ports: tuple[range, ...], clients: tuple[Network, ...]
) -> Access:
    """The values of these options as one."""
    networks: list[Network] = []
    names: list[str] = []
    for destination in destinations:
        try:
            networks.append(ipaddress.ip_network(destination))
        except ValueError:
            names.append(destination)
    suffixes = tuple(name[1:] for name in names if name.startswith("*."))
    exact = frozenset(name for name in names if not name.startswith("*."))
    return Access(deny_private == "on", tuple(networks), exact, suffixes, ports, clients)
