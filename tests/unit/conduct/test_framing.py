"""Where a body ends is read in one way only, or the message is refused (RFC 9112 §6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.framing import (
    CHUNKED,
    UNTIL_CLOSED,
    frame_for_client,
    frame_request,
    frame_response,
    has_no_body,
    is_tunnel,
    needs_length,
    persists,
    request_length,
    response_length,
)
from jwtproxy.conduct.malformed import MalformedError

NEW, OLD = b"HTTP/1.1", b"HTTP/1.0"
CLOSE = (b"Connection", b"close")
OTHER: Fields = ((b"A", b"b"), (b"Content-Length2", b"9"), (b"X-Content-Len", b"9"), (b"Transfer-Encodin", b"9"))

BOTH = "Content-Length and Transfer-Encoding exclude each other"
TWICE = "Content-Length is given more than once"
NO_NUMBER = "Content-Length is not a number of at most 19 digits without leading zeros"
CODINGS = "Transfer-Encoding is given more than once"
TOO_OLD = "HTTP/1.0 has no Transfer-Encoding"
UNKNOWN = "no transfer coding but chunked is supported"
HYPHEN = "Content-Length and Transfer-Encoding are written with a hyphen"


def _readings(version: bytes, fields: Fields) -> list[Callable[[], int | None]]:
    """Ways to read them: as a request's, and as an answer's."""
    return [lambda: request_length(version, fields), lambda: response_length(b"GET", 200, version, fields)]


def _length(*values: str, name: str = "Content-Length") -> Fields:
    return tuple((name.encode(), value.encode("latin-1")) for value in values)


def _coding(*values: str, name: str = "Transfer-Encoding") -> Fields:
    return _length(*values, name=name)


# --- lengths that are read

LENGTHS = {"0": 0, "1": 1, "42": 42, "9223372036854775807": 2**63 - 1, "9999999999999999999": 10**19 - 1}
NO_LENGTHS = """\
00 01 +1 -1 -0 1.0 1e3 0x1 1_0 ٣ ¹ 1,1 1,2 5, ,5 a 10000000000000000000 99999999999999999999""".split()


@pytest.mark.parametrize("version", [NEW, OLD])
@pytest.mark.parametrize(("value", "length"), LENGTHS.items())
@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
def test_a_length_is_a_plain_number(version: bytes, value: str, length: int, name: str) -> None:
    """RFC 9110 §8.6."""
    fields = OTHER + _length(value, name=name)
    assert request_length(version, fields) == response_length(b"GET", 200, version, fields) == length


@pytest.mark.parametrize(
    "value", [*NO_LENGTHS, "", "1 1", "1, 1", "9" * 5000, "1\n", "1\xb2"], ids=lambda v: repr(v[:25])
)
def test_what_readers_might_take_for_different_lengths_is_none(value: str) -> None:
    """RFC 9112 §6.3, rule 5: even a list of the same; Python's int() reads more than a length may be."""
    fields = ((b"Content-Length", value.encode()),)
    for read in _readings(NEW, fields):
        with pytest.raises(MalformedError) as caught:
            read()
        assert (str(caught.value), caught.value.status) == (NO_NUMBER, 400)


def test_a_request_without_a_length_has_no_body_and_an_answer_one_that_ends_with_the_connection() -> None:
    """RFC 9112 §6.3, rules 7 and 8."""
    for version in (NEW, OLD):
        assert request_length(version, OTHER) == 0
        assert response_length(b"GET", 200, version, OTHER) == UNTIL_CLOSED


# --- codings


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "CHUNKED"])
def test_chunks_are_read(coding: str) -> None:
    """RFC 9112 §7: coding names are case-insensitive."""
    for name in ("Transfer-Encoding", "transfer-encoding"):
        fields = OTHER + _coding(coding, name=name)
        assert request_length(NEW, fields) is response_length(b"GET", 200, NEW, fields) is CHUNKED


def test_an_answer_may_say_that_it_has_no_coding() -> None:
    """As RFC 2616 had it; some servers still say so."""
    for coding in ("identity", "Identity"):
        assert response_length(b"GET", 200, NEW, _coding(coding)) == UNTIL_CLOSED


