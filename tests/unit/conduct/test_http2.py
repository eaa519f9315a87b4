"""A head of HTTP/2 means what the same would in HTTP/1.1, or is refused (RFC 9113 §8)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct import http2
from jwtproxy.conduct.fields import CONTROLS, TOKEN, Fields
from jwtproxy.conduct.heads import ReceivedRequest
from jwtproxy.conduct.malformed import MalformedError
from jwtproxy.conduct.target import Target

PSEUDO = {":method": b"GET", ":scheme": b"https", ":authority": b"a.example", ":path": b"/"}

METHOD = "the request's method is not a token"
SCHEME = "the request's scheme is neither http nor https"
PATH = "the request has no path"
FORM = "the request's target is neither a URL nor a path"
AUTHORITY = "the request's host or port is not valid"
NOT_VISIBLE = "the request's target contains a space or a control character"
NOT_UTF_8 = "the request's target is not UTF-8"
PSEUDO_FIELDS = "a pseudo-header field is unknown, or given more than once"
NAME = "a header name is not a token in lower case"
VALUE = "a header value contains a control character, or white space around it"
CONNECTION = "a header is about the connection, which HTTP/2 does not allow"
HYPHEN = "Content-Length and Transfer-Encoding are written with a hyphen"
NO_NUMBER = "Content-Length is not a number of at most 19 digits without leading zeros"
STATUS = "the server's answer has no status code of three digits"


def _headers(*fields: tuple[bytes, bytes], **changes: bytes | None) -> list[tuple[bytes, bytes]]:
    """A header list; `changes`: other pseudo-header fields, without their colons. None: not there."""
    pseudo = PSEUDO | {f":{name}": value for name, value in changes.items()}
    return [*((name.encode(), value) for name, value in pseudo.items() if value is not None), *fields]


def _refusal(headers: list[tuple[bytes, bytes]], *, ended: bool = True) -> tuple[str, int]:
    """The text and the status with which a request is refused."""
    with pytest.raises(MalformedError) as caught:
        http2.request(headers, ended=ended)
    return str(caught.value), caught.value.status


# --- what a request asks for


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({}, Target(b"/", b"https", b"a.example", "a.example", 443)),
        ({"scheme": b"http"}, Target(b"/", b"http", b"a.example", "a.example", 80)),
        ({"authority": b"A.example:8443"}, Target(b"/", b"https", b"A.example:8443", "A.example", 8443)),
        ({"authority": b"[::1]"}, Target(b"/", b"https", b"[::1]", "::1", 443)),
        ({"authority": b"a.example:"}, Target(b"/", b"https", b"a.example:", "a.example", 443)),
        # RFC 9113 §8.3.1: Host may stand for it, and who asks the proxy itself need not name it
        ({"authority": None}, Target(b"/", b"https", b"", "", 0)),
        ({"authority": b""}, Target(b"/", b"https", b"", "", 0)),
        ({"path": b"/b?c=d"}, Target(b"/b?c=d", b"https", b"a.example", "a.example", 443)),
        ({"path": b"//b"}, Target(b"//b", b"https", b"a.example", "a.example", 443)),
        ({"path": "/?x=€".encode()}, Target(b"/?x=%E2%82%AC", b"https", b"a.example", "a.example", 443)),
        ({"method": b"OPTIONS", "path": b"*"}, Target(b"*", b"https", b"a.example", "a.example", 443)),
        ({"method": b"!#$%&'*+-.^_`|~09aZ"}, Target(b"/", b"https", b"a.example", "a.example", 443)),
    ],
)
def test_pseudo_header_fields_say_what_is_asked_for(changes: dict[str, bytes | None], target: Target) -> None:
    """RFC 9113 §8.3.1."""
    method = changes.get("method") or b"GET"
    fields = ((b"accept", b"*/*"),)
    for ended in (False, True):
        head = http2.request(_headers(*fields, **changes), ended=ended)
        assert head == ReceivedRequest(method, target, b"HTTP/2.0", fields)


def test_they_may_come_in_any_order() -> None:
    headers = _headers((b"a", b"b"))
    assert http2.request([*headers[3::-1], headers[4]], ended=True) == http2.request(headers, ended=True)


def test_connect_names_an_authority_alone() -> None:
    """RFC 9113 §8.5."""
    connect = {"method": b"CONNECT", "scheme": None, "path": None}
    head = http2.request(_headers((b"a", b"b"), **connect, authority=b"a.example:443"), ended=False)
    assert head == ReceivedRequest(
        b"CONNECT", Target(b"", b"", b"a.example:443", "a.example", 443), b"HTTP/2.0", ((b"a", b"b"),)
    )
    for authority in (None, b"", b"a.example", b"a.example:0", b"user@a.example:443", b"/"):
        assert _refusal(_headers(**connect, authority=authority), ended=False)[1] == 400
    for changes in ({"scheme": b"https"}, {"path": b"/"}, {"path": b""}):
        refusal = _refusal(_headers(**connect | changes, authority=b"a.example:443"), ended=False)
        assert refusal == ("CONNECT has neither a scheme nor a path", 400)
    assert _refusal(_headers((b"content_length", b"1"), **connect, authority=b"a.example:443")) == (HYPHEN, 400)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": None}, METHOD),
        ({"method": b""}, METHOD),
        ({"method": b"GET /admin"}, METHOD),
        ({"method": b"GET "}, METHOD),
        ({"method": b"GET\r\n"}, METHOD),
        ({"method": b"GET\t"}, METHOD),
        ({"method": b"GET\x0b"}, METHOD),
        ({"method": b"GET\x7f"}, METHOD),
        ({"method": b"DELETE\x85"}, METHOD),
        ({"method": b"G:T"}, METHOD),
        ({"scheme": None}, SCHEME),
        ({"scheme": b""}, SCHEME),
        ({"scheme": b"ftp"}, SCHEME),
        ({"scheme": b"HTTPS"}, SCHEME),
        ({"scheme": b"https "}, SCHEME),
        ({"scheme": b"https://b.example/"}, SCHEME),
        ({"path": None}, PATH),
        ({"path": b""}, PATH),
        ({"path": b"*"}, "only OPTIONS may have the target *"),
        ({"path": b"b"}, FORM),
        ({"path": b"?b"}, FORM),
        ({"path": b"http://b.example/"}, FORM),
        ({"path": b"/#b"}, FORM),
        ({"path": b"/#/../admin"}, FORM),
        ({"path": b"/admin HTTP/1.1"}, NOT_VISIBLE),
        ({"path": b"/ HTTP/1.1\r\nX-My-JWT: evil"}, NOT_VISIBLE),
        ({"path": b"/\n"}, NOT_VISIBLE),
        ({"path": b"/\t"}, NOT_VISIBLE),
        ({"path": b"/\x0b"}, NOT_VISIBLE),
        ({"path": b"/\0"}, NOT_VISIBLE),
        ({"path": b"/\x7f"}, NOT_VISIBLE),
        ({"path": b" /"}, NOT_VISIBLE),
        ({"path": b"/\xe9"}, NOT_UTF_8),
        ({"method": b"OPTIONS", "path": b"**"}, FORM),
        ({"authority": b"user@a.example"}, AUTHORITY),  # RFC 9113 §8.3.1
        ({"authority": b"user:password@a.example:443"}, AUTHORITY),
        ({"authority": b"a.example/b"}, AUTHORITY),
        ({"authority": b"a.example?b"}, AUTHORITY),
        ({"authority": b"a.example#b"}, AUTHORITY),
        ({"authority": b"a.example\\b"}, AUTHORITY),
        ({"authority": b"a.example:0"}, AUTHORITY),
        ({"authority": b"a.example:65536"}, AUTHORITY),
        ({"authority": b"a.example:b"}, AUTHORITY),
        ({"authority": b":443"}, AUTHORITY),
        ({"authority": b"::1"}, AUTHORITY),
        ({"authority": b"a.example\r\nb: c"}, NOT_VISIBLE),
        ({"authority": b"a.example b"}, NOT_VISIBLE),
        ({"authority": b"a\xe9"}, NOT_UTF_8),
    ],
)
def test_what_http_1_1_could_not_say_is_refused(changes: dict[str, bytes | None], text: str) -> None:
    """It may go on by HTTP/1.1 (RFC 9113 §10.3)."""
    assert _refusal(_headers(**changes)) == (text, 400)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        *(([*_headers(), (name.encode(), value)], PSEUDO_FIELDS) for name, value in PSEUDO.items()),
        ([*_headers(), (b":path", b"/admin")], PSEUDO_FIELDS),
        ([*_headers(), (b":protocol", b"websocket")], PSEUDO_FIELDS),  # RFC 8441, which we do not offer
        ([*_headers(), (b":status", b"200")], PSEUDO_FIELDS),
        ([*_headers(), (b":", b"")], PSEUDO_FIELDS),
        ([*_headers(), (b":Path", b"/")], PSEUDO_FIELDS),
        ([*_headers((b"a", b"b")), (b":path", b"/")], NAME),
        ([*_headers((b"a", b"b"), path=None), (b":path", b"/")], NAME),
        ([(b"a", b"b"), *_headers()], METHOD),
        ([], METHOD),
    ],
)
def test_pseudo_header_fields_are_known_come_once_and_come_first(headers: list[tuple[bytes, bytes]], text: str) -> None:
    """RFC 9113 §8.3."""
    assert _refusal(headers) == (text, 400)


# --- fields, of requests, answers and trailers alike

GOOD_FIELDS: list[Fields] = [
    (),
    ((b"a", b""),),
    ((b"a", b"b\tc"), (b"a", b"\x80\xe9\xff")),  # RFC 9110 §5.5
    ((b"!#$%&'*+-.^_`|~09az", b"b"),),
    ((b"cookie", b"a=b"), (b"cookie", b"c=d")),
    ((b"te", b"trailers"),),
    ((b"te", b"Trailers"),),
    ((b"connection2", b"close"), (b"authorization", b"a")),
]

BAD_FIELDS: list[tuple[bytes, bytes, str]] = [
    *((name, b"b", NAME) for name in (b"", b"A", b"a:", b":a", b"a b", b" a", b"a\r\nb", b"a\0", b"\xe9", b"a/")),
    *((b"a", b"b%cc" % byte, VALUE) for byte in (*range(9), *range(10, 0x20), 0x7F)),
    *((b"a", value, VALUE) for value in (b" b", b"b ", b"\tb", b"b\t", b" ", b"b\r", b"\nb", b"b\r\nx-my-jwt: evil")),
    *((name, b"x", CONNECTION) for name in (b"connection", b"proxy-connection", b"keep-alive", b"upgrade")),
    (b"connection", b"x-my-jwt", CONNECTION),
    (b"transfer-encoding", b"chunked", CONNECTION),
    (b"te", b"gzip", CONNECTION),
    (b"te", b"trailers, gzip", CONNECTION),
    (b"te", b"", CONNECTION),
]  # fmt: skip


@pytest.mark.parametrize("fields", GOOD_FIELDS)
def test_fields_stay_byte_for_byte_in_order(fields: Fields) -> None:
    assert http2.request(_headers(*fields), ended=True).fields == fields
    assert http2.response([(b":status", b"200"), *fields]) == (200, fields)
    assert http2.trailers(fields) == tuple(field for field in fields if field[0] != b"te")


def test_fields_become_plain_bytes() -> None:
    """Whatever kind of bytes or of pairs a library has for them."""

    class Bytes(bytes):
        pass

    (field,) = http2.request(_headers((Bytes(b"a"), Bytes(b"b"))), ended=True).fields
    assert [type(part) for part in field] == [bytes, bytes]


@pytest.mark.parametrize(("name", "value", "text"), BAD_FIELDS)
def test_what_http_2_forbids_is_refused(name: bytes, value: bytes, text: str) -> None:
    """RFC 9113 §8.2: names in lower case, values that are one line, nothing about the connection."""
    before, after = (b"a", b"b"), (b"c", b"d")
    assert _refusal(_headers(before, (name, value), after)) == (text, 400)
    for read in (
        lambda: http2.response([(b":status", b"200"), before, (name, value)]),
        lambda: http2.trailers([before, (name, value)]),
    ):
        with pytest.raises(MalformedError) as caught:
            read()
        assert str(caught.value) == text


@pytest.mark.parametrize(
    "name", [b"content-length", b"host", b"te", b"trailer", b"proxy-authorization", b"proxy-authenticate"]
)
def test_trailers_do_not_say_where_a_message_ends_or_goes(name: bytes) -> None:
    """RFC 9110 §6.5.1: what would, is dropped."""
    fields = [(b"a", b"b"), (name, b"trailers"), (b"grpc-status", b"0"), (name + b"2", b"c")]
    assert http2.trailers(fields) == (fields[0], *fields[2:])


def test_trailers_have_no_pseudo_header_fields() -> None:
    """RFC 9113 §8.1."""
    for name in (b":status", b":method", b":a"):
        with pytest.raises(MalformedError, match=PSEUDO_FIELDS):
            http2.trailers([(name, b"200")])


# --- lengths


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        *((b"content-length", value, NO_NUMBER) for value in (b"", b"+1", b"-1", b"01", b"1,1", b"1_0", b"1" * 20)),
        (b"content_length", b"0", HYPHEN),
        (b"transfer_encoding", b"chunked", HYPHEN),
    ],
)
def test_a_length_is_one_to_all_readers(name: bytes, value: bytes, text: str, ended: bool) -> None:
    """RFC 9113 §8.1.1; the next may read HTTP/1.1, or underscores as hyphens."""
    assert _refusal(_headers((name, value)), ended=ended) == (text, 400)


@pytest.mark.parametrize("values", [[b"1", b"2"], [b"0", b"1"]])
def test_it_is_given_once(values: list[bytes]) -> None:
    fields = [(b"content-length", value) for value in values]
    refusal = ("Content-Length is given more than once", 400)
    assert _refusal(_headers(*fields, method=b"POST"), ended=False) == refusal
    with pytest.raises(MalformedError, match=refusal[0]):
        http2.response([(b":status", b"200"), *fields])


def test_it_agrees_with_the_end_of_the_stream() -> None:
    """RFC 9113 §8.1.1: else an upstream would wait for the body."""
    for length in (b"1", b"9999999999999999999"):
        headers = _headers((b"content-length", length), method=b"POST")
        assert _refusal(headers) == ("Content-Length announces a body, and none follows", 400)
        assert http2.request(headers, ended=False).fields == ((b"content-length", length),)
    for ended in (False, True):
        assert http2.request(_headers((b"content-length", b"0")), ended=ended).fields == ((b"content-length", b"0"),)


# --- answers


@pytest.mark.parametrize("status", [100, 103, 199, 200, 204, 304, 404, 599, 999])
def test_an_answer_has_a_status(status: int) -> None:
    """RFC 9113 §8.3.2."""
    assert http2.response([(b":status", b"%d" % status)]) == (status, ())


@pytest.mark.parametrize("length", [b"5", b"0"])
@pytest.mark.parametrize("status", [b"200", b"304"])
def test_an_answer_may_have_a_length(length: bytes, status: bytes) -> None:
    """Whether its body agrees is seen later; one to HEAD has none."""
    field = (b"content-length", length)
    assert http2.response([(b":status", status), field]) == (int(status), (field,))


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([], STATUS),
        ([(b"a", b"b")], STATUS),
        *(([(b":status", value)], STATUS) for value in (b"", b"20", b"2000", b"099", b"+20", b" 200", b"200 OK")),
        ([(b":status", b"200\r\n")], STATUS),
        ([(b":status", "٢٠٠".encode())], STATUS),
        ([(b":status", b"200"), (b":status", b"200")], PSEUDO_FIELDS),
        ([(b":status", b"200"), (b":path", b"/")], PSEUDO_FIELDS),
        ([(b"a", b"b"), (b":status", b"200")], STATUS),
        ([(b":status", b"200"), (b"a", b"b"), (b":status", b"200")], NAME),
        ([(b":status", b"101")], "the server's answer switches protocols, which HTTP/2 does not allow"),  # §8.6
        ([(b":status", b"200"), (b"content-length", b"x")], NO_NUMBER),
    ],
)  # fmt: skip
def test_no_other_head_is_an_answer(headers: list[tuple[bytes, bytes]], text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        http2.response(headers)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("headers", "size"), [([], 0), ([(b"", b"")], 32), ([(b"a", b"bc"), (b":path", b"/")], 32 * 2 + 3 + 6)]
)
def test_a_head_is_measured_as_clients_do(headers: list[tuple[bytes, bytes]], size: int) -> None:
    """RFC 9113 §6.5.2."""
    assert http2.size(headers) == size


# --- whatever comes

bits = st.binary(max_size=6) | st.sampled_from(
    [b"GET", b"CONNECT", b"OPTIONS", b"https", b"/", b"*", b"a:1", b"200", b"a"]
)
pseudo = st.sampled_from([b":method", b":scheme", b":path", b":authority", b":status"])
names = st.sampled_from([b"a", b"te", b"content-length", b"content_length", b"host", b"connection"]) | bits
whatever = st.lists(st.tuples(pseudo | names, bits), max_size=6)
likely = st.lists(st.tuples(names, bits), max_size=4)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(["method", "scheme", "authority", "path"], bits)),
    likely,
    st.booleans(),
)
def test_a_request_is_grammar_or_refused(
    changes: dict[str, bytes], fields: list[tuple[bytes, bytes]], ended: bool
) -> None:
    try:
        head = http2.request(_headers(*fields, **changes), ended=ended)
    except MalformedError:
        return
    assert TOKEN.fullmatch(head.method)
    assert re.fullmatch(rb"[!-~]*", head.target.path + head.target.authority)
    assert head.target.path.startswith(b"/") or head.method in (b"OPTIONS", b"CONNECT")
    assert head.fields == tuple(fields)
    for name, value in fields:
        assert re.fullmatch(TOKEN.pattern, name)
        assert name == name.lower()
        assert not CONTROLS(value)


@given(whatever, st.booleans())
def test_nothing_but_that_error_is_ever_raised(headers: list[tuple[bytes, bytes]], ended: bool) -> None:
    for read in (
        lambda: http2.request(headers, ended=ended),
        lambda: http2.response(headers),
        lambda: http2.trailers(headers),
    ):
        try:
            read()
        except MalformedError:
            continue


SECRETS = st.lists(st.sampled_from([b"q", b"zZ", b"7", b"\0", b"\xff", b"\r", b"\t", b":", b"@", b"/", b"#", b"%"]))


@given(
    st.sampled_from([":method", ":scheme", ":authority", ":path", ":status", "name", "value"]), SECRETS.map(b"".join)
)
def test_what_is_told_of_a_fault_holds_nothing_of_the_message(place: str, secret: bytes) -> None:
    field = (secret if place == "name" else b"a", secret if place == "value" else b"b")
    changes = {place[1:]: secret} if place.startswith(":") else {}
    for read in (
        lambda: http2.request(_headers(field, **changes), ended=True),
        lambda: http2.response([(b":status", changes.get("status", b"200")), field]),
        lambda: http2.trailers([field]),
    ):
        try:
            read()
        except MalformedError as error:
            told = str(error).encode()
            assert [secret[at : at + 4] for at in range(len(secret) - 3) if secret[at : at + 4] in told] == []
