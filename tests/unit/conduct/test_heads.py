"""A head is read by the grammar of RFC 9112, or refused in words that hold nothing of it."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct import heads
from jwtproxy.conduct.fields import CONTROLS, TOKEN, Fields
from jwtproxy.conduct.heads import ReceivedRequest, ReceivedResponse
from jwtproxy.conduct.malformed import MalformedError
from jwtproxy.conduct.target import Target

REQUEST_LINE = "the request line is not a method, a target and a version, with single spaces between"
METHOD = "the request's method is not a token"
VERSION = "the request line does not end with a version of HTTP"
NOT_SUPPORTED = "this version of HTTP is not supported"
NOT_VISIBLE = "the request's target contains a space or a control character"
NAME = "a header line does not begin with a name and a colon"
FOLDED = "a header line begins with white space"
CONTROL = "a header value contains a control character"
STATUS_LINE = "the server's answer does not begin with a status line of HTTP/1.1"

SEPARATORS = b'"(),/:;<=>?@[\\]{} '  # RFC 9110 §5.6.2, and the space
CONTROL_CHARACTERS = [*range(9), *range(10, 0x20), 0x7F]
NO_TOKEN_CHARACTERS = [*SEPARATORS, 9, *CONTROL_CHARACTERS, 0x80, 0x85, 0xA0, 0xE9, 0xFF]


def _refused(read: object, *lines: bytes) -> tuple[str, int]:
    """The text and the status with which lines are refused."""
    assert callable(read)
    with pytest.raises(MalformedError) as caught:
        read(lines)
    return str(caught.value), caught.value.status


# --- request lines


@pytest.mark.parametrize(
    ("line", "method", "target", "version"),
    [
        (b"GET / HTTP/1.1", b"GET", Target(b"/"), b"HTTP/1.1"),
        (b"GET / HTTP/1.0", b"GET", Target(b"/"), b"HTTP/1.0"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS", Target(b"*"), b"HTTP/1.1"),
        (b"get /a?b HTTP/1.1", b"get", Target(b"/a?b"), b"HTTP/1.1"),
        (b"!#$%&'*+-.^_`|~09aZ / HTTP/1.1", b"!#$%&'*+-.^_`|~09aZ", Target(b"/"), b"HTTP/1.1"),
        (b"CONNECT a:443 HTTP/1.1", b"CONNECT", Target(b"", b"", b"a:443", "a", 443), b"HTTP/1.1"),
        (b"GET http://a?b HTTP/1.0", b"GET", Target(b"/?b", b"http", b"a", "a", 80), b"HTTP/1.0"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1", b"GET", Target(b"/" + b"a" * 100_000), b"HTTP/1.1"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_request_line_is_a_method_a_target_and_a_version(
    line: bytes, method: bytes, target: Target, version: bytes
) -> None:
    """RFC 9112 §3."""
    assert heads.request([line]) == ReceivedRequest(method, target, version, ())


@pytest.mark.parametrize("minor", range(2, 10))
def test_a_higher_minor_version_is_read_as_ours(minor: int) -> None:
    """RFC 9110 §2.5."""
    assert heads.request([b"GET / HTTP/1.%d" % minor]).version == b"HTTP/1.1"
    assert heads.response([b"HTTP/1.%d 200 OK" % minor]).version == b"HTTP/1.1"


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/0.9",
        b"GET / HTTP/2.0",
        b"GET / HTTP/3.0",
        b"GET / HTTP/9.1",
        b"PRI * HTTP/2.0",  # RFC 9113 §3.4: what follows, and what * means, is not for us to say
        b"GET a\x7fb HTTP/2.0",
    ],
)
@pytest.mark.parametrize("fields", [(), (b"no field",)])
def test_another_major_version_is_one_that_we_do_not_speak(line: bytes, fields: tuple[bytes, ...]) -> None:
    """RFC 9110 §15.6.6. It comes first: by its grammar the rest may be right."""
    assert _refused(heads.request, line, *fields) == (NOT_SUPPORTED, 505)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", REQUEST_LINE),
        (b"GET", REQUEST_LINE),
        (b"GET /", REQUEST_LINE),  # HTTP/0.9
        (b"GET / ", REQUEST_LINE),
        (b" GET / HTTP/1.1", REQUEST_LINE),
        (b"GET / HTTP/1.1 ", REQUEST_LINE),
        (b"GET  / HTTP/1.1", REQUEST_LINE),
        (b"GET /  HTTP/1.1", REQUEST_LINE),
        (b"GET  HTTP/1.1", REQUEST_LINE),
        (b" / HTTP/1.1", REQUEST_LINE),
        (b"GET /a b HTTP/1.1", REQUEST_LINE),
        (b"GET / HTTP/1.1 HTTP/1.1", REQUEST_LINE),
        (b"GET\t/\tHTTP/1.1", REQUEST_LINE),
        (b"GET\x0b/\x0bHTTP/1.1", REQUEST_LINE),
        (b"GET\r/ HTTP/1.1", REQUEST_LINE),
        (b"GET / http/1.1", VERSION),
        (b"GET / HTTP/1", VERSION),
        (b"GET / HTTP/1.", VERSION),
        (b"GET / HTTP/.1", VERSION),
        (b"GET / HTTP/11", VERSION),
        (b"GET / HTTP/1.10", VERSION),
        (b"GET / HTTP/01.1", VERSION),
        (b"GET / HTTP/1.1.1", VERSION),
        (b"GET / HTTP 1.1", REQUEST_LINE),
        (b"GET / HTTP/1,1", VERSION),
        (b"GET / HTTP/1.\xd9\xa1", VERSION),  # a digit, in Arabic
        (b"GET / HTTPS/1.1", VERSION),
        (b"GET / ICY", VERSION),
        (b"GET / HTTP/1.1\r", VERSION),
        (b"GET / HTTP/1.1\0", VERSION),
        (b"GET / HTTP/1.1\t", VERSION),
        (b"GET /\tHTTP/1.1 HTTP/1.1", NOT_VISIBLE),
        (b"GET /\r HTTP/1.1", NOT_VISIBLE),
        (b"GET /\xe9 HTTP/1.1", "the request's target is not UTF-8"),
        (b"GET * HTTP/1.1", "only OPTIONS may have the target *"),
        (b"GET a HTTP/1.1", "the request's target is neither a URL nor a path"),
        (b"CONNECT a HTTP/1.1", "CONNECT needs a host and a port"),
        (b"CONNECT / HTTP/1.1", "the request's host or port is not valid"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", REQUEST_LINE),  # TLS
    ],
)
def test_no_other_line_begins_a_request(line: bytes, text: str) -> None:
    """Servers that are lenient with white space, as RFC 9112 §3 allows, would see another target."""
    assert _refused(heads.request, line, b"Host: a") == (text, 400)


@pytest.mark.parametrize("byte", [byte for byte in NO_TOKEN_CHARACTERS if byte not in b" \n"])
def test_a_method_is_a_token(byte: int) -> None:
    """RFC 9110 §9.1. Python's servers took `DELETE\\x85` for DELETE."""
    for method in (b"DELETE%c", b"%cDELETE", b"DEL%cETE"):
        assert _refused(heads.request, method % byte + b" / HTTP/1.1") == (METHOD, 400)


