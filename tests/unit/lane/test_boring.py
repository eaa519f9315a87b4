"""What the fast lane takes for boring is a strict part of what conduct reads, and read in the same way."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jwtproxy.conduct import framing, heads
from jwtproxy.conduct.forwarding import response_fields, with_date
from jwtproxy.conduct.framing import without_identity
from jwtproxy.lane import boring
from jwtproxy.lane.boring import LONGEST, Answer, Head

LINE, HOST = "GET http://a.example/ HTTP/1.1", "Host: a.example"


def _head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _agrees(head: bytes, *, origin_form: bool = False) -> Head | None:
    """What is read here, if anything, which is what conduct reads."""
    found = boring.read(head, origin_form=origin_form)
    if found:
        lines, rest = heads.split(head)
        read = heads.request(lines)
        assert rest == b""
        assert (read.method, read.target.path, read.fields) == (found.method, found.path, found.fields)
        assert read.target.authority == (b"" if origin_form else found.authority)
        assert read.target.scheme == (b"" if origin_form else b"http")
        assert read.version == b"HTTP/1.1"
        assert framing.request_length(read.version, read.fields) == found.length
        assert framing.persists(read.version, read.fields) is not found.closes
        assert [value for name, value in read.fields if name.lower() == b"host"] == [found.authority]
        if place := boring.place("http", found.authority):
            assert origin_form or (read.target.host, read.target.port) == place
    return found


# --- what is taken

CLIENTS = {
    "curl": ("User-Agent: curl/8.5.0", "Accept: */*", "Proxy-Connection: Keep-Alive"),
    "curl -d": (
        "User-Agent: curl/8.5.0",
        "Accept: */*",
        "Proxy-Connection: Keep-Alive",
        "Content-Length: 3",
        "Content-Type: application/x-www-form-urlencoded",
    ),
    "requests": (
        "User-Agent: python-requests/2.32.3",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept: */*",
        "Connection: keep-alive",
    ),
    "httpx": (
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "User-Agent: python-httpx/0.28.1",
    ),
    "aiohttp": ("Accept: */*", "Accept-Encoding: gzip, deflate", "User-Agent: Python/3.13 aiohttp/3.12.15"),
    "urllib": ("Accept-Encoding: identity", "User-Agent: Python-urllib/3.13", "Connection: close"),
    "node": ("Connection: keep-alive",),
    "undici": ("connection: keep-alive", "accept: */*", "sec-fetch-mode: cors", "user-agent: node"),
    "go": ("User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip"),
    "wget": (
        "User-Agent: Wget/1.21.4",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: Keep-Alive",
        "Proxy-Connection: Keep-Alive",
    ),
    "java": ("User-Agent: Java/21.0.4", "Accept: */*", "Proxy-Connection: keep-alive"),
    "ab": ("Connection: Close", "User-Agent: ApacheBench/2.3", "Accept: */*"),
    "browser": (
        "Proxy-Connection: keep-alive",
        'sec-ch-ua: "Chromium";v="130", "Not?A_Brand";v="99"',
        "Upgrade-Insecure-Requests: 1",
        "Cookie: a=b; c=d",
        "If-None-Match: W/\"x\"",
    ),
}  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
def test_what_clients_send_is_taken(client: str) -> None:
    for host in ("a.example", "a.example:8080", "127.0.0.1:1"):
        fields = CLIENTS[client]
        found = _agrees(_head(f"GET http://{host}/a/b?c=d&e=%20[] HTTP/1.1", f"Host: {host}", *fields))
        assert found
        assert (found.authority, found.path) == (host.encode(), b"/a/b?c=d&e=%20[]")
        assert len(found.fields) == len(fields) + 1
        assert found.closes is any(field.lower() == "connection: close" for field in fields)
        assert found.length == (3 if client == "curl -d" else 0)
        assert boring.place("http", found.authority)


@pytest.mark.parametrize("method", "GET HEAD POST PUT PATCH DELETE OPTIONS".split())
def test_the_usual_methods_are_taken(method: str) -> None:
    found = _agrees(_head(f"{method} http://a.example/ HTTP/1.1", HOST))
    assert found
    assert found.method == method.encode()


@pytest.mark.parametrize(
    ("field", "length"),
    [
        ("Content-Length: 0", 0),
        ("content-length:42", 42),
        ("CONTENT-LENGTH:\t 999999999999999", 10**15 - 1),
        ("Transfer-Encoding: chunked", framing.CHUNKED),
        ("transfer-encoding:chunked", framing.CHUNKED),
    ],
)
def test_bodies_of_a_plain_length_or_in_chunks_are_taken(field: str, length: int | None) -> None:
    found = _agrees(_head("POST http://a.example/ HTTP/1.1", HOST, field))
    assert found
    assert found.length == length


@pytest.mark.parametrize("field", ["X:", "X: a\xff", "X: a: b", "x-1_a.b~!#$%&'*+^`|: a\tb", "X: " + "a" * 60_000])
def test_a_value_may_be_any_text(field: str) -> None:
    assert _agrees(_head(LINE, HOST, field))


def test_origin_form_is_for_servers() -> None:
    """RFC 9112 §3.2.1."""
    head = _head("GET /a?b HTTP/1.1", "Host: a.example:1")
    found = _agrees(head, origin_form=True)
    assert found
    assert (found.authority, found.path) == (b"a.example:1", b"/a?b")
    assert boring.read(head) is None
    assert boring.read(_head(LINE, HOST), origin_form=True) is None


# --- what is left to mitmproxy

ODD_LINES = [
    *(f"GET http://{host}/ HTTP/1.1" for host in "A.example a@a.example [::1] a%2eexample a: a:01".split()),
    *(f"GET {target} HTTP/1.1" for target in "https://a.example/ ws://a.example/ HTTP://a/ / * a:80".split()),
    *(f"GET http://a.example{path} HTTP/1.1" for path in '#a /#a /a#b /\xe9 /" /< /> /\\ /^ /` /{ /| /} ?a'.split()),
    "OPTIONS http://a.example HTTP/1.1",
    "GET http://a.example/\x00 HTTP/1.1",
    "GET http://a.example/\t HTTP/1.1",
    "GET http://a.example/\na HTTP/1.1",
    "GET http://a.example/\ra HTTP/1.1",
    "GET http://a.example/ a HTTP/1.1",
    "GET  http://a.example/ HTTP/1.1",
    "GET http://a.example/  HTTP/1.1",
    "GET http://a.example/ HTTP/1.1 ",
    " GET http://a.example/ HTTP/1.1",
    "\r\nGET http://a.example/ HTTP/1.1",
    "\nGET http://a.example/ HTTP/1.1",
    *(f"GET http://a.example/ {version}" for version in "HTTP/1.0 HTTP/1.2 HTTP/2.0 http/1.1 HTTP/1.11 HTTP/1".split()),
    *(f"{method} http://a.example/ HTTP/1.1" for method in "get TRACE CONNECT PROPFIND PRI GETX".split()),
    "GET",
    "",
]  # fmt: skip

ODD_FIELDS = [
    "X : a",
    " X: a",
    "\tX: a",
    "X",
    ": a",
    "X\xe9: a",
    "X(: a",
    "X: a\r\n b",
    "X: a\nY: b",
    "X: a\rY: b",
    "X: a\n",
    "X: a\r",
    "X: a\x00",
    "X: a\x7f",
    "X: a\x0b",
    "X: a ",
    "X: a\t",
    "X: ",
    HOST,
    "host: a.example",
    "hOST: b.example",
    "X: a\r\nX: a",
    "X: a\r\nx: b",
    *(f"Content-Length: {value}" for value in "+1 -1 01 00 1_0 1,1 0x1 1.0 1e1 \xb2 1000000000000000 a".split()),
    "Content-Length:",
    "Content-Length: 1 1",
    "Content-Length: 1\r\nContent-Length: 1",
    "Content-Length: 1\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 1",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    *(f"Transfer-Encoding: {value}" for value in 'Chunked gzip,chunked identity chunked, xchunked "chunked"'.split()),
    "Transfer-Encoding:",
    "Content_Length: 1",
    "CONTENT_LENGTH: 1",
    "Transfer_Encoding: chunked",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "TE: trailers",
    "Trailer: X",
    "Via: 1.1 a",
    "Max-Forwards: 1",
    "Proxy-Authorization: Basic YTpi",
    "Proxy-Authenticate: Basic",
    "HTTP2-Settings: AAMAAABkAAQAAP__",
    *(f"Connection: {value}" for value in "X-My-JWT close,x keep-alive,close upgrade TE CLOSE keep-alive,".split()),
    "Connection: close\r\nConnection: close",
]  # fmt: skip


@pytest.mark.parametrize("line", ODD_LINES, ids=repr)
def test_an_odd_request_line_is_left_to_mitmproxy(line: str) -> None:
    assert boring.read(_head(line, HOST)) is None


@pytest.mark.parametrize("field", ODD_FIELDS, ids=repr)
@pytest.mark.parametrize("before", [True, False])
def test_an_odd_field_is_left_to_mitmproxy(field: str, before: bool) -> None:
    lines = (field, HOST) if before else (HOST, field)
    assert boring.read(_head(LINE, *lines)) is None
    assert boring.read(_head("GET / HTTP/1.1", *lines), origin_form=True) is None


@pytest.mark.parametrize(
    "host", [None, "Host:", "Host: b.example", "Host: A.example", "Host: a.example:80", "Host: a.example."]
)
def test_a_host_that_is_not_the_target_is_left_to_mitmproxy(host: str | None) -> None:
    """RFC 9112 §3.2.2: the target's replaces it."""
    assert boring.read(_head(LINE, *filter(None, [host]), "Accept: */*")) is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\nHost: a.example\n\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\n",
        b"GET http://a.example/ HTTP/1.1\rHost: a.example\r\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\n\r\n",
        _head(LINE, HOST)[:-2],
        _head(LINE, HOST) + b"\r\n",
        _head(LINE, HOST) + b"GET",
    ],
    ids=repr,
)
def test_lines_end_with_crlf_and_heads_with_an_empty_one(head: bytes) -> None:
    assert boring.read(head) is None


