"""Where something listens, as users write it."""

from __future__ import annotations

import pytest

from jwtproxy.config.place import Place, parse


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("127.0.0.1:9090", Place("127.0.0.1", 9090)),
        ("localhost:1", Place("localhost", 1)),
        ("[::1]:65535", Place("::1", 65535)),
        ("*:9090", Place("", 9090)),
        *[
            (value, None)
            for value in ("", "auto", "9090", ":9090", "a:0", "a:65536", "a:", "::1:80", "a b:1", "*", "a:-1")
        ],
        *[(value, None) for value in ("http://a:1", "a:1/", "[a]:1", "a:1\n", "a:\u0661", "u@a:1", "a:-1")],
    ],
)
def test_a_place_has_a_host_and_a_port(value: str, place: Place | None) -> None:
    assert parse(value) == place
