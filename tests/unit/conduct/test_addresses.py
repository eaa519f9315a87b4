"""Which addresses lead back to the proxy."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from jwtproxy.conduct.addresses import OwnAddresses, parse_ip


def _machine_address() -> str:
    """The address of an interface, found without sending anything; loopback where there is no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("listening", "own", "foreign"),
    [
        ("127.0.0.1", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::"], ["127.0.0.2", "::1", "192.0.2.1"]),
        ("::1", ["::1", "::"], ["127.0.0.1", "::2", "2001:db8::1"]),
        ("0.0.0.0", ["0.0.0.0", "127.0.0.1", "127.3.2.1", _machine_address()], ["192.0.2.1", "198.51.100.7", "::1"]),
        ("::", ["::", "::1"], ["2001:db8::1", "127.0.0.1"]),
        ("192.0.2.1", ["192.0.2.1", "::ffff:192.0.2.1"], ["127.0.0.1", "0.0.0.0", "::"]),
        ("fe80::1%lo", ["fe80::1", "fe80::1%lo"], ["fe80::2"]),
    ],
)
def test_what_comes_back_to_the_listening_address(listening: str, own: list[str], foreign: list[str]) -> None:
    addresses = OwnAddresses([(listening, 8080)])

    def include(host: str, port: int = 8080) -> bool:
        ip = parse_ip(host)
        assert ip
        return addresses.include(ip, port)

    assert [host for host in own if not include(host)] == []
    assert [host for host in foreign if include(host)] == []
    assert [host for host in own if include(host, 8081)] == [], "another port is another server"


def test_several_sockets_are_all_ours() -> None:
    addresses = OwnAddresses([("127.0.0.1", 8080), ("::1", 9090, 0, 0)])
    assert addresses.ports == {8080, 9090}
    assert addresses.include(ipaddress.ip_address("::1"), 9090)
    assert not addresses.include(ipaddress.ip_address("::1"), 8080)


def test_without_a_socket_nothing_is_ours() -> None:
    addresses = OwnAddresses(())
    assert addresses.ports == frozenset()
    assert not addresses.include(ipaddress.ip_address("127.0.0.1"), 8080)


def test_a_socket_without_an_ip_address_is_never_reached_by_one() -> None:
    assert not OwnAddresses([("name", 8080)]).include(ipaddress.ip_address("0.0.0.0"), 8080)


@pytest.mark.parametrize(
    ("host", "ip"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::FFFF:10.1.2.3", "10.1.2.3"),
        ("fe80::1%eth0", "fe80::1"),
        ("localhost", None),
        ("", None),
        ("127.1", None),
        ("[::1]", None),
    ],
)
def test_literals_are_told_from_names(host: str, ip: str | None) -> None:
    assert parse_ip(host) == (ipaddress.ip_address(ip) if ip else None)


def test_a_link_local_address_may_be_that_of_any_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket can be bound to it without the number of its own."""
    tried: list[tuple[object, ...]] = []

    class Probe(socket.socket):
        def bind(self, address: tuple[object, ...]) -> None:  # type: ignore[override]
            tried.append(address)
            if address != ("fe80::7", 0, 0, 3):
                raise OSError

    monkeypatch.setattr(socket, "socket", Probe)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (3, "eth0"), (4, "eth1")])
    addresses = OwnAddresses([("::", 8080)])
    assert addresses.include(ipaddress.ip_address("fe80::7"), 8080)
    assert tried == [("fe80::7", 0), ("fe80::7", 0, 0, 1), ("fe80::7", 0, 0, 3)]
    assert not addresses.include(ipaddress.ip_address("fe80::8"), 8080)
    assert not addresses.include(ipaddress.ip_address("2001:db8::7"), 8080)
    assert len(tried) == 3 + 4 + 1
