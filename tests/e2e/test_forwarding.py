"""What passes through the proxy arrives as it was sent, in both directions, but for the token."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import urllib.request
from collections.abc import Callable, Iterator

import aiohttp
import httpx
import pytest

from tests.support.clients import Raw, curl, message
from tests.support.harness import MIB, Proxy, thorough, verify
from tests.support.upstreams import Fields, Httpbin, Recorder, raw, respond, until_close

FORM = b"name=value&euro=%E2%82%AC"
JSON = b'{"a": [1, 2, null], "euro": "\xe2\x82\xac"}'


@pytest.mark.parametrize(
    ("method", "fields", "body"),
    [
        ("GET", [], b""),
        ("GET", ["Content-Length: 4"], b"body"),
        ("POST", ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(FORM)}"], FORM),
        ("POST", ["content-type: application/json", f"content-length: {len(JSON)}"], JSON),
        ("POST", ["Content-Length: 0"], b""),
        ("PUT", ["Content-Length: 3"], b"\x00\xff\n"),
        ("PATCH", ["Content-Length: 3"], b"[1]"),
        ("DELETE", [], b""),
        ("DELETE", ["Content-Length: 2"], b"{}"),
        ("HEAD", [], b""),
        ("OPTIONS", [], b""),
        ("PROPFIND", ["Depth: 1"], b""),
        ("BREW", ["Content-Length: 6"], b"coffee"),
        ("M-SEARCH", [], b""),
    ],
)
def test_every_method_arrives_as_sent(
    proxy: Proxy, recorder: Recorder, method: str, fields: list[str], body: bytes
) -> None:
    """Request line, fields (order and case too) and body are the client's; the answer is the upstream's."""
    recorder.route("/some/path", respond(202, ("X-Answer", "yes"), body=b"answer"))
    lines = [f"Host: {recorder.authority}", "X-First: 1", *fields, "x-LAST: 2"]
    with Raw(proxy.port) as client:
        reply = client.request(message(method, f"{recorder.url}/some/path?q=1", *lines, body=body), method)
    seen = recorder.only()
    assert seen.head.startswith(f"{method} /some/path?q=1 HTTP/1.1\r\n".encode())
    assert seen.without_token() == _fields(lines)
    assert seen.body == body
    assert verify(seen.token)
    assert (reply.status, reply.values("x-answer"), reply.values("content-length")) == (202, ["yes"], ["6"])
    assert reply.body == (b"" if method == "HEAD" else b"answer")


def test_unusual_fields_arrive_as_sent(proxy: Proxy, recorder: Recorder) -> None:
    """Repeated, empty, long and non-ASCII fields keep their bytes, their order and their number."""
    lines = [
        f"Host: {recorder.authority}",
        "X-Twice: 1",
        "Cookie: a=1; b=2",
        "X-Empty:",
        "X-TWICE: 2",
        "X-Latin: caf\xe9",
        "Authorization: Bearer something-else",
        f"X-Long: {'x' * 30_000}",
    ]
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", *lines)).status == 200
    assert recorder.only().without_token() == _fields(lines)


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb",
        "/a%2fb",
        "/a%3Fb",
        "/a%23b",
        "/%E2%82%AC",
        "/%e2%82%ac?%E2%82%AC=%2B+%20",
        "/%2e%2E/../.%2f/",
        "//double//slash/",
        "/a;v=1,2/~me/@:!$&'()*",
        "/plain?",
        "/?a=1&a=2&b",
        "/?next=http://other.example/%3Fx=1",
        "/100%25",
    ],
)
def test_a_path_arrives_byte_for_byte(proxy: Proxy, recorder: Recorder, target: str) -> None:
    """No escape is decoded, normalised or added."""
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}{target}", f"Host: {recorder.authority}")).status == 200
    assert recorder.only().head.startswith(f"GET {target} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("mebibytes", [24, pytest.param(100, marks=thorough)])
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
def test_a_large_body_arrives_whole(proxy: Proxy, recorder: Recorder, sized: bool, mebibytes: int) -> None:
    """A large POST arrives byte for byte, framed as it was sent."""
    size, expected = mebibytes * MIB, hashlib.sha256()
    for block in _blocks(size):
        expected.update(block)
    fields = {"content-length": str(size)} if sized else {}
    with httpx.Client(proxy=proxy.url, trust_env=False, timeout=60) as client:
        assert client.post(f"{recorder.url}/", content=_blocks(size), headers=fields).text == "ok"
    seen = recorder.only()
    assert (seen.size, seen.sha256) == (size, expected.hexdigest())
    assert seen.values("content-length") == ([str(size)] if sized else [])
    assert seen.values("transfer-encoding") == ([] if sized else ["chunked"])
    assert verify(seen.token)


def test_a_small_chunked_upload_arrives_whole(proxy: Proxy, recorder: Recorder) -> None:
    """Chunks of odd sizes, with an extension on one, add up to the body that was sent."""
    body = b"1\r\na\r\n5;ext=1\r\nbcdef\r\n0\r\n\r\n"
    head = [f"Host: {recorder.authority}", "Transfer-Encoding: chunked"]
    with Raw(proxy.port) as client:
        assert client.request(message("POST", f"{recorder.url}/", *head, body=body)).status == 200
    assert recorder.only().body == b"abcdef"
    assert verify(recorder.only().token)


def test_a_gzip_answer_is_passed_on_compressed(proxy: Proxy, recorder: Recorder) -> None:
    """The proxy neither unpacks nor repacks what the upstream compressed."""
    packed = gzip.compress(b"hello " * 1000)
    recorder.route("/", respond(200, ("Content-Encoding", "gzip"), body=packed))
    with Raw(proxy.port) as client:
        reply = client.request(
            message("GET", f"{recorder.url}/", f"Host: {recorder.authority}", "Accept-Encoding: gzip")
        )
    assert (reply.values("content-encoding"), reply.values("content-length")) == (["gzip"], [str(len(packed))])
    assert reply.body == packed


def test_an_answer_arrives_as_sent(proxy: Proxy, recorder: Recorder) -> None:
    """Status, reason, fields (two Set-Cookie, order and case) and body are the upstream's; Date and Via come on top."""
    lines = ["Set-Cookie: a=1; Path=/", "X-Between:", "set-cookie: b=2, 3", "X-Latin: caf\xe9", "Content-Length: 4"]
    recorder.route("/", raw("\r\n".join(["HTTP/1.1 299 Quite Fine", *lines, "", "body"]).encode("latin-1")))
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}"))
    assert reply.head.startswith(b"HTTP/1.1 299 Quite Fine\r\n")
    assert reply.fields[:-2] == _fields(lines)
    assert [name for name, _ in reply.fields[-2:]] == [b"Date", b"Via"]
    assert reply.body == b"body"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_passed_on_and_not_followed(proxy: Proxy, recorder: Recorder, status: int) -> None:
    """Following is the client's business."""
    recorder.route("/", respond(status, ("Location", f"{recorder.url}/elsewhere")))
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}"))
    assert (reply.status, reply.values("location")) == (status, [f"{recorder.url}/elsewhere"])
    assert recorder.only().target == "/"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_ends_with_its_head(proxy: Proxy, recorder: Recorder, status: int) -> None:
    """204 and 304 arrive with their fields, and the same connection goes on."""
    recorder.route("/empty", respond(status, ("ETag", '"v1"')))
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", f"{recorder.url}/empty", f"Host: {recorder.authority}"))
        assert (reply.status, reply.values("etag"), reply.values("transfer-encoding")) == (status, ['"v1"'], [])
        assert client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")).body == b"ok"


