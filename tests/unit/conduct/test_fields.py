"""Exactly one copy of the token's field leaves, whatever the client sent, and nothing else changes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.fields import Fields, check, normalise, strip
from jwtproxy.conduct.malformed import MalformedError

NAME, TOKEN = b"x-my-jwt", b"ours"
NAMES = frozenset({NAME})


def _spelling(name: bytes) -> st.SearchStrategy[bytes]:
    """The name in any case, with any of its hyphens as underscores; all of them in one draw, which is cheaper."""
    variants = [{char, char.upper()} | ({"_"} if char == "-" else set()) for char in name.decode()]
    return st.sampled_from(["".join(chars).encode() for chars in itertools.product(*map(sorted, variants))])


ours = _spelling(NAME)
breaks = st.sampled_from([b"\r", b"\n", b"\0", b"\r\n"])
values = st.binary(max_size=20).map(lambda value: value.translate(None, bytes((*range(9), *range(10, 32), 127))))
others = st.sampled_from([b"Host", b"X-My-Jwt-2", b"X-My", b"x-my-jw7", b"Cookie", b"Connection", b"Accept", b"ACCEPT"])


innocent_fields = st.lists(st.tuples(others, values), max_size=6).map(tuple)
any_fields = st.lists(st.tuples(others | ours, values), max_size=6).map(tuple)


@given(any_fields)
def test_no_copy_is_left(fields: Fields) -> None:
    assert NAME not in {normalise(name) for name, _ in strip(fields, NAMES)}


@given(any_fields)
def test_other_fields_stay_byte_for_byte_in_order(fields: Fields) -> None:
    """Connection, too: that it names no token is seen to in forwarding."""
    assert strip(fields, NAMES) == tuple(field for field in fields if normalise(field[0]) != NAME)


@given(innocent_fields)
def test_fields_that_do_not_mention_the_name_stay_byte_for_byte(fields: Fields) -> None:
    assert strip(fields, NAMES) == fields


@given(any_fields, ours)
def test_a_token_put_in_before_is_taken_out_too(fields: Fields, name: bytes) -> None:
    kept = strip(fields, NAMES)
    assert strip((*kept, (name, TOKEN)), NAMES) == kept


@given(innocent_fields, others, values, breaks, values)
def test_a_value_that_may_hide_another_line_is_refused(
    fields: Fields, name: bytes, before: bytes, line_break: bytes, after: bytes
) -> None:
    with pytest.raises(MalformedError, match=r"^a header value contains a control character$"):
        strip((*fields, (name, before + line_break + after)), NAMES)


@pytest.mark.parametrize("name", [b"", b"a\r\nx-my-jwt", b"x-my-jwt:a", b" x-my-jwt", b"a\0b", b"\xe9", b"a b"])
def test_a_name_is_a_token_whoever_made_it(name: bytes) -> None:
    for fields in (((name, b"b"),), ((b"A", b"b"), (name, b""), (b"C", b"d"))):
        with pytest.raises(MalformedError, match=r"^a header's name is not a token$") as caught:
            check(fields)
        assert caught.value.status == 502, "no client's can be like that: it was refused when it came"
    check(((b"A", b"b\t\xe9"), (b"!#$%&'*+-.^_`|~09azAZ", b"")))
    check(())


@pytest.mark.parametrize("name", ["x-my-jwt", b"X-My-JWT", "X_MY_JWT", b"x_my-jwt"])
def test_spellings_that_gateways_take_for_the_same_are_the_same(name: str | bytes) -> None:
    assert normalise(name) == NAME


def test_each_of_several_names_is_taken_out() -> None:
    fields = ((b"X_Identity", b"evil"), (b"Accept", b"*/*"))
    left = strip((*fields, (b"x-my_jwt", b"evil")), frozenset({NAME, b"x-identity"}))
    assert left == ((b"Accept", b"*/*"),)
    assert strip(fields, frozenset()) == fields
