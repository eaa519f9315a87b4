"""SOCKS where HTTP is spoken."""

from __future__ import annotations

import pytest

from jwtproxy.conduct.socks import refusal


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\x05", b"\x05\xff"),
        (b"\x05\x02\x00\x02", b"\x05\xff"),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00", b"\x00\x5b\x00\x00\x00\x00\x00\x00"),
        (b"GET / HTTP/1.1", b""),
        (b"\r\n", b""),
        (b"\x16\x03\x01", b""),
        (b"", b""),
    ],
)
def test_a_client_is_refused_in_its_own_version(start: bytes, said: bytes) -> None:
    assert refusal(start) == said
