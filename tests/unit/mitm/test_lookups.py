"""Our look-ups find what mitmproxy's find."""

from collections.abc import Sequence
from typing import Any

import pytest
from hyperframe.frame import HeadersFrame
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.http import Headers
from mitmproxy.optmanager import _Option

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


@pytest.mark.parametrize(
    ("kind", "default", "other"),
    [
        (bool, True, False),
        (int, 1, 2),
        (str, "a", "b"),
        (str | None, None, "b"),
        (Sequence[str], ["a"], ["b"]),
    ],
)
def test_an_option_has_the_same_value(kind: Any, default: Any, other: Any) -> None:
    option = _Option("a", kind, default, "", None)
    assert lookups.current(option) == option.current() == default
    option.set(other)
    assert lookups.current(option) == option.current() == other
    assert not isinstance(other, list) or lookups.current(option) is not other
    assert lookups.options_agree()


def test_options_may_not_where_mitmproxys_say_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Option, "current", lambda self: self._default)
    assert not lookups.options_agree()


def test_a_frame_is_described_by_its_kind_and_stream() -> None:
    assert lookups.describe(HeadersFrame(3, data=b"secret")) == "HeadersFrame(stream_id=3)"