# --- fields


FIELDS: list[tuple[bytes, tuple[bytes, bytes]]] = [
    (b"Host: a.example", (b"Host", b"a.example")),
    (b"host:a.example", (b"host", b"a.example")),
    (b"A: \t b \t ", (b"A", b"b")),
    (b"A:", (b"A", b"")),
    (b"A: ", (b"A", b"")),
    (b"A: b: c", (b"A", b"b: c")),
    (b"A: b\tc", (b"A", b"b\tc")),
    (b"A: " + bytes(range(0x80, 0x100)), (b"A", bytes(range(0x80, 0x100)))),  # RFC 9110 §5.5
    (b"A: \xa0b\x85", (b"A", b"\xa0b\x85")),
    (b"!#$%&'*+-.^_`|~09aZ: b", (b"!#$%&'*+-.^_`|~09aZ", b"b")),
    (b"A: " + b"b" * 100_000, (b"A", b"b" * 100_000)),
    (b"A" * 100_000 + b": b", (b"A" * 100_000, b"b")),
]


@pytest.mark.parametrize(("line", "field"), FIELDS, ids=lambda value: repr(value)[:40])
def test_a_field_is_a_name_and_a_value_without_the_white_space_around_it(
    line: bytes, field: tuple[bytes, bytes]
) -> None:
    """RFC 9112 §5; what is in it stays byte for byte."""
    assert heads.request([b"GET / HTTP/1.1", line]).fields == (field,)
    assert heads.response([b"HTTP/1.1 200 OK", line, line]).fields == (field, field)


def test_all_fields_are_read_in_order() -> None:
    lines, fields = zip(*FIELDS, strict=True)
    assert heads.request([b"GET / HTTP/1.1", *lines]).fields == fields


