"""Exactly one copy of the token's field leaves, whatever the client sent, and nothing else changes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.fields import Fields, MalformedFieldError, normalise, strip

NAME, TOKEN = b"x-my-jwt", b"ours"
NAMES = frozenset({NAME})


def _spelling(name: bytes) -> st.SearchStrategy[bytes]:
    """The name in any case, with any of its hyphens as underscores; all of them in one draw, which is cheaper."""
    variants = [{char, char.upper()} | ({"_"} if char == "-" else set()) for char in name.decode()]
    return st.sampled_from(["".join(chars).encode() for chars in itertools.product(*map(sorted, variants))])


ours = _spelling(NAME)
breaks = st.sampled_from([b"\r", b"\n", b"\0", b"\r\n"])
values = st.binary(max_size=20).map(lambda value: value.translate(None, b"\r\n\0"))
others = st.sampled_from([b"Host", b"X-My-Jwt-2", b"X-My", b"x-my-jw7", b"Cookie", b"Connectio", b"Accept", b"ACCEPT"])
options = st.sampled_from([b"close", b"keep-alive", b"Upgrade", b"x-my-jwt-2"])
separators = st.sampled_from([b",", b", ", b" ,", b"  ,\t"])
connections = _spelling(b"connection")


@st.composite
def option_lists(draw: st.DrawFn, option: st.SearchStrategy[bytes]) -> bytes:
    """The value of a Connection field, oddly but correctly spaced."""
    chosen = draw(st.lists(option, min_size=1, max_size=4))
    return chosen[0] + b"".join(draw(separators) + one for one in chosen[1:])


innocent = st.tuples(others, values) | st.tuples(connections, option_lists(options))
guilty = st.tuples(ours, values) | st.tuples(connections, option_lists(options | ours))
innocent_fields = st.lists(innocent, max_size=6).map(tuple)
any_fields = st.lists(innocent | guilty, max_size=6).map(tuple)


def _is_connection(name: bytes) -> bool:
    return name.lower() == b"connection"


def _options(fields: Fields) -> list[bytes]:
    return [option.strip() for name, value in fields if _is_connection(name) for option in value.split(b",")]


@given(any_fields)
def test_no_copy_is_left(fields: Fields) -> None:
    assert NAME not in {normalise(name) for name, _ in strip(fields, NAMES)}


@given(any_fields)
def test_no_connection_field_tells_the_next_hop_to_drop_it(fields: Fields) -> None:
    left = _options(strip(fields, NAMES))
    assert NAME not in map(normalise, left)
    assert left == [option for option in _options(fields) if normalise(option) != NAME], "the others are kept, in order"


@given(any_fields)
def test_other_fields_stay_byte_for_byte_in_order(fields: Fields) -> None:
    kept = tuple(field for field in fields if normalise(field[0]) != NAME and not _is_connection(field[0]))
    assert tuple(field for field in strip(fields, NAMES) if not _is_connection(field[0])) == kept


@given(innocent_fields)
def test_fields_that_do_not_mention_the_name_stay_byte_for_byte(fields: Fields) -> None:
    assert strip(fields, NAMES) == fields


@given(any_fields, ours)
def test_a_token_put_in_before_is_taken_out_too(fields: Fields, name: bytes) -> None:
    kept = strip(fields, NAMES)
    assert strip((*kept, (name, TOKEN)), NAMES) == kept


@given(innocent_fields, others | connections, values, breaks, values)
def test_a_value_that_may_hide_another_line_is_refused(
    fields: Fields, name: bytes, before: bytes, line_break: bytes, after: bytes
) -> None:
    with pytest.raises(MalformedFieldError):
        strip((*fields, (name, before + line_break + after)), NAMES)


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"x-my-jwt", None),
        (b"X_My_JWT", None),
        (b" x-my-jwt , x-my-jwt", None),
        (b"close, x-my-jwt", b"close"),
        (b"x-my-jwt, close", b"close"),
        (b"a,X-MY-JWT,b", b"a,b"),
        (b"x-my-jwt-2, close", b"x-my-jwt-2, close"),
        (b"", b""),
    ],
)
def test_our_name_is_taken_out_of_connection(value: bytes, left: bytes | None) -> None:
    assert strip(((b"Connection", value),), NAMES) == (() if left is None else ((b"Connection", left),))


@pytest.mark.parametrize("name", ["x-my-jwt", b"X-My-JWT", "X_MY_JWT", b"x_my-jwt"])
def test_spellings_that_gateways_take_for_the_same_are_the_same(name: str | bytes) -> None:
    assert normalise(name) == NAME


def test_each_of_several_names_is_taken_out() -> None:
    fields = ((b"X_Identity", b"evil"), (b"Accept", b"*/*"), (b"Connection", b"a, x-identity, X-My-JWT"))
    left = strip((*fields, (b"x-my_jwt", b"evil")), frozenset({NAME, b"x-identity"}))
    assert left == ((b"Accept", b"*/*"), (b"Connection", b"a"))
    assert strip(fields, frozenset()) == fields