@pytest.mark.parametrize(("count", "taken"), [(100, True), (101, False), (5000, False)])
def test_there_is_a_most_to_the_fields(count: int, taken: bool) -> None:
    head = _head(LINE, HOST, *(f"X{number}: a" for number in range(count - 1)))
    assert (_agrees(head) is not None) is taken


@pytest.mark.parametrize(("size", "taken"), [(LONGEST, True), (LONGEST + 1, False), (1 << 20, False)])
def test_there_is_a_most_to_the_bytes(size: int, taken: bool) -> None:
    head = _head(LINE, HOST, "X: a")
    assert (_agrees(head.replace(b"X: a", b"X: a" + b"a" * (size - len(head)))) is not None) is taken


# --- nothing is read in two ways

_PIECES = st.sampled_from([
    *b"GET POST http:// a.example :80 / ?a #a @ HTTP/1.1 HTTP/1.0 : Host host:a.example Content-Length 0 1".split(b" "),
    *b"Transfer-Encoding chunked Connection close keep-alive _ ,".split(b" "),
    *(b" ", b"  ", b"\r\n", b"\n", b"\r", b"\r\n ", b": ", b" : ", b"\x00", b"\x80", b"\t", b"\x0b"),
])  # fmt: skip
_FIELDS = st.sampled_from([field for fields in CLIENTS.values() for field in fields] + ODD_FIELDS)