BAD_LINES = [
    (b"A", NAME),
    (b": b", NAME),
    (b":", NAME),
    (b"A : b", NAME),  # RFC 9112 §5.1
    (b"A\t: b", NAME),
    (b"A b: c", NAME),
    (b"A\0: b", NAME),
    (b"A\r: b", NAME),
    (b"\xe9: b", NAME),
    (b"\r", NAME),
    (b"\xef\xbb\xbfA: b", NAME),
    (b"GET /admin HTTP/1.1", NAME),
]


@pytest.mark.parametrize(("line", "text"), BAD_LINES)
@pytest.mark.parametrize("before", [(), (b"A: b",)])
@pytest.mark.parametrize("after", [(), (b"C: d",)])
def test_what_is_no_field_is_refused(
    line: bytes, text: str, before: tuple[bytes, ...], after: tuple[bytes, ...]
) -> None:
    assert _refused(heads.request, b"GET / HTTP/1.1", *before, line, *after) == (text, 400)
    assert _refused(heads.response, b"HTTP/1.1 200 OK", *before, line, *after)[0] == text


@pytest.mark.parametrize("byte", [byte for byte in NO_TOKEN_CHARACTERS if byte not in b":\n"])
def test_a_name_is_a_token(byte: int) -> None:
    """RFC 9110 §5.1."""
    assert _refused(heads.request, b"GET / HTTP/1.1", b"A%cB: c" % byte) == (NAME, 400)


@pytest.mark.parametrize("byte", [byte for byte in CONTROL_CHARACTERS if byte != 0x0A])
def test_a_value_has_no_control_characters(byte: int) -> None:
    """RFC 9110 §5.5: some take a bare CR for the end of a line, and NUL for that of a value."""
    for value in (b"%c", b"b%c", b"%cb", b"b%cX-My-JWT: evil"):
        line = b"A: " + value % byte
        assert _refused(heads.request, b"GET / HTTP/1.1", b"B: c", line, b"C: d") == (CONTROL, 400)
        assert _refused(heads.response, b"HTTP/1.1 200 OK", line)[0] == CONTROL


@pytest.mark.parametrize("line", [b" b", b"\tb", b" A: b", b" ", b"\t", b" \t "])
@pytest.mark.parametrize("before", [(), (b"A: b",)])
def test_a_request_folds_no_line(line: bytes, before: tuple[bytes, ...]) -> None:
    """RFC 9112 §5.2, and §2.2 for the first."""
    assert _refused(heads.request, b"GET / HTTP/1.1", *before, line) == (FOLDED, 400)


# --- answers


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"HTTP/1.1 200 OK", (b"HTTP/1.1", 200, b"OK")),
        (b"HTTP/1.0 404 Not Found", (b"HTTP/1.0", 404, b"Not Found")),
        (b"HTTP/1.1 200 ", (b"HTTP/1.1", 200, b"")),
        (b"HTTP/1.1 200", (b"HTTP/1.1", 200, b"")),  # RFC 9112 §4 wants a space; some leave it out
        (b"HTTP/1.1 100 Continue", (b"HTTP/1.1", 100, b"Continue")),
        (b"HTTP/1.1 999 \xe9\ta  b ", (b"HTTP/1.1", 999, b"\xe9\ta  b ")),
    ],
)
def test_a_status_line_is_a_version_a_status_and_perhaps_a_reason(
    line: bytes, expected: tuple[bytes, int, bytes]
) -> None:
    """RFC 9112 §4."""
    assert heads.response([line]) == ReceivedResponse(*expected, ())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 000 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/0.9 200 OK",
        b"HTTP/2 200",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.10 200 OK",
        b"HTTP/1 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 OK\r",
        b"HTTP/1.1 200\r",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\x7fK",
        b"HTTP/1.1 200 O\x1bK",
        b"<html>",
    ],
)
def test_no_other_line_begins_an_answer(line: bytes) -> None:
    assert _refused(heads.response, line, b"A: b")[0] == STATUS_LINE


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        ([b"A: b", b" c"], ((b"A", b"b c"),)),
        ([b"A: b \t", b"\t  c  ", b" d\t"], ((b"A", b"b c d"),)),
        ([b"A:", b" b"], ((b"A", b"b"),)),
        ([b"A: b", b" "], ((b"A", b"b"),)),
        ([b"A: b", b" ", b" c", b"D: e", b"F: g", b"\th: i"], ((b"A", b"b  c"), (b"D", b"e"), (b"F", b"g h: i"))),
    ],
)
def test_an_answers_folded_lines_are_one(lines: list[bytes], fields: Fields) -> None:
    """RFC 9112 §5.2: what leaves has none, as clients read them differently."""
    assert heads.response([b"HTTP/1.1 200 OK", *lines]).fields == fields


