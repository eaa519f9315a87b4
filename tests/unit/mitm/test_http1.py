"""HTTP/1.1 where mitmproxy would crash, hang or fill the memory."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

import h11
import pytest
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.http import Headers, HTTPFlow, Response
from mitmproxy.options import Options
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import RequestWakeup, SendData
from mitmproxy.proxy.context import Context
from mitmproxy.test import tflow

from jwtproxy.mitm import flows, http1, time_limits
from jwtproxy.mitm.limits import DEFAULT
from tests.support import servers
from tests.support.inside import Opens, Ours

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream


class Streams:
    """An addon that streams every request."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.stream = True


# --- chunks


def test_trailers_of_a_request_are_dropped(serve: Serve, upstream: type[Upstream]) -> None:
    chunked = b"2\r\nhi\r\n0\r\nx-my-jwt: evil\r\n\r\n"

    async def run() -> None:
        async with upstream() as server, serve(Opens(), Streams()) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(server.request("Transfer-Encoding: chunked", method="POST", body=chunked))
                assert reply.code == 200
            assert server.bodies == [b"2\r\nhi\r\n0\r\n\r\n"] * 2

    asyncio.run(run())


def test_trailers_of_an_answer_are_dropped(serve: Serve, upstream: type[Upstream]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Checksum: 1\r\n\r\n"

    async def run() -> None:
        async with upstream(answer, answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            for _ in range(2):
                assert (await client.ask(server.request())).body == b"2\r\nhi\r\n0\r\n\r\n"

    asyncio.run(run())


# --- heads of requests


@pytest.mark.parametrize("piece", [1000, 64 * 1024])
def test_a_head_without_end_is_refused(serve: Serve, piece: int) -> None:
    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(b"GET http://a.example/ HTTP/1.1\r\n")
            for _ in range(DEFAULT.max_head // piece + 1):
                client.send(b"x: " + b"a" * (piece - 5) + b"\r\n")
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
            assert answer.endswith(b"\r\n\r\njwtproxy: the request's head is too long\n")

    asyncio.run(run())


def test_a_long_head_with_an_end_is_taken(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy:
            assert (await proxy.ask(server.request("X: " + "a" * 60_000))).code == 200
            assert b"a" * 60_000 in server.heads[0]

    asyncio.run(run())


def test_a_long_body_is_no_head(serve: Serve, upstream: type[Upstream]) -> None:
    body = b"a" * (DEFAULT.max_head + 1)

    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy, proxy.client() as client:
            for _ in range(2):
                request = server.request(f"Content-Length: {len(body)}", method="POST", body=body)
                assert (await client.ask(request)).code == 200
            assert server.bodies == [body] * 2

    asyncio.run(run())


HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = b"Host: a.example\r\n"


@pytest.mark.parametrize(
    ("request_line", "fields", "status", "text"),
    [
        (b"GET http://a.example/  HTTP/1.1", HOST, 400, "the request line is not a method, a target and a version"),
        (b"GE T / HTTP/1.1", HOST, 400, "the request line is not a method, a target and a version"),
        (b"DELETE\x85 http://a.example/ HTTP/1.1", HOST, 400, "the request's method is not a token"),
        (b"GET http://a.example/ HTTP/2.0", HOST, 505, "this version of HTTP is not supported"),
        (b"GET http://a.example/ HTTP/1", HOST, 400, "the request line does not end with a version of HTTP"),
        (b"GET http://a.example/\xff HTTP/1.1", HOST, 400, "the request's target is not UTF-8"),
        (b"GET * HTTP/1.1", HOST, 400, "only OPTIONS may have the target *"),
        (b"GET http://a.example/ HTTP/1.1", b"X: a\0b\r\n", 400, "a header value contains a control character"),
        (b"GET http://a.example/ HTTP/1.1", b"X : a\r\n", 400, "a header line does not begin with a name and a colon"),
        (b"GET http://a.example/ HTTP/1.1", HOST + b" b\r\n", 400, "a header line begins with white space"),
        (b"GET http://a.example/ HTTP/1.1", b"Content-Length: 1, 1\r\n", 400, "Content-Length is not a number"),
        (b"POST http://a.example/ HTTP/1.1", b"Transfer-Encoding: gzip, chunked\r\n", 501, "no transfer coding but"),
        (b"GET http://a.example/ HTTP/1.1", b"", 400, "the request has no Host header"),
        (b"GET http://a.example/ HTTP/1.1", HOST + b'Connection: "x"\r\n', 400, "Connection is not a list of tokens"),
        (b"TRACE http://a.example/ HTTP/1.1", HOST, 200, ""),  # where nobody signs
    ],
)
def test_a_request_is_grammar_or_refused_with_the_fault(
    serve: Serve, upstream: type[Upstream], request_line: bytes, fields: bytes, status: int, text: str
) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy, proxy.client() as client:
            line = request_line.replace(b"a.example", server.authority.encode())
            reply = await client.ask(line + b"\r\n" + fields + b"\r\n")
            assert reply.code == status, reply
            if text:
                assert reply.body.startswith(f"jwtproxy: {text}".encode())
                assert server.heads == []
                assert b"a\0b" not in reply.body

    asyncio.run(run())


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\r\n\r\n", b"{}"],
        [b"\r\n{}"],
        [b"\n\n{}"],
        [b"\r", b"\n{}"],
        [b"{}\r\n\r\n{}"],
    ],
)
def test_empty_lines_before_a_request_are_skipped(serve: Serve, upstream: type[Upstream], pieces: list[bytes]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy, proxy.client() as client:
            for piece in pieces:
                client.send(piece.replace(b"{}", server.request()))
                await asyncio.sleep(0.02)
            for _ in range(sum(piece.count(b"{}") for piece in pieces)):
                assert (await asyncio.wait_for(client.reply(), 5)).code == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("streamed", "body"), [(False, b"x\r\n"), (True, b"x\r\n"), (True, b"2\r\nabX"), (False, b"-1\r\n")]
)
def test_a_malformed_chunk_is_refused(serve: Serve, upstream: type[Upstream], streamed: bool, body: bytes) -> None:
    async def run() -> None:
        addons = [Opens(), Streams()] if streamed else [Opens()]
        async with upstream() as server, serve(*addons) as proxy, proxy.client() as client:
            client.send(server.request("Transfer-Encoding: chunked", method="POST", body=body))
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert answer.endswith(b"jwtproxy: the request's body is malformed\n")
            assert server.bodies == []

    asyncio.run(run())


# --- answers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 20 OK\r\n\r\n", "the server's answer does not begin with a status line"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "the server's answer does not begin with a status line"),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", "the server's answer does not begin with a status line"),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "a header value contains a control character"),
        (b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "a header line does not begin with a name and a colon"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "Content-Length is given more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "Content-Length and Transfer-"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "no transfer coding but chunked"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * DEFAULT.max_head, "the head of the server's answer is too long"),
    ],
)
def test_an_answer_is_grammar_or_502(serve: Serve, upstream: type[Upstream], answer: bytes, text: str) -> None:
    async def run() -> None:
        async with upstream(answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            reply = await asyncio.wait_for(client.ask(server.request()), 5)
            assert reply.code == 502
            assert reply.body.startswith(f"jwtproxy: {text}".encode())

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"\r\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"Content-Length: 2\r\n"),
        (b"HTTP/1.7 200\r\nX: a,\r\n \t b\r\nContent-Length: 2\r\n\r\nok", b"X: a, b\r\n"),
        (b"HTTP/1.1 299 \xe9\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 299 \xe9\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", b"Content-Length: 2\r\n"),
    ],
)
def test_what_an_answer_may_be_passes(serve: Serve, upstream: type[Upstream], answer: bytes, expected: bytes) -> None:
    async def run() -> None:
        async with upstream(answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            reply = await asyncio.wait_for(client.ask(server.request()), 5)
            assert expected in reply.head
            assert reply.body == b"ok"

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-L"])
def test_an_answer_that_breaks_off_is_502(serve: Serve, upstream: type[Upstream], answer: bytes) -> None:
    async def run() -> None:
        async with upstream(answer or None) as server, serve(Opens()) as proxy, proxy.client() as client:
            asked = asyncio.create_task(client.ask(server.request()))
            while not server.heads:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            server.hang_up()
            reply = await asked
            assert reply.code == 502
            assert b"jwtproxy: server closed connection" in reply.body
            assert b"Content-L" not in reply.body

    asyncio.run(run())


# --- bodies and persistence


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_where_no_body_can_be_none_is_sent(serve: Serve, upstream: type[Upstream], method: str, answer: bytes) -> None:
    async def run() -> None:
        async with upstream(answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            head = await client.ask(server.request(method=method), head_only=True)
            assert head.head.startswith(answer[:12])
            assert b"chunked" not in head.head
            assert (await client.ask(server.request())).body == b"ok"  # the next answer follows right behind

    asyncio.run(run())


class Teapot:
    """An addon that answers everything, at once or when the request is complete."""

    def request(self, flow: HTTPFlow) -> None:
        flow.response = Response.make(418, b"short and stout", {"Content-Type": "text/plain"})


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_nor_where_a_hook_made_one(serve: Serve, upstream: type[Upstream], method: str) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), Teapot()) as proxy, proxy.client() as client:
            head = await client.ask(server.request(method=method), head_only=True)
            assert b"content-length: 15\r\n" in head.head
            if method == "GET":
                assert await client.exactly(15) == b"short and stout"
            assert (await client.ask(server.request(method="HEAD"), head_only=True)).code == 418

    asyncio.run(run())


