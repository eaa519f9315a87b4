"""Our header look-ups find what mitmproxy's find."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.http import Headers

from jwtproxy.mitm import lookups

NAMES = st.sampled_from([b"a", b"A", b"x-y", b"X-Y", b"\xc3\xa4", b"\xc3\x84", b""])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=5)), max_size=5)
ASKED = NAMES | NAMES.map(lambda name: name.decode()) | st.text(max_size=3)


@given(FIELDS, ASKED)
def test_the_same_is_found(fields: list[tuple[bytes, bytes]], name: str | bytes) -> None:
    headers = Headers(fields)
    assert lookups.get_all(headers, name) == headers.get_all(name)
    assert lookups.get(headers, name, "none") == headers.get(name, "none")
    assert lookups.contains(headers, name) == (name in headers)


def test_nothing_but_a_name_is_found() -> None:
    assert not lookups.contains(Headers([(b"1", b"x")]), 1)


def test_they_may_take_the_place_of_mitmproxys() -> None:
    assert lookups.agree()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_reduce_values", staticmethod(lambda values: values[0])),
        ("get_all", lambda self, name: []),
        ("get", lambda self, name: None),
        ("__contains__", lambda self, name: True),
    ],
)
def test_they_may_not_where_mitmproxys_find_something_else(
    monkeypatch: pytest.MonkeyPatch, name: str, other: Any
) -> None:
    monkeypatch.setattr(Headers, name, other, raising=False)
    assert not lookups.agree()
