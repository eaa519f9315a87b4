"""Whether somebody on this machine asks, and nobody by way of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.nearby import is_nearby


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8080", "localhost:"]
)
def test_who_is_here_and_says_so_is_nearby(client: str, host: str) -> None:
    assert is_nearby(client, host, ("host", "accept"))


@pytest.mark.parametrize("client", ["", "192.0.2.1", "10.0.0.1", "172.17.0.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_others_are_not(client: str) -> None:
    assert not is_nearby(client, "localhost", ())


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0"),
        *("localhost, evil.example", "evil.example:80:localhost", "127.0.0.1:8080@evil.example", "localhost:x"),
        *("192.0.2.1", "[2001:db8::1]:80", "localhost\t", "127.1", "2130706433", "0x7f.1", "localhost.", "[localhost]"),
    ],
)
def test_a_name_that_may_be_anybodys_is_not(host: str) -> None:
    assert not is_nearby("127.0.0.1", host, ())


@pytest.mark.parametrize("name", ["forwarded", "via", "x-forwarded-for", "x-real-ip"])
def test_nor_is_who_is_behind_a_server_here(name: str) -> None:
    assert not is_nearby("127.0.0.1", "127.0.0.1:8080", ("host", name))


@given(st.text())
def test_any_host_has_an_answer(host: str) -> None:
    assert is_nearby("127.0.0.1", host, ()) in (True, False)
