"""The one name that the proxy answers for itself."""

from __future__ import annotations

import pytest

from jwtproxy.conduct import echo


@pytest.mark.parametrize("host", ["jwtproxy.test", "JWTproxy.TEST", "jwtproxy.test."])
@pytest.mark.parametrize("port", [80, 443])
def test_it_is_known_in_each_spelling_at_the_ports_of_both_schemes(host: str, port: int) -> None:
    assert echo.is_echo(host, port)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "test",
        "a.jwtproxy.test",
        "jwtproxy.test.example",
        "jwtproxy.test..",
        "jwtproxy-test",
        "jwtproxy.tes\u0074\u0301",
    ],
)
def test_no_other_name_is(host: str) -> None:
    assert not echo.is_echo(host, 80)


@pytest.mark.parametrize("port", [0, 81, 8080, 8443])
def test_nor_another_port(port: int) -> None:
    assert not echo.is_echo("jwtproxy.test", port)