@pytest.mark.parametrize(
    ("fields", "text", "status", "of_answers"),
    [
        (_coding("gzip, chunked"), UNKNOWN, 501, True),  # RFC 9112 §6.1
        (_coding("gzip ,\tChunked "), UNKNOWN, 501, True),
        (_coding("chunked, chunked"), UNKNOWN, 501, True),
        (_coding("identity"), UNKNOWN, 400, False),
        (_coding("gzip"), UNKNOWN, 400, True),
        (_coding("chunked, gzip"), UNKNOWN, 400, True),  # RFC 9112 §6.3, rule 4: it has no end
        (_coding("chunked, identity"), UNKNOWN, 400, True),
        (_coding("chunked,"), UNKNOWN, 400, True),
        (_coding("chunked;q=1"), UNKNOWN, 400, True),
        (_coding('"chunked"'), UNKNOWN, 400, True),
        (_coding("xchunked"), UNKNOWN, 400, True),
        (_coding("chun\u00adked"), UNKNOWN, 400, True),
        (_coding("\x0bchunked"), UNKNOWN, 400, True),
        (_coding(""), UNKNOWN, 400, True),
        (_coding("chunked", "chunked"), CODINGS, 400, True),
        (_coding("gzip", "chunked"), CODINGS, 400, True),
        (_coding("chunked", "identity"), CODINGS, 400, True),
        (_coding("chunked") + _length("1"), BOTH, 400, True),  # RFC 9112 §6.1 and §6.3, rule 3
        (_length("1") + _coding("chunked", name="transfer-encoding"), BOTH, 400, True),
        (_length("0") + _coding("identity"), BOTH, 400, True),
        (_length("x") + _coding("x"), BOTH, 400, True),
        (_length("1", "2"), TWICE, 400, True),
        (_length("1") + _length("2", name="content-length"), TWICE, 400, True),
        (_length("2", name="Content_Length"), HYPHEN, 400, False),
        (_length("2") + _length("2", name="content_length"), HYPHEN, 400, False),
        (_coding("chunked", name="Transfer_Encoding"), HYPHEN, 400, False),
    ],
)  # fmt: skip
def test_what_readers_might_frame_differently_is_refused(
    fields: Fields, text: str, status: int, of_answers: bool
) -> None:
    with pytest.raises(MalformedError) as caught:
        request_length(NEW, OTHER + fields)
    assert (str(caught.value), caught.value.status) == (text, status)
    if of_answers:
        for method, code in ((b"GET", 200), (b"HEAD", 200), (b"GET", 304)):
            with pytest.raises(MalformedError) as caught:
                response_length(method, code, NEW, OTHER + fields)
            assert str(caught.value) == text


@pytest.mark.parametrize("coding", ["chunked", "identity", "gzip, chunked"])
def test_http_1_0_has_no_codings(coding: str) -> None:
    """RFC 9112 §6.1: a server or client of that version could not have understood them."""
    for read in _readings(OLD, _coding(coding)):
        with pytest.raises(MalformedError, match=TOO_OLD) as caught:
            read()
        assert caught.value.status == 400


# --- answers that end with their heads

BODILESS = [
    *((b"HEAD", status) for status in (200, 204, 304, 404, 502)),
    *((method, status) for method in (b"GET", b"POST", b"CONNECT") for status in (100, 101, 103, 199, 204, 304)),
]


@pytest.mark.parametrize(("method", "status"), BODILESS)
def test_some_answers_have_no_body_whatever_their_heads_say(method: bytes, status: int) -> None:
    """RFC 9110 §6.4.1, RFC 9112 §6.3, rules 1 and 2."""
    assert has_no_body(method, status)
    for fields in ((), _length("5"), _coding("chunked"), _coding("identity")):
        assert response_length(method, status, NEW, fields) == 0
        for old in (False, True):
            length, framed = frame_response(method, status, OTHER + fields, old=old)
            assert length == 0
            assert framed[: len(OTHER)] == OTHER
            assert b"transfer-encoding" not in {name.lower() for name, _ in framed}


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"head", 200), (b"GET", 205), (b"CONNECT", 407)])
def test_all_others_may_have_one(method: bytes, status: int) -> None:
    assert not has_no_body(method, status)
    assert response_length(method, status, NEW, _length("5")) == 5