@given(st.lists(_PIECES, max_size=25).map(b"".join))
def test_arbitrary_bytes_are_read_as_conduct_does_or_not_at_all(data: bytes) -> None:
    for origin_form in (True, False):
        _agrees(data, origin_form=origin_form)
        _agrees(data + b"\r\n\r\n", origin_form=origin_form)


@given(st.sampled_from([LINE, "POST http://a.example/a?b HTTP/1.1"]), st.lists(_FIELDS, max_size=4), st.data())
@example(LINE, ["X: a"], None)
def test_heads_with_bytes_of_them_changed_are_read_as_conduct_does_or_not_at_all(
    line: str, fields: list[str], data: st.DataObject | None
) -> None:
    head = _head(line, HOST, *fields)
    _agrees(head)
    if data:
        begin = data.draw(st.integers(0, len(head)))
        end = data.draw(st.integers(begin, min(begin + 3, len(head))))
        _agrees(head[:begin] + data.draw(_PIECES | st.binary(max_size=2)) + head[end:])


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://" + b"a" * LONGEST,
        b"GET http://" + b"a." * (LONGEST // 2) + b"\r\n\r\n",
        b"GET http://a.example/" + b"a" * LONGEST + b" HTTP/1.1\r\n",
        b"GET http://a.example/" + b"?" * LONGEST + b"\r\n\r\n",
        b"GET http://a:" + b"1" * LONGEST,
        b"GET http://a/ HTTP/1.1\r\n" + b"a" * LONGEST,
        b"GET http://a/ HTTP/1.1\r\n" + b"a:" * (LONGEST // 2),
        b"GET http://a/ HTTP/1.1\r\n" + b"a:" + b" " * LONGEST + b"\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n" + b"a:\r\n" * (LONGEST // 4) + b"\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n" + b"a: \t" * (LONGEST // 4) + b"\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n" + b"".join(b"%d:\r\n" % n for n in range(LONGEST // 8)) + b"\r\n",
        b"G" * LONGEST,
        b"\r" * LONGEST,
        b"\n\r" * (LONGEST // 2),
    ],
    ids=lambda head: repr(head[:40]),
)
def test_no_head_takes_long(head: bytes) -> None:
    """Two hundred readings of 64 KiB; one that goes back for each byte would take minutes."""
    began = time.process_time()
    for _ in range(100):
        boring.find_end(head)
        boring.may_become_one(head)
        boring.read(head)
        boring.read(head, origin_form=True)
    assert time.process_time() - began < 5


# --- heads that come in pieces


def test_the_end_of_a_head_is_found() -> None:
    head = _head(LINE, HOST)
    assert [boring.find_end(head[:size]) for size in range(len(head))] == [0] * len(head)
    assert boring.find_end(head) == boring.find_end(head + head) == len(head)


def test_any_beginning_of_a_boring_head_is_waited_for() -> None:
    for client in CLIENTS.values():
        head = _head(LINE, HOST, *client)
        assert all(boring.may_become_one(head[:size]) for size in range(1, len(head)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x16\x03\x01",
        b"\r\n",
        b"\nGET",
        b" GET",
        b"get",
        b"\x00",
        b"\xff",
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\nX: a\n\n",
        b"GET / HTTP/1.1\n\r\n",
        b"G" * LONGEST,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_what_can_be_no_boring_head_is_not_waited_for(data: bytes) -> None:
    assert not boring.may_become_one(data)


# --- places


@pytest.mark.parametrize(
    ("authority", "place"),
    [
        (b"a.example", ("a.example", 80)),
        (b"a.example:8080", ("a.example", 8080)),
        (b"a_b.example", ("a_b.example", 80)),
        (b"127.0.0.1", ("127.0.0.1", 80)),
        (b"localhost:65535", ("localhost", 65535)),
    ],
)
def test_a_plain_name_is_a_place(authority: bytes, place: tuple[str, int]) -> None:
    assert boring.place("http", authority) == place


@pytest.mark.parametrize(
    "authority",
    [
        *b". .. a..b .a xn--bcher-kva.example a.xn--p1ai a:65536 a:0 a:99999 \xc3\xa9.example a,b a@b [::1".split(b" "),
        *(b"", b"a b", b"a" * 64, b"a." * 130),
    ],
)
def test_what_cannot_be_dialled_or_is_written_in_several_ways_is_none(authority: bytes) -> None:
    assert boring.place("http", authority) is None


def test_the_scheme_says_which_port_it_is() -> None:
    assert boring.place("https", b"a.example") == ("a.example", 443)
    assert boring.place("https", b"a.example:80") == ("a.example", 80)


# --- answers

OK, LENGTH = "HTTP/1.1 200 OK", "Content-Length: 2"
DATE = "Date: Thu, 26 Nov 2026 08:59:27 GMT"
USUAL = [
    "Content-Type: text/plain; charset=utf-8",
    "Server: nginx/1.27",
    DATE,
    "date: now",
    "Set-Cookie: a=b",
    "Set-Cookie: c=d",
    "Connection: keep-alive",
    "Connection: close",
    "Connection:",
    "Vary: a",
    "vary: b",
    "Via: 1.1 a",
    "Trailer: X",
    "Proxy-Status: a",
    "X:",
]
ODD_IN_ANSWERS = [
    "Connection: X",
    "Connection: close, X",
    "Connection: close\r\nConnection: close",
    "Keep-Alive: timeout=5",
    "Upgrade: h2c",
    "TE: trailers",
    "Proxy-Connection: close",
    "Proxy-Authenticate: Basic",
    "X: a\r\n b",
    "X : a",
    "X: a ",
    "X: a\x00",
    "X: a\nY: b",
    "X: a\rY: b",
    "X",
    "Content-Length: 2",
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
]


def _agrees_on_answer(head: bytes, method: bytes = b"GET") -> Answer | None:
    """What is read here, if anything, which is what conduct reads and would pass on."""
    found = boring.read_answer(head, method)
    if found:
        lines, rest = heads.split(head)
        read = heads.response(lines)
        passed = with_date(response_fields(without_identity(read.fields)))
        assert rest == b""
        assert (read.version, read.status, read.reason) == (b"HTTP/1.1", found.status, found.reason)
        assert [name for name, _ in passed] == [name for name, _ in found.fields]
        assert [value for name, value in passed if name != b"Date"] == [
            value for name, value in found.fields if name != b"Date"
        ]
        assert framing.response_length(method, read.status, read.version, read.fields) == found.length
        assert framing.persists(read.version, read.fields) is not found.closes
        framed = framing.frame_for_client(b"HTTP/1.1", method, read.status, passed, closes=False)
        assert (framed.coding is framing.CHUNKED, framed.closes) == (found.length is framing.CHUNKED, False)
        assert framed.fields == passed, "it may be sent as it is"
    return found


@pytest.mark.parametrize("length", [LENGTH, "content-length:0", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("line", [OK, "HTTP/1.1 299 So\twhat\xff", "HTTP/1.1 404 No", "HTTP/1.1 599 x"])
def test_usual_answers_are_taken(line: str, length: str) -> None:
    found = _agrees_on_answer(_head(line, DATE, length, "Set-Cookie: a=b", "Set-Cookie: c=d", "Connection: keep-alive"))
    assert found
    assert found.fields[0] == (b"Date", DATE[6:].encode())
    assert _agrees_on_answer(_head(line, length)), "it gets a Date"


def test_an_answer_without_a_reason_is_conducts_which_has_one() -> None:
    assert not _agrees_on_answer(_head("HTTP/1.1 200 ", LENGTH))


@pytest.mark.parametrize("field", USUAL)
def test_usual_fields_of_answers_are_taken(field: str) -> None:
    for fields in ((field, LENGTH), (LENGTH, field)):
        found = _agrees_on_answer(_head(OK, *fields))
        assert found
        assert found.closes is (field == "Connection: close")


@pytest.mark.parametrize("field", ODD_IN_ANSWERS, ids=repr)
def test_odd_fields_of_answers_are_conducts(field: str) -> None:
    for fields in ((field, LENGTH), (LENGTH, field)):
        assert boring.read_answer(_head(OK, *fields), b"GET") is None


@pytest.mark.parametrize(
    "lines",
    [
        (OK,),
        (OK, DATE),
        (OK, "Content-Length: 02"),
        (OK, "Content-Length: +2"),
        (OK, "Transfer-Encoding: identity"),
        (OK, "Transfer-Encoding: gzip, chunked"),
        *(
            (line, LENGTH)
            for line in (
                "HTTP/1.1 100 Continue",
                "HTTP/1.1 101 Switching Protocols",
                "HTTP/1.1 204 No Content",
                "HTTP/1.1 304 Not Modified",
                "HTTP/1.1 600 x",
                "HTTP/1.1 20 x",
                "HTTP/1.1 2000 x",
                "HTTP/1.1 200",
                "HTTP/1.1  200 OK",
                "HTTP/1.0 200 OK",
                "HTTP/1.2 200 OK",
                "HTTP/2.0 200 OK",
                "http/1.1 200 OK",
                "HTTP/1.1 200 O\x00K",
                "\r\nHTTP/1.1 200 OK",
            )
        ),
    ],
    ids=repr,
)
def test_odd_answers_are_conducts(lines: tuple[str, ...]) -> None:
    assert boring.read_answer(_head(*lines), b"GET") is None


def test_an_answer_to_head_is_conducts() -> None:
    assert boring.read_answer(_head(OK, LENGTH), b"HEAD") is None


@given(
    st.sampled_from([LENGTH, "Transfer-Encoding: chunked", DATE]),
    st.lists(st.sampled_from(USUAL + ODD_IN_ANSWERS), max_size=4),
    st.data(),
)
def test_answers_with_bytes_of_them_changed_are_read_as_conduct_does_or_not_at_all(
    length: str, fields: list[str], data: st.DataObject
) -> None:
    head = _head(OK, length, *fields)
    _agrees_on_answer(head)
    begin = data.draw(st.integers(0, len(head)))
    end = data.draw(st.integers(begin, min(begin + 3, len(head))))
    _agrees_on_answer(head[:begin] + data.draw(_PIECES | st.binary(max_size=2)) + head[end:])


def test_a_url_may_have_no_path() -> None:
    """RFC 9112 §3.2.1, as aiohttp and urllib send it."""
    head = boring.read(b"GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert head
    assert head.path == b"/"