def test_a_refusal_of_head_has_no_body(serve: Serve) -> None:
    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(b"HEAD http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
            assert (await client.rest()).endswith(b"\r\n\r\n")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("version", "wish", "answer", "said", "stays"),
    [
        ("1.1", [], FINAL, b"", True),
        ("1.1", [], FINAL.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"", True),
        ("1.1", ["Connection: close"], FINAL, b"Connection: close", False),
        ("1.0", [], FINAL, b"Connection: close", False),
        ("1.0", ["Connection: Keep-Alive"], FINAL, b"Connection: keep-alive", True),
        ("1.0", ["Connection: Keep-Alive"], b"HTTP/1.1 200 OK\r\n\r\nok", b"Connection: close", False),
        ("1.1", [], b"HTTP/1.1 200 OK\r\n\r\nok", b"Connection: close", False),
        ("1.0", [], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"close", False),
    ],
)
def test_a_connection_stays_as_long_as_its_client_wants(
    serve: Serve, upstream: type[Upstream], version: str, wish: list[str], answer: bytes, said: bytes, stays: bool
) -> None:
    async def run() -> None:
        async with upstream(answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            request = server.request(*wish).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
            client.send(request)
            while not server.bodies:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            server.hang_up()
            head = (await client.head()).head
            assert said in head
            assert stays or (await client.rest()) == b"ok"
            assert (b"onnection" in head) is bool(said)
            if stays:
                assert await client.exactly(2) == b"ok"
                assert (await client.ask(server.request())).code == 200

    asyncio.run(run())


@pytest.mark.parametrize("wish", [[], ["Host: other", "TE: trailers"], ["Upgrade: websocket", "Connection: Upgrade"]])
def test_a_request_of_http_1_0_goes_on_in_our_version(serve: Serve, upstream: type[Upstream], wish: list[str]) -> None:
    """RFC 9110 §2.5. The answer is still one that its client understands."""

    async def run() -> None:
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        async with upstream(answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            client.send("\r\n".join((f"GET http://{server.authority}/ HTTP/1.0", *wish, "", "")).encode())
            assert (await client.rest()).endswith(b"\r\n\r\nok")
            assert server.heads[0].startswith(f"GET / HTTP/1.1\r\nHost: {server.authority}\r\n".encode())
            assert server.heads[0].lower().count(b"host:") == 1
            assert not re.search(rb"(?i)\r\n(?:te|connection|upgrade):", server.heads[0]), "which HTTP/1.0 has not"

    asyncio.run(run())


class Answers:
    """A script whose answers may be anything."""

    def __init__(self, hook: str, **fields: str) -> None:
        setattr(self, hook, self._answer)
        self._fields = fields

    def _answer(self, flow: Any) -> None:
        flow.response = Response.make(200, b"own", {"X": self._fields["value"]})


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\rb", "a\nb", "a\0b"])
@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
def test_no_hook_can_make_two_headers_of_one(serve: Serve, upstream: type[Upstream], hook: str, value: str) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), Answers(hook, value=value)) as proxy, proxy.client() as client:
            client.send(server.request())
            said = await client.rest()
            assert said.startswith(b"HTTP/1.1 502 ")
            assert said.endswith(b"jwtproxy: in the answer, a header value contains a control character\n")
            assert b"Set-Cookie" not in said

    asyncio.run(run())