@pytest.mark.parametrize("status", [200, 201, 299])
def test_what_follows_an_accepted_connect_is_the_tunnel(status: int) -> None:
    """RFC 9110 §9.3.6: length and coding in such an answer mean nothing, and are not passed on."""
    assert not has_no_body(b"CONNECT", status)
    for fields in (_length("5"), _coding("chunked"), ()):
        assert response_length(b"CONNECT", status, NEW, fields) == 0
        assert frame_response(b"CONNECT", status, OTHER + fields, old=False) == (0, OTHER)


@pytest.mark.parametrize(
    ("method", "status", "kept"),
    [(b"HEAD", 200, True), (b"GET", 304, True), (b"HEAD", 204, False), (b"GET", 204, False), (b"GET", 101, False)],
)
def test_the_length_that_a_body_would_have_had_is_told_where_that_is_allowed(
    method: bytes, status: int, kept: bool
) -> None:
    """RFC 9110 §8.6."""
    fields = OTHER + _length("5")
    assert frame_response(method, status, fields, old=False) == (0, fields if kept else OTHER)


# --- how answers are sent on


@pytest.mark.parametrize(
    ("fields", "old", "expected"),
    [
        (_length("5"), False, (0, _length("5"))),
        (_length("5"), True, (0, _length("5"))),
        (_coding("chunked"), False, (CHUNKED, _coding("chunked"))),
        (_coding("Chunked", name="transfer-encoding"), False, (CHUNKED, _coding("Chunked", name="transfer-encoding"))),
        (_coding("chunked"), True, (UNTIL_CLOSED, ())),  # RFC 9112 §6.1
        ((), False, (UNTIL_CLOSED, ())),
        ((), True, (UNTIL_CLOSED, ())),
        (_coding("identity"), False, (UNTIL_CLOSED, ())),
        # what only a script can have made
        (_length("5") + _coding("chunked"), False, (CHUNKED, _coding("chunked"))),
        (_coding("chunked") + _length("5", "6"), False, (CHUNKED, _coding("chunked"))),
        (_length("5") + _coding("chunked"), True, (UNTIL_CLOSED, ())),
        (_length("5") + _coding("gzip"), False, (0, _length("5"))),
        (_coding("identity") + _length("5"), True, (0, _length("5"))),
    ],
)
def test_an_answer_says_once_where_it_ends_in_words_its_client_knows(
    fields: Fields, old: bool, expected: tuple[int | None, Fields]
) -> None:
    for method in (b"GET", b"POST"):
        framing, framed = frame_response(method, 200, OTHER + fields, old=old)
        assert (framing, framed) == (expected[0], OTHER + expected[1])


def test_what_needs_no_change_is_not_copied() -> None:
    for fields in (_length("5"), _coding("chunked")):
        assert frame_response(b"GET", 200, fields, old=False)[1] is fields


names = st.sampled_from([b"Content-Length", b"content-length", b"Transfer-Encoding", b"TRANSFER-ENCODING", b"A"])
values = st.sampled_from([b"0", b"5", b"chunked", b"Chunked", b"gzip, chunked", b"identity", b""])
some_fields = st.lists(st.tuples(names, values), max_size=4).map(tuple)
methods = st.sampled_from([b"GET", b"HEAD", b"CONNECT"])
statuses = st.sampled_from([101, 200, 204, 304, 500])


@given(methods, statuses, some_fields, st.booleans())
def test_no_answer_leaves_with_two_framings(method: bytes, status: int, fields: Fields, old: bool) -> None:
    framing, framed = frame_response(method, status, fields, old=old)
    said = {name.lower() for name, _ in framed} - {b"a"}
    assert len(said) <= 1
    assert (framing is CHUNKED) == (b"transfer-encoding" in said)
    assert not (old and framing is CHUNKED)
    assert framing != UNTIL_CLOSED or not said
    assert frame_response(method, status, framed, old=old) == (framing, framed), "once more changes nothing"


@given(methods, statuses, some_fields)
def test_what_is_read_as_an_answer_is_sent_on_with_the_same_end(method: bytes, status: int, fields: Fields) -> None:
    try:
        length = response_length(method, status, NEW, fields)
    except MalformedError:
        return
    framing, framed = frame_response(method, status, fields, old=False)
    assert response_length(method, status, NEW, framed) == length
    assert framing == (length if length in (CHUNKED, UNTIL_CLOSED) else 0)


