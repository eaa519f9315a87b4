"""Who may use the proxy, and where it may go: a client could use it to reach what only the proxy's machine reaches.

A cloud's metadata service hands out credentials to whoever asks from the machine; link-local addresses lead to it and
to other neighbours that trust the machine. So they are denied, and, where that is wished, all private addresses are.
What counts is the address that is dialled, whatever the name was (server-side request forgery by DNS).
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from .addresses import IP, parse_ip
from .destination import normalise
from .proxy_status import ErrorType

_REMEMBERED = 1024
_LONGEST = 253  # characters of a name that is remembered

CLIENTS = "jwt_allow_client"
"""The option that names who may use the proxy."""
STRANGER = "this client may not use the proxy; jwt_allow_client names those who may"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Denial(StrEnum):
    """Why a destination is denied: the words for it."""

    METADATA = "a link-local or metadata address"
    PRIVATE = "a private address"
    PORT = "a port that is not allowed"
    OWN = "the proxy itself"

    @property
    def limit(self) -> str:
        """The option that allows it; empty where nothing does."""
        return _LIMITS.get(self, "")

    @property
    def error(self) -> ErrorType:
        """Of which type that is."""
        return ErrorType.HTTP_REQUEST_DENIED if self is Denial.PORT else ErrorType.DESTINATION_IP_PROHIBITED

    @property
    def reason(self) -> str:
        """Why no connection was made, in words that `denial_in` knows again."""
        return f"denied: {self}"


_LIMITS = {
    Denial.METADATA: "jwt_allow_destination",
    Denial.PRIVATE: "jwt_deny_private",
    Denial.PORT: "jwt_allow_port",
}
_TEXTS = {
    Denial.METADATA: "{place} is denied, as it is a link-local or metadata address; jwt_allow_destination permits it",
    Denial.PRIVATE: "{place} is denied, as it is a private address; jwt_allow_destination permits it",
    Denial.PORT: "{place} is denied, as its port is not in jwt_allow_port",
    Denial.OWN: "{place} is denied, as it is the proxy itself",
}

_MANY = "Multiple exceptions: "  # asyncio's words

_METADATA = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # RFC 3927; most clouds' metadata at .169.254, ECS's at .170.2
        "fe80::/10",  # RFC 4291 §2.5.6
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google
        "fd00:42::42/128",  # Scaleway
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure
        "192.0.0.192/32",  # Oracle
    )
)
_CLOUDS = (ipaddress.ip_address("169.254.169.254"),)
_LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
# Where these lead is known, also where the next proxy resolves them.
_NAMES = dict.fromkeys(
    (
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
    ),
    _CLOUDS,
) | dict.fromkeys(("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"), _LOOPBACK)
_DECIMAL = re.compile(r"0*([0-9]{1,3})\.0*([0-9]{1,3})\.0*([0-9]{1,3})\.0*([0-9]{1,3})\.?")

_EMBEDDING = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped (RFC 4291 §2.5.5.2)
    (ipaddress.IPv6Network("::/96"), 0),  # IPv4-compatible (§2.5.5.1)
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated (RFC 7915)
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052 §2.1)
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),  # the same, of one site (RFC 8215), with a prefix of 96 bits
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056 §2)
)
"""IPv6 addresses that stand for an IPv4 address, and how many bits follow that."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214 §6.1
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")