@pytest.mark.parametrize("lines", [[b" A: b"], [b" "], [b"\t", b"A: b"], [b" ", b" "], [b" A: b", b" c"]])
def test_there_must_be_one_to_fold(lines: list[bytes]) -> None:
    assert _refused(heads.response, b"HTTP/1.1 200 OK", *lines)[0] == FOLDED


@pytest.mark.parametrize("line", [b" b\rc", b" \0", b"\tb\x7f"])
def test_a_fold_hides_no_control_character(line: bytes) -> None:
    assert _refused(heads.response, b"HTTP/1.1 200 OK", b"A: b", line)[0] == CONTROL


def test_many_folds_are_no_way_to_keep_us_busy() -> None:
    """A second and a half of it, when each was put behind all before it."""
    head = heads.response([b"HTTP/1.1 200 OK", b"A: b", *[b" c"] * 80_000])
    assert head.fields == ((b"A", b"b" + b" c" * 80_000),)


# --- whatever comes

tokens = st.from_regex(TOKEN, fullmatch=True)
values = st.from_regex(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]{0,8}[!-~\x80-\xff])?)?", fullmatch=True)
fields = st.lists(st.tuples(tokens, values), max_size=4).map(tuple)
paths = st.from_regex(rb"/[!\"$-~]{0,12}", fullmatch=True)
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"])
reasons = st.from_regex(rb"[\t -~\x80-\xff]{0,12}", fullmatch=True)

PIECES = st.sampled_from([b"GET", b"OPTIONS", b"CONNECT", b" ", b"/", b"*", b"HTTP/1.", b"1", b"0", b"200", b": "])
ANYTHING = st.one_of(PIECES, PIECES, PIECES, st.sampled_from([b"\n", b"\r\n", b"\r", b"\t", b"\0", b"a"]), st.binary())
MESSAGES = st.lists(ANYTHING, max_size=12).map(b"".join) | st.tuples(
    st.sampled_from([b"GET / HTTP/1.1", b"GET http://a HTTP/1.0", b"HTTP/1.1 200 OK"]),
    st.lists(ANYTHING, max_size=12).map(b"".join),
).map(b"\n".join)


def _lines(data: bytes) -> list[bytes]:
    """Those of a head, up to the first that is empty, as a carrier cuts them (RFC 9112 §2.2)."""
    first, *others = (line.removesuffix(b"\r") for line in data.split(b"\n"))
    return [first, *itertools.takewhile(len, others)]


def _check_fields(fields: Fields) -> None:
    for name, value in fields:
        assert TOKEN.fullmatch(name)
        assert not CONTROLS(value)
        assert not re.search(rb"[\r\n\0]", value)
        assert value == value.strip(b" \t")


@given(MESSAGES)
def test_a_request_is_grammar_or_refused(data: bytes) -> None:
    try:
        head = heads.request(_lines(data))
    except MalformedError:
        return
    assert TOKEN.fullmatch(head.method)
    assert re.fullmatch(rb"[!-~]*", head.target.path + head.target.authority)
    assert head.version in (b"HTTP/1.1", b"HTTP/1.0")
    _check_fields(head.fields)


@given(MESSAGES)
def test_an_answer_is_grammar_or_refused(data: bytes) -> None:
    try:
        head = heads.response(_lines(data))
    except MalformedError:
        return
    assert 100 <= head.status <= 999
    assert not re.search(rb"[\r\n\0]", head.reason)
    assert head.version in (b"HTTP/1.1", b"HTTP/1.0")
    _check_fields(head.fields)


def _field_lines(fields: Fields) -> list[bytes]:
    return [b"%s: %s" % field for field in fields]


@given(tokens.filter(lambda method: method != b"CONNECT"), paths, versions, fields)
def test_a_request_that_was_written_is_read_as_the_same(
    method: bytes, path: bytes, version: bytes, fields: Fields
) -> None:
    lines = [b"%s %s %s" % (method, path, version), *_field_lines(fields)]
    assert heads.request(lines) == ReceivedRequest(method, Target(path), version, fields)