@pytest.mark.parametrize(
    ("version", "status", "fields", "closes", "expected"),
    [
        (NEW, 200, _length("5"), False, (0, _length("5"), False)),
        (NEW, 200, _length("5"), True, (0, (*_length("5"), CLOSE), True)),
        (OLD, 200, _length("5"), False, (0, (*_length("5"), (b"Connection", b"keep-alive")), False)),
        (OLD, 200, _length("5"), True, (0, (*_length("5"), CLOSE), True)),
        (OLD, 200, _coding("chunked"), False, (UNTIL_CLOSED, (CLOSE,), True)),
        (NEW, 200, (*_length("5"), CLOSE), False, (0, (*_length("5"), CLOSE), True)),
        (NEW, 101, (CLOSE,), True, (0, (CLOSE,), True)),
        (NEW, 101, (), False, (0, (), False)),
        (OLD, 101, (), False, (0, (), False)),
    ],
)
def test_a_client_is_told_whether_its_connection_goes_on(
    version: bytes, status: int, fields: Fields, closes: bool, expected: tuple[int | None, Fields, bool]
) -> None:
    assert frame_for_client(version, b"GET", status, fields, closes=closes) == expected


@pytest.mark.parametrize(
    ("method", "status", "tunnel"),
    [
        (b"GET", 101, True),
        (b"CONNECT", 200, True),
        (b"CONNECT", 204, True),
        (b"CONNECT", 407, False),
        (b"GET", 200, False),
        (b"connect", 200, False),
    ],
)
def test_after_some_answers_there_is_no_http(method: bytes, status: int, tunnel: bool) -> None:
    assert is_tunnel(method, status) is tunnel


# --- requests that came by a version that needs no words for it


@pytest.mark.parametrize(
    ("method", "length", "fields", "said"),
    [
        (b"GET", 0, (), ()),
        (b"POST", 0, (), _length("0", name="content-length")),
        (b"GET", 5, (), _length("5", name="content-length")),
        (b"POST", 5, _length("5"), _length("5", name="content-length")),
        (b"POST", None, (), _coding("chunked", name="transfer-encoding")),
        (b"GET", None, _length("5", name="content-length"), _length("5", name="content-length")),
    ],
)
def test_a_request_says_how_long_its_body_is(method: bytes, length: int | None, fields: Fields, said: Fields) -> None:
    assert frame_request(method, length, OTHER + fields) == OTHER + said


# --- lengths that are expected


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_servers_expect_a_length_of_methods_that_mean_their_body(method: bytes) -> None:
    """RFC 9110 §8.6: without one, some answer 411."""
    assert needs_length(method)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"BREW", b"post"])
def test_of_others_they_expect_none(method: bytes) -> None:
    assert not needs_length(method)


# --- persistence


@pytest.mark.parametrize(
    ("version", "lines", "expected"),
    [
        (NEW, [], True),
        (OLD, [], False),
        (NEW, [b"close"], False),
        (NEW, [b"Close"], False),
        (NEW, [b"x, close"], False),
        (NEW, [b"x,\tclose ,y"], False),
        (NEW, [b"keep-alive", b"close"], False),
        (NEW, [b"keep-alive, close"], False),
        (NEW, [b"keep-alive"], True),
        (NEW, [b"closed", b"x-close"], True),
        (NEW, [b""], True),
        (OLD, [b"keep-alive"], True),
        (OLD, [b"Keep-Alive"], True),
        (OLD, [b"x", b"y, keep-alive"], True),
        (OLD, [b"keep-alive, close"], False),
        (OLD, [b"close"], False),
        (OLD, [b"x"], False),
    ],
)
def test_a_connection_goes_on_unless_its_peer_wants_otherwise(
    version: bytes, lines: list[bytes], expected: bool
) -> None:
    """RFC 9112 §9.3."""
    for name in (b"Connection", b"connection"):
        fields = tuple((name, line) for line in lines)
        assert (
            persists(version, (*fields, (b"Proxy-Connection", b"keep-alive"), (b"Connection2", b"close"))) is expected
        )