def test_an_answer_without_a_length_arrives_whole(proxy: Proxy, recorder: Recorder) -> None:
    """An answer that ends with its connection arrives whole, and the client learns where it ends."""
    body = b"no length " * 100_000
    recorder.route("/", until_close(body))
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}"))
    assert (reply.status, reply.body) == (200, body)


def test_an_http_1_0_client_is_served(proxy: Proxy, recorder: Recorder) -> None:
    """A client of the last century gets its answer and the end of the connection, and its request is signed."""
    with Raw(proxy.port) as client:
        client.send(message("GET", f"{recorder.url}/old", f"Host: {recorder.authority}", version="1.0"))
        reply = client.reply()
        assert (reply.status, reply.body, client.rest()) == (200, b"ok", b"")
    assert verify(recorder.only().token)


def test_requests_to_two_upstreams_may_share_a_connection(proxy: Proxy, recorder: Recorder) -> None:
    """On one kept-alive client connection each request goes where its target says, with a token of its own."""
    with Recorder() as other, Raw(proxy.port) as client:
        for upstream in (recorder, other, recorder, other):
            assert client.request(message("GET", f"{upstream.url}/", f"Host: {upstream.authority}")).status == 200
        seen = recorder.wait(2) + other.wait(2)
    assert len({verify(request.token)["jti"] for request in seen}) == 4


