"""Which destinations are denied, by name and by address."""

import ipaddress

import pytest

from jwtproxy.conduct.access import OPEN, Access, Denial, denial_in, denied

IMDS = "169.254.169.254"
DEFAULT = Access()
STRICT = Access(deny_private=True)

METADATA = (
    *("169.254.169.254", "169.254.0.1", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42"),
    *("::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::169.254.169.254", "::ffff:0:169.254.169.254"),
    *("64:ff9b::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::"),
    *("2002:a9fe:a9fe::1", "fd00::5efe:a9fe:a9fe", "2001:0:4136:e378:8000:63bf:5601:5601"),
)
PRIVATE = (
    *("127.0.0.1", "127.255.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1"),
    *("::1", "::", "fc00::1", "fd12::1", "fec0::1", "224.0.0.1", "255.255.255.255", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:0a00:0001::1", "64:ff9b:1::7f00:1"),
)
PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1", "192.0.0.9")


def by_address(access: Access, address: str, host: str = "name.example", port: int = 443) -> Denial | None:
    return access.denies_address(host, ipaddress.ip_address(address), port)


@pytest.mark.parametrize("address", METADATA)
def test_addresses_of_metadata_are_denied_by_default(address: str) -> None:
    assert by_address(DEFAULT, address) is Denial.METADATA
    assert DEFAULT.denies_name(address, 80) is Denial.METADATA
    assert by_address(STRICT, address) is Denial.METADATA


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_denied_where_that_is_wished(address: str) -> None:
    assert by_address(DEFAULT, address) is None
    assert by_address(STRICT, address) is Denial.PRIVATE
    assert STRICT.denies_name(address, 80) is Denial.PRIVATE


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert by_address(STRICT, address) is None
    assert STRICT.denies_name(address, 80) is None


@pytest.mark.parametrize(
    "spelling",
    [
        *("2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "0xa9.254.0xa9.254", "169.254.43518", "169.16689662"),
        *(
            "169.254.169.254.",
            "①⑥⑨.254.169.254",
            "169。254。169。254",
            "METADATA.google.internal",
            "metadata.google.internal.",
        ),
    ],
)
def test_a_name_is_read_as_it_would_be_dialled(spelling: str) -> None:
    assert DEFAULT.denies_name(spelling, 80) is Denial.METADATA


def test_names_of_this_machine_are_private() -> None:
    for name in ("localhost", "LOCALHOST.", "api.localhost", "ip6-localhost"):
        assert STRICT.denies_name(name, 80) is Denial.PRIVATE
        assert DEFAULT.denies_name(name, 80) is None
    assert STRICT.denies_name("localhost.example", 80) is None


def test_a_known_name_is_where_it_leads() -> None:
    """So an exception for that holds for the name. One of several addresses is enough: each is judged when dialled."""
    access = Access(deny_private=True, networks=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network(IMDS)))
    for name in ("localhost", "api.localhost", "metadata.google.internal"):
        assert access.denies_name(name, 80) is None
    assert Access(deny_private=True, networks=(ipaddress.ip_network("127.0.0.2"),)).denies_name("localhost", 80)


@pytest.mark.parametrize(
    ("spelling", "denial"),
    [
        ("0169.254.169.254", Denial.METADATA),
        ("169.254.0169.000254.", Denial.METADATA),
        ("010.0.0.1", Denial.PRIVATE),
        ("012.0.0.1", Denial.PRIVATE),
        ("010.8.8.8.example", None),
        ("0999.1.1.1", None),
    ],
)
def test_a_zero_before_a_part_is_read_either_way(spelling: str, denial: Denial | None) -> None:
    """The next proxy may take it for a decimal number."""
    assert STRICT.denies_name(spelling, 80) is denial


def test_networks_may_be_excepted() -> None:
    access = Access(deny_private=True, networks=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("::1/128")))
    assert by_address(access, "10.1.9.9") is None
    assert by_address(access, "::ffff:10.1.9.9") is None
    assert by_address(access, "::1") is None
    assert by_address(access, "10.2.0.1") is Denial.PRIVATE
    assert by_address(Access(networks=(ipaddress.ip_network("169.254.1.0/24"),)), "169.254.1.7") is None


def test_an_exception_is_not_stretched_by_what_an_address_stands_for() -> None:
    """An address of a link may be written so that it seems to stand for one that is excepted."""
    access = Access(networks=(ipaddress.ip_network("10.0.0.0/8"),))
    assert by_address(access, "fe80::5efe:a00:1") is Denial.METADATA
    assert by_address(access, "fd00:ec2::5efe:a00:1") is Denial.METADATA
    excepted = Access(networks=(ipaddress.ip_network("fe80::/10"), ipaddress.ip_network("169.254.0.0/16")))
    assert by_address(excepted, "fe80::5efe:a00:1") is None
    assert by_address(excepted, "64:ff9b::a9fe:a9fe") is None


def test_names_may_be_excepted_wherever_they_lead() -> None:
    access = Access(deny_private=True, names=frozenset({"api.internal"}), suffixes=(".svc",))
    for name in ("api.internal", "API.internal.", "a.svc", "a.b.SVC"):
        assert by_address(access, "10.0.0.1", name) is None
        assert access.denies_name(name, 80) is None
    for name in ("svc", "xapi.internal", "api.internal.example", "asvc"):
        assert by_address(access, "10.0.0.1", name) is Denial.PRIVATE


def test_only_ports_of_the_list_are_allowed() -> None:
    access = Access(ports=(range(443, 444), range(8000, 8003)), names=frozenset({"api.internal"}))
    for port in (443, 8000, 8002):
        assert by_address(access, "1.1.1.1", port=port) is None
        assert access.denies_name("name.example", port) is None
    for port in (80, 7999, 8003):
        assert by_address(access, "1.1.1.1", "api.internal", port) is Denial.PORT
        assert access.denies_name("api.internal", port) is Denial.PORT
        assert access.denies_name("1.1.1.1", port) is Denial.PORT


def test_where_nobody_asked_nothing_is_denied() -> None:
    for address in (*METADATA, *PRIVATE, *PUBLIC):
        assert by_address(OPEN, address) is None


def test_a_long_name_is_not_remembered() -> None:
    access = Access()
    for length in (100, 100_000):
        assert access.denies_name("a" * length, 80) is None
    assert [len(host) for host, _ in access._known] == [100]


def test_many_names_do_not_fill_the_memory() -> None:
    access = Access()
    for number in range(5000):
        access.denies_name(f"n{number}.example", 80)
    assert len(access._known) <= 1024


def test_a_denial_counts_for_the_option_that_would_allow_it() -> None:
    options = {denial: denial.limit for denial in Denial}
    assert options == {
        Denial.METADATA: "jwt_allow_destination",
        Denial.PRIVATE: "jwt_deny_private",
        Denial.PORT: "jwt_allow_port",
        Denial.OWN: "",
    }


@pytest.mark.parametrize("denial", Denial)
def test_a_denial_is_known_again_by_its_words(denial: Denial) -> None:
    assert denial_in(denial.reason) is denial
    assert denial_in(f"Multiple exceptions: [Errno 111] Connect call failed ('::1', 80), {denial.reason}") is denial
    assert denial_in(f"certificate of {denial.reason}") is None
    assert denied("http://a.{b}.example:80", denial).startswith("http://a.{b}.example:80 is denied, as it")


CLIENTS = Access(clients=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")))


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"])
def test_clients_of_the_list_may_use_the_proxy(address: str) -> None:
    assert not CLIENTS.denies_client(address)
    assert not CLIENTS.denies_client(address)  # remembered


@pytest.mark.parametrize("address", ["127.0.0.1", "11.0.0.1", "::1", "2001:db9::1", "", "x", "fe80::1%eth0"])
def test_others_may_not_unless_there_is_no_list(address: str) -> None:
    assert CLIENTS.denies_client(address)
    assert CLIENTS.denies_client(address)
    assert not DEFAULT.denies_client(address)


def test_many_clients_do_not_fill_the_memory() -> None:
    for number in range(5000):
        CLIENTS.denies_client(f"192.0.{number // 256}.{number % 256}")
    assert len(CLIENTS._strangers) <= 1024
