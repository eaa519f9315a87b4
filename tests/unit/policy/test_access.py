"""Options about where the proxy may go."""

import pytest

from jwtproxy.conduct.access import Access
from jwtproxy.config.errors import SettingsError
from jwtproxy.policy.access import OPTIONS, access

ROWS = {row.name: row for row in OPTIONS}


def read(**values: str) -> Access:
    return access(*(ROWS[name].check(values.get(name, "")) for name in ROWS))


def test_by_default_only_what_is_never_wanted_is_denied() -> None:
    assert read() == Access()


def test_what_is_written_is_understood() -> None:
    found = read(
        jwt_deny_private="on",
        jwt_allow_destination="10.0.0.0/8, [::1] API.internal,*.svc",
        jwt_allow_port="443 8000-8001",
        jwt_allow_client="192.0.2.7, 2001:db8::/32",
    )
    assert found.deny_private
    assert [str(network) for network in found.networks] == ["10.0.0.0/8", "::1/128"]
    assert found.names == {"api.internal"}
    assert found.suffixes == (".svc",)
    assert [str(network) for network in found.clients] == ["192.0.2.7/32", "2001:db8::/32"]
    assert found.ports == (range(443, 444), range(8000, 8002))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("jwt_deny_private", "yes", "off, on"),
        ("jwt_allow_destination", "10.0.0.0/33", "'10.0.0.0/33' is neither a network"),
        ("jwt_allow_destination", "10.0.0.1/8", "neither a network"),
        ("jwt_allow_destination", "http://a.example", "neither a network"),
        ("jwt_allow_destination", "a.example:80", "neither a network"),
        ("jwt_allow_destination", "*", "neither a network"),
        ("jwt_allow_destination", "a.*.example", "neither a network"),
        ("jwt_allow_client", "10.0.0.1/8", "'10.0.0.1/8' is neither an address"),
        ("jwt_allow_client", "api.internal", "neither an address"),
        ("jwt_allow_port", "0", "'0' is not a port"),
        ("jwt_allow_port", "65536", "is not a port"),
        ("jwt_allow_port", "90-80", "is not a port"),
        ("jwt_allow_port", "https", "is not a port"),
    ],
)
def test_a_mistake_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ROWS[name].check(value)
    assert name in str(caught.value)
    assert said in caught.value.hint