@dataclass(frozen=True)
class Access:
    """Which destinations are allowed."""

    deny_private: bool = False
    """Whether addresses are denied that are not of the public internet, loopback among them."""
    networks: tuple[Network, ...] = ()
    """Exceptions: addresses that are allowed all the same."""
    names: frozenset[str] = frozenset()
    """Exceptions: host names, which are allowed wherever they lead."""
    suffixes: tuple[str, ...] = ()
    """The same of all names that end so; each begins with a dot."""
    ports: tuple[range, ...] = ()
    """The ports that are allowed; none: all of them."""
    clients: tuple[Network, ...] = ()
    """Whose addresses may use the proxy; none: everybody's."""
    _known: dict[tuple[str, int], Denial | None] = field(default_factory=dict, compare=False, repr=False)
    _judged: dict[tuple[str, IP, int], Denial | None] = field(default_factory=dict, compare=False, repr=False)
    _strangers: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def denies_client(self, address: str) -> bool:
        """Whether who has this address may not use the proxy."""
        if not self.clients:
            return False
        try:
            return self._strangers[address]
        except KeyError:
            ip = parse_ip(address)
        return _remember(self._strangers, address, not (ip and _within(ip, self.clients)))

    def denies_name(self, host: str, port: int) -> Denial | None:
        """Why a destination is denied, as far as its name tells, or the address that is written there."""
        try:
            return self._known[host, port]
        except KeyError:
            denial = self._look_at_name(host, port)
        if len(host) <= _LONGEST:
            _remember(self._known, (host, port), denial)
        return denial

    def denies_address(self, host: str, ip: IP, port: int) -> Denial | None:
        """Why it is denied to dial this address, which somebody asked for by this name."""
        try:
            return self._judged[host, ip, port]
        except KeyError:
            denial = self._look_at_dialled(host, ip, port)
        if len(host) <= _LONGEST:
            _remember(self._judged, (host, ip, port), denial)
        return denial

    def _look_at_dialled(self, host: str, ip: IP, port: int) -> Denial | None:
        if not self._allows_port(port):
            return Denial.PORT
        return None if self._is_excepted(_normal(host)) else self._look_at_address(ip)

    def _look_at_name(self, host: str, port: int) -> Denial | None:
        name = _normal(host)
        if not self._allows_port(port):
            return Denial.PORT
        if self._is_excepted(name):
            return None
        if denial := next(filter(None, map(self._look_at_address, _written(name, host))), None):
            return denial
        # Any of them may be dialled: then the address is judged.
        denials = [self._look_at_address(ip) for ip in _leads_to(name)]
        return denials[0] if denials and all(denials) else None

    def _look_at_address(self, ip: IP) -> Denial | None:
        meant = [ip, *_embedded(ip)]
        others = [one for one in meant if not _within(one, self.networks)]
        if ip in others and any(_within(one, _METADATA) for one in others):
            return Denial.METADATA  # also where it stands for an address that is excepted: it is one itself
        if others != meant:
            return None
        # All of them: who may be reached in one of these ways only by an address that looks public, is not.
        return Denial.PRIVATE if self.deny_private and not all(_is_public(one) for one in meant) else None

    def _is_excepted(self, name: str) -> bool:
        return name in self.names or name.endswith(self.suffixes)

    def _allows_port(self, port: int) -> bool:
        return not self.ports or any(port in allowed for allowed in self.ports)


def _remember[Key, Value](known: dict[Key, Value], key: Key, value: Value) -> Value:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
    return value


def denial_in(reason: str) -> Denial | None:
    """The denial that is why no connection was made, if one is; a name's other addresses may have failed otherwise."""
    for denial in Denial:
        if reason == denial.reason or (reason.startswith(_MANY) and denial.reason in reason):
            return denial
    return None


def denied(place: str, denial: Denial) -> str:
    """What to tell a client that asked for this place."""
    return _TEXTS[denial].format(place=place)


OPEN = Access(networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
"""Where nobody has asked for a guard."""


def _normal(host: str) -> str:
    """A host in its one spelling; as it is where that cannot be dialled."""
    try:
        return normalise("http", host, 80).host
    except ValueError:
        return host


def _written(name: str, host: str) -> Iterator[IP]:
    """The addresses for which a host may be taken: most read parts that begin with zero as octal, some do not."""
    if ip := parse_ip(name):
        yield ip
    if (found := _DECIMAL.fullmatch(host)) and (other := parse_ip(".".join(found.groups()))):
        yield other


def _leads_to(name: str) -> tuple[IP, ...]:
    return _LOOPBACK if name.endswith(".localhost") else _NAMES.get(name, ())  # RFC 6761 §6.3


def _within(ip: IP, networks: Iterable[Network]) -> bool:
    return any(ip in network for network in networks)  # of another version: false


def _is_public(ip: IP) -> bool:
    return ip.is_global and not (ip.is_multicast or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local))


def _embedded(ip: IP) -> Iterator[IP]:
    """The IPv4 addresses for which an IPv6 address stands."""
    if ip.version == 4:
        return
    number = int(ip)
    for network, after in _EMBEDDING:
        if ip in network:
            yield ipaddress.IPv4Address(number >> after & 0xFFFF_FFFF)
    if ip in _LOCAL_NAT64:  # with its own prefix of 48 bits: around the octet that must be zero (RFC 6052 §2.2)
        yield ipaddress.IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)
    if number >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    if teredo := ip.teredo:
        yield from teredo