class Spoils:
    """A script that leaves something odd in a request."""

    def __init__(self, hook: str, **odd: Any) -> None:
        setattr(self, hook, self._spoil)
        self._odd = odd

    def _spoil(self, flow: HTTPFlow) -> None:
        for name, value in self._odd.items():
            setattr(flow.request if name != "fields" else flow.request.headers, name, value)


@pytest.mark.parametrize("odd", [{"method": "A(B)"}, {"path": ""}, {"path": "/a b"}, {"fields": ((b"a\r\nb", b"c"),)}])
@pytest.mark.parametrize("hook", ["requestheaders", "request"])
def test_no_hook_can_make_two_requests_of_one(
    serve: Serve, upstream: type[Upstream], hook: str, odd: dict[str, Any]
) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), Spoils(hook, **odd)) as proxy, proxy.client() as client:
            assert (await client.ask(server.request())).code == 502
            assert not server.heads

    asyncio.run(run())


def test_what_a_hook_adds_to_a_path_is_encoded_as_a_clients_is(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with (
            upstream() as server,
            serve(Opens(), Spoils("request", path="/\xe9")) as proxy,
            proxy.client() as client,
        ):
            assert (await client.ask(server.request())).code == 200
            assert server.heads[0].startswith(b"GET /%C3%A9 HTTP/1.1\r\n")

    asyncio.run(run())


def test_trailers_that_a_hook_makes_are_not_sent(serve: Serve, upstream: type[Upstream]) -> None:
    class Trails:
        def response(self, flow: HTTPFlow) -> None:
            assert flow.response
            flow.response.trailers = Headers(((b"a", b"b"),))

    async def run() -> None:
        async with upstream() as server, serve(Opens(), Trails()) as proxy, proxy.client() as client:
            for _ in range(2):
                assert (await client.ask(server.request())).code == 200

    asyncio.run(run())


def test_a_tunnel_that_failed_may_be_followed_by_one_that_does_not(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, upstream() as gone, serve(Opens()) as proxy, proxy.client() as client:
            gone.close()
            for authority, code in ((gone.authority, 502), (server.authority, 200)):
                request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
                assert (await client.ask(request.encode())).code == code

    asyncio.run(run())


# --- interim responses


@pytest.mark.parametrize(
    ("interims", "codes"),
    [(HINT, [103]), (CONTINUE, [100]), (HINT + CONTINUE + HINT, [103, 100, 103]), (HINT * 64, [103] * 64)],
    ids=["103", "100", "three", "64"],
)
def test_an_interim_response_is_passed_on_and_is_not_the_answer(
    serve: Serve, upstream: type[Upstream], interims: bytes, codes: list[int]
) -> None:
    async def run() -> None:
        async with upstream(*(interims + FINAL,) * 2) as server, serve(Opens()) as proxy, proxy.client() as client:
            for _ in range(2):
                client.send(server.request())
                assert [(await client.head()).code for _ in codes] == codes
                reply = await client.reply()
                assert (reply.code, reply.body) == (200, b"ok")

    asyncio.run(run())


@pytest.mark.parametrize("count", [65, 1000])
def test_there_is_an_end_to_interim_responses(serve: Serve, upstream: type[Upstream], count: int) -> None:
    async def run() -> None:
        async with upstream(HINT * count + FINAL) as server, serve(Opens()) as proxy, proxy.client() as client:
            client.send(server.request())
            answer = await client.rest()
            assert answer.count(b"HTTP/1.1 103 ") == 64
            assert b"HTTP/1.1 502 " in answer
            assert answer.endswith(b"jwtproxy: the server sent more than 64 interim answers\n")

    asyncio.run(run())


def test_http_1_0_knows_no_interim_response(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream(HINT + CONTINUE + FINAL) as server, serve(Opens()) as proxy, proxy.client() as client:
            client.send(server.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert (await client.rest()).startswith(b"HTTP/1.1 200 OK\r\n")

    asyncio.run(run())


def test_the_answer_may_come_later_than_the_interim_response(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream(HINT) as server, serve(Opens()) as proxy, proxy.client() as client:
            client.send(server.request())
            assert (await client.head()).code == 103
            asked = asyncio.create_task(client.reply())
            await asyncio.sleep(0.1)
            assert not asked.done()
            await server.answer(FINAL)
            assert (await asked).body == b"ok"

    asyncio.run(run())


@pytest.mark.parametrize("target", ["http://a.example:80/", "a.example:80", "/"])
def test_only_connect_in_capitals_is_one(serve: Serve, target: str) -> None:
    """mitmproxy takes any spelling for one, in whose tunnel nobody would look at Host."""

    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(f"Connect {target} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
            assert (await client.rest()).startswith(b"HTTP/1.1 400 ")

    asyncio.run(run())


def test_an_answer_that_ends_the_connection_is_not_followed_by_a_wait_for_the_body(
    serve: Serve, upstream: type[Upstream]
) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), Streams()) as proxy, proxy.client() as client:
            request = server.request("Connection: close", "Content-Length: 5", method="POST")
            client.send(request)
            while not server.heads:
                await asyncio.sleep(0.01)
            await server.answer(FINAL)
            answer = await asyncio.wait_for(client.rest(), 5)
            assert answer.endswith(b"ok")
            assert b"Connection: close\r\n" in answer

    asyncio.run(run())


# --- pipes

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")


class Relays:
    """An addon that wants no messages of WebSockets."""

    def responseheaders(self, flow: HTTPFlow) -> None:
        flows.mark_relayed(flow)


@pytest.mark.parametrize("framing", [(), ("Transfer-Encoding: chunked",)])
def test_what_follows_an_upgrade_has_no_framing(
    serve: Serve, upstream: type[Upstream], framing: tuple[str, ...]
) -> None:
    """However the body of the request was framed."""

    async def run() -> None:
        async with (
            upstream(SWITCH, b"any bytes") as server,
            serve(Opens(), Relays()) as proxy,
            proxy.client() as client,
        ):
            request = server.request(*UPGRADE, *framing, body=b"0\r\n\r\n" if framing else b"")
            assert (await client.ask(request, head_only=True)).code == 101
            client.send(b"other bytes\r\n\r\n")
            assert await client.exactly(9) == b"any bytes"
            assert server.heads[1] == b"other bytes\r\n\r\n"
            client.end()
            assert await asyncio.wait_for(client.rest(), 5) == b""

    asyncio.run(run())


@pytest.mark.parametrize("first", [b"\n", b"\r\n", b"\r\xff"])
def test_what_follows_an_upgrade_may_begin_with_a_line_break(
    serve: Serve, upstream: type[Upstream], first: bytes
) -> None:
    """On either side, in one piece with what comes before."""

    async def run() -> None:
        async with (
            upstream(SWITCH + first, b"theirs\r\n\r\n") as server,
            serve(Opens(), Relays()) as proxy,
            proxy.client() as client,
        ):
            request = server.request(*UPGRADE) + first + b"ours\r\n\r\n"
            assert (await client.ask(request, head_only=True)).code == 101
            assert await client.exactly(len(first)) == first
            assert await client.exactly(10) == b"theirs\r\n\r\n"
            assert server.heads[1] == first + b"ours\r\n\r\n"

    asyncio.run(run())


@pytest.mark.parametrize("tunnelled", [False, True])
def test_a_pipe_that_the_server_closes_is_closed(serve: Serve, upstream: type[Upstream], tunnelled: bool) -> None:
    async def run() -> None:
        async with upstream(SWITCH) as server, serve(Opens(), Relays()) as proxy, proxy.client() as client:
            if tunnelled:
                authority = server.authority
                asked = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
                assert (await client.ask(asked, head_only=True)).code == 200
            request = server.request(*UPGRADE)
            if tunnelled:
                request = request.replace(f"http://{server.authority}".encode(), b"")
            assert (await client.ask(request, head_only=True)).code == 101
            server.hang_up()
            assert await asyncio.wait_for(client.rest(), 5) == b""

    asyncio.run(run())


# --- chunks


def chunks(*pieces: bytes) -> list[Any]:
    """What is read of a chunked body that comes in these pieces; after a fault, its text."""
    reader, buffer = http1.ChunkedBody(), ReceiveBuffer()
    found: list[Any] = []
    for piece in pieces:
        buffer += piece
        try:
            while event := reader(buffer):
                found.append("end" if isinstance(event, h11.EndOfMessage) else bytes(event.data))
                if found[-1] == "end":
                    return [*found, bytes(buffer)]
        except h11.ProtocolError as error:
            return [*found, str(error)]
    return found


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ((b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\nrest",), [b"abc", "end", b"rest"]),
        ((b"1;x=y\r\na\r\n2\r\nbc\r\n0\r\nA: b\r\n\r\n",), [b"abc", "end", b""]),
        ((b"5\r\nab", b"cde", b"\r", b"\n3\r\nfgh\r\n"), [b"ab", b"cde", b"fgh"]),
        ((b"1\r\na\r\n" * 5000 + b"g\r\n",), [b"a" * 5000, "a chunk of the body is malformed"]),
        ((b"1\r\nabc",), [b"a", "a chunk of the body is malformed"]),
        ((b"1;" + b"x" * 70_000,), ["a line within a chunked body is too long"]),
        ((b"0\r\n" + b"A: b\r\n" * 12_000,), ["a line within a chunked body is too long"]),
        ((b"0\r\n\r\n" + b"x" * 70_000,), ["end", b"x" * 70_000]),
    ],
)
def test_chunks_are_read_together(pieces: tuple[bytes, ...], found: list[Any]) -> None:
    assert chunks(*pieces) == found


# --- what takes too long


LATE_HEAD = b"jwtproxy: the request's head was not complete within 0.2 s\n"
LATE_BODY = b"jwtproxy: nothing more of the request's body came within 0.2 s\n"


@pytest.mark.parametrize("lane", [False, True])
def test_a_head_that_has_begun_must_end(serve: Serve, upstream: type[Upstream], lane: bool) -> None:
    """However often a byte of it comes."""

    async def run() -> None:
        async with (
            upstream() as server,
            serve(Opens(head=0.2), lane=lane) as proxy,
            proxy.client() as client,
            asyncio.timeout(5),
        ):
            assert (await client.ask(server.request())).code == 200
            client.send(server.request()[:-2])
            answer = asyncio.ensure_future(client.rest())
            while not answer.done():
                client.send(b"x")
                await asyncio.sleep(0.02)
            assert answer.result().startswith(b"HTTP/1.1 408 ")
            assert answer.result().endswith(b"\r\n\r\n" + LATE_HEAD)

    asyncio.run(run())


@pytest.mark.parametrize(("began", "left"), [(0.0, 30.0), (12.0, 18.0), (40.0, -10.0)])
def test_a_head_has_its_time_from_when_it_began_elsewhere(began: float, left: float) -> None:
    options = Options()
    time_limits.hang(options, dict.fromkeys((row.member for row in time_limits.OPTIONS), 60.0) | {"head_timeout": 30.0})
    server = http1.Server(Context(client := tflow.tclient_conn(), options))
    assert not list(server.handle_event(events.Start()))
    server.take_back(None, time.monotonic() - began if began else 0.0)
    (watch,) = server.handle_event(events.DataReceived(client, b"GET / HTTP/1.1\r\nHost: "))
    assert isinstance(watch, RequestWakeup)
    assert left - 1 < watch.delay <= left
    said = list(server.handle_event(events.Wakeup(watch)))
    assert any(isinstance(each, SendData) and b" 408 " in each.data for each in said) is (left < 0)
    list(server.handle_event(events.DataReceived(client, b"a\r\n\r\n")))
    assert server._since == 0.0 or left < 0


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["whole", "streamed"])
@pytest.mark.parametrize("coding", ["Content-Length: 9", "Transfer-Encoding: chunked"])
def test_a_body_must_go_on(
    serve: Serve, upstream: type[Upstream], addons: tuple[object, ...], coding: str, lane: bool
) -> None:
    async def run() -> None:
        async with (
            upstream() as server,
            serve(Opens(body=0.2), *addons, lane=lane) as proxy,
            proxy.client() as client,
            asyncio.timeout(5),
        ):
            client.send(server.request(coding, method="POST", body=b"5\r\n"))
            for _ in range(3):
                await asyncio.sleep(0.1)
                client.send(b"a")
            assert (await client.reply()).body == LATE_BODY
            assert await client.rest() == b""

    asyncio.run(run())


class StreamsAll(Ours):
    """An addon that streams requests and answers."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.stream = True

    def responseheaders(self, flow: HTTPFlow) -> None:
        assert flow.response
        flow.response.stream = True


@pytest.mark.parametrize("lane", [False, True])
def test_a_body_is_not_owed_while_its_answer_comes_and_is_afterwards(
    serve: Serve, upstream: type[Upstream], lane: bool
) -> None:
    """Whose connection ends without another status."""
    early = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await asyncio.sleep(0.5)
        early.set()
        writer.write(b"k")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        authority = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        head = f"POST http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with (
            serve(StreamsAll(), Opens(body=0.2), lane=lane) as proxy,
            proxy.client() as client,
            asyncio.timeout(5),
        ):
            reply = await client.ask(head.encode() + b"1\r\na\r\n")
            assert (reply.code, reply.body, early.is_set()) == (200, b"ok", True)
            assert await client.rest() == b""
        await servers.end(server)

    asyncio.run(run())


@pytest.mark.parametrize("lane", [False, True])
def test_a_slow_client_that_is_in_time_is_served(serve: Serve, upstream: type[Upstream], lane: bool) -> None:
    async def run() -> None:
        async with (
            upstream() as server,
            serve(Opens(head=0.4, body=0.4), lane=lane) as proxy,
            proxy.client() as client,
            asyncio.timeout(8),
        ):
            whole = server.request("Content-Length: 3", method="POST")
            for _ in range(2):
                for piece in (whole[:9], whole[9:], b"a", b"b", b"c"):
                    await asyncio.sleep(0.11)
                    client.send(piece)
                assert (await client.reply()).code == 200

    asyncio.run(run())


# --- in what form failures are told


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HEAD http://a.example/ HTTP/1.1\r\nAccept: text/html\r\nX: a\0b\r\n\r\n", 400),
        (b"HEAD http://a.example/ HTTP/1.1\r\nAccept: text/html\r\nX: " + bytes(DEFAULT.max_head), 431),
    ],
    ids=["malformed", "endless"],
)
def test_a_head_request_gets_no_body_whatever_is_wrong_with_it(serve: Serve, head: bytes, status: int) -> None:
    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(head)
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.endswith(b"\r\n\r\n")
            assert answer.count(b"\r\n\r\n") == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "rest", [b"X: a\0b\r\n\r\n", b"Transfer-Encoding: chunked\r\nHost: {}\r\n\r\nnonsense\r\n"], ids=["head", "body"]
)
def test_a_fault_is_told_in_the_form_that_is_preferred(serve: Serve, upstream: type[Upstream], rest: bytes) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), Streams()) as proxy, proxy.client() as client:
            start = b"POST http://%s/ HTTP/1.1\r\naccept: application/json\r\n" % server.authority.encode()
            client.send(start + rest.replace(b"{}", server.authority.encode()))
            head, _, body = (await client.rest()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"\r\nContent-Type: application/problem+json\r\n" in head
            assert b"\r\nProxy-Status: jwtproxy; error=http_request_error\r\n" in head
            assert body.startswith(b'{"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "')

    asyncio.run(run())