@given(versions, st.integers(100, 999), reasons, fields)
def test_an_answer_that_was_written_is_read_as_the_same(
    version: bytes, status: int, reason: bytes, fields: Fields
) -> None:
    lines = [b"%s %d %s" % (version, status, reason), *_field_lines(fields)]
    assert heads.response(lines) == ReceivedResponse(version, status, reason, fields)


@given(tokens, paths, fields)
def test_a_request_is_written_in_our_version_as_it_is_read(method: bytes, path: bytes, fields: Fields) -> None:
    lines = heads.write_request(method, path, fields).split(b"\r\n")
    assert lines[0] == b"%s %s HTTP/1.1" % (method, path)
    assert lines[-2:] == [b"", b""]
    assert heads.request([b"GET / HTTP/1.1", *lines[1:-2]]).fields == fields


@given(st.integers(100, 999), reasons, fields)
def test_an_answer_is_written_in_our_version_as_it_is_read(status: int, reason: bytes, fields: Fields) -> None:
    lines = heads.write_response(status, reason, fields).split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    read = heads.response(lines[:-2])
    assert read[:2] == (b"HTTP/1.1", status)
    assert read.fields == fields
    assert not reason or read.reason == reason


@pytest.mark.parametrize(("status", "reason"), [(200, b"OK"), (404, b"Not Found"), (299, b"")])
def test_an_answer_without_a_reason_gets_the_usual_one(status: int, reason: bytes) -> None:
    assert heads.write_response(status, b"", ()) == b"HTTP/1.1 %d %s\r\n\r\n" % (status, reason)


@pytest.mark.parametrize("status", [99, 1000, 0, -1])
def test_no_status_line_is_written_that_is_none(status: int) -> None:
    with pytest.raises(MalformedError, match=r"^the status code does not have three digits$"):
        heads.write_response(status, b"", ())


@pytest.mark.parametrize(
    ("data", "lines", "rest"),
    [
        (b"", [], b""),
        (b"a\r\nb\r\n", [], b"a\r\nb\r\n"),
        (b"a\r\nb\r\n\r\n", [b"a", b"b"], b""),
        (b"a\nb\n\nc", [b"a", b"b"], b"c"),
        (b"a\r\nb\n\r\nc\r\n\r\n", [b"a", b"b"], b"c\r\n\r\n"),
        (b"\r\n\n\r\na\r\n\r\n", [b"a"], b""),
        (b"\r\n\r", [], b"\r"),
        (b"a\r\r\n\r\n", [b"a\r"], b""),
    ],
)
def test_a_head_is_split_into_its_lines(data: bytes, lines: list[bytes], rest: bytes) -> None:
    assert heads.split(data) == (lines, rest)


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\r\n"])
@pytest.mark.parametrize("place", ["name", "value", "reason"])
def test_no_answer_is_written_that_would_be_several(byte: bytes, place: str) -> None:
    odd = b"a" + byte + b"b"
    fields = {"name": ((odd, b"c"),), "value": ((b"c", odd),), "reason": ()}[place]
    with pytest.raises(MalformedError):
        heads.write_response(200, odd if place == "reason" else b"", fields)


SECRETS = st.lists(st.sampled_from([b"q", b"zZ", b"7", b"\0", b"\xff", b"\r", b"\t", b":", b"@", b"/", b"#", b"%"]))
PLACES = ["%s / HTTP/1.1", "GET %s HTTP/1.1", "GET /%s HTTP/1.1", "GET http://%s/ HTTP/1.1", "GET http://a/%s HTTP/1.1"]
MORE = ["CONNECT %s HTTP/1.1", "GET / %s", "GET / HTTP/1.1\n%s: a", "GET / HTTP/1.1\na: %s", "HTTP/1.1 %s", "%s 200 OK"]


@given(st.sampled_from([*PLACES, *MORE, "HTTP/1.1 200 %s", "HTTP/1.1 200 OK\na%s"]), SECRETS.map(b"".join))
def test_what_is_told_of_a_fault_holds_nothing_of_the_message(place: str, secret: bytes) -> None:
    """It goes to logs and to whoever sent it; a token or a password may be in there."""
    lines = place.encode().replace(b"%s", secret).split(b"\n")
    for read in (heads.request, heads.response):
        try:
            read(lines)
        except MalformedError as error:
            told = str(error).encode()
            assert [secret[at : at + 4] for at in range(len(secret) - 3) if secret[at : at + 4] in told] == []


@pytest.mark.parametrize(("status", "text"), [(407, "407 Proxy Authentication Required"), (799, "799")])
def test_a_status_is_told_in_its_standard_words(status: int, text: str) -> None:
    assert heads.status_text(status) == text