def _get_with_curl(url: str, proxy: Proxy) -> bytes:
    return curl(url, proxy=proxy.url).stdout


def _get_with_httpx(url: str, proxy: Proxy) -> bytes:
    with httpx.Client(proxy=proxy.url, trust_env=False) as client:
        return client.get(url).content


def _get_with_urllib(url: str, proxy: Proxy) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url}))
    with opener.open(url, timeout=10) as reply:
        return bytes(reply.read())


def _get_with_aiohttp(url: str, proxy: Proxy) -> bytes:
    async def get() -> bytes:
        async with aiohttp.ClientSession() as session, session.get(url, proxy=proxy.url) as reply:
            return await reply.read()

    return asyncio.run(get())


@pytest.mark.parametrize("get", [_get_with_curl, _get_with_httpx, _get_with_urllib, _get_with_aiohttp])
def test_common_clients_need_only_the_proxy_setting(
    proxy: Proxy, httpbin: Httpbin, get: Callable[[str, Proxy], bytes]
) -> None:
    """curl and the usual libraries work as they are, and a real application sees the token."""
    answer = json.loads(get(f"{httpbin.url}/get?a=1", proxy))
    assert answer["args"] == {"a": "1"}
    assert verify(answer["headers"]["X-My-Jwt"])["payload"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/gzip", "gzipped"),
        ("/deflate", "deflated"),
        ("/stream/3", "X-My-Jwt"),
        ("/stream-bytes/50000?seed=1&chunk_size=1000", None),
        ("/encoding/utf8", "∮"),
        ("/status/418", "teapot"),
        ("/response-headers?Set-Cookie=a&Set-Cookie=b", "Set-Cookie"),
    ],
)
def test_answers_of_a_real_application_are_the_same_with_and_without_proxy(
    proxy: Proxy, httpbin: Httpbin, path: str, expected: str | None
) -> None:
    """What httpbin says arrives the same; only pages that echo the request differ, by the token."""
    with (
        httpx.Client(proxy=proxy.url, trust_env=False) as through,
        httpx.Client(trust_env=False) as direct,
    ):
        signed, plain = through.get(httpbin.url + path), direct.get(httpbin.url + path)
    assert signed.status_code == plain.status_code
    assert signed.headers.get("content-encoding") == plain.headers.get("content-encoding")
    assert signed.headers.get_list("set-cookie") == plain.headers.get_list("set-cookie")
    assert expected is None or expected in signed.text
    if "X-My-Jwt" not in signed.text:
        assert signed.content == plain.content


def _fields(lines: list[str]) -> Fields:
    pairs = (line.encode("latin-1").split(b":", 1) for line in lines)
    return [(name, value.strip()) for name, value in pairs]


def _blocks(size: int) -> Iterator[bytes]:
    """`size` bytes of which no two blocks are alike, so that lost and swapped ones show."""
    filler = bytes(range(256)) * 1023
    for number in range(size >> 18):
        yield number.to_bytes(256, "big") + filler
