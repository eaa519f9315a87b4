"""A connection in the fast lane: what each of its sides gets, whatever the other one, a hook or the gate does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import re
import socket
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy import ctx, exceptions
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Refuse, Verdict
from jwtproxy.lane.engine import Engine
from jwtproxy.lane.switch import Route
from jwtproxy.mitm import flows, gate, limits
from jwtproxy.policy.faults import UNSIGNED
from tests.support import servers
from tests.support.inside import Numbers, Opens, Ours, Verdicts

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
NOT_SIGNED = b"jwtproxy: the request could not be signed and was not forwarded\n"
SEVERAL = 64 << 20
"""Bytes, of which the kernel's buffers hold but a part."""
STANDS_STILL = 0.25
"""Seconds without a byte after which nothing is taken for moving: all of it is in this process."""


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(12):
            await test()

    asyncio.run(limited())


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


class Hears(Ours):
    """An addon that notes what becomes of each request and connection."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.flows: list[HTTPFlow] = []

    def requestheaders(self, flow: HTTPFlow) -> None:
        self.heard.append("requestheaders")
        self.flows.append(flow)

    def request(self, flow: HTTPFlow) -> None:
        self.heard.append("request")

    def responseheaders(self, flow: HTTPFlow) -> None:
        self.heard.append("responseheaders")

    def response(self, flow: HTTPFlow) -> None:
        self.heard.append("response")

    def error(self, flow: HTTPFlow) -> None:
        assert flow.error
        self.heard.append(f"error: {flow.error.msg}")

    def client_connected(self, client: object) -> None:
        self.heard.append("client_connected")

    def client_disconnected(self, client: object) -> None:
        self.heard.append("client_disconnected")

    def server_connect(self, data: ServerConnectionHookData) -> None:
        self.heard.append("server_connect")

    def server_connected(self, data: ServerConnectionHookData) -> None:
        self.heard.append("server_connected")

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        self.heard.append("server_connect_error")

    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        self.heard.append("server_disconnected")

    @property
    def of_flows(self) -> list[str]:
        return [what for what in self.heard if not what.startswith(("client", "server"))]


WHOLE = ["requestheaders", "request", "responseheaders", "response"]


@contextlib.asynccontextmanager
async def _listening(
    serve_one: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """An upstream that does this with each connection; its authority."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve_one(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    finally:
        await servers.end(server)


def _request(authority: str, *lines: str, method: str = "GET", path: str = "/", body: bytes = b"") -> bytes:
    head = (f"{method} http://{authority}{path} HTTP/1.1", f"Host: {authority}", *lines, "", "")
    return "\r\n".join(head).encode("latin-1") + body


# --- requests and answers


def test_a_connection_carries_one_request_after_another(serve: Serve, upstream: type[Upstream]) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(hears, opens := Opens(), lane=True) as proxy, proxy.client() as client:
            for _ in range(5):
                reply = await client.ask(server.request("Proxy-Connection: Keep-Alive", "Accept: */*"))
                assert (reply.code, reply.body) == (200, b"ok")
                assert b"\r\nDate: " in reply.head
            assert proxy.carried == opens.count == 5
            assert server.connections == 1
            expected = f"GET / HTTP/1.1\r\nHost: {server.authority}\r\nAccept: */*\r\n\r\n"
            assert server.heads == [expected.encode()] * 5
        assert hears.of_flows == WHOLE * 5
        connections = [what for what in hears.heard if what not in hears.of_flows]
        assert connections[:3] == ["client_connected", "server_connect", "server_connected"]
        assert sorted(connections[3:]) == ["client_disconnected", "server_disconnected"]

    _run(run)


def test_flows_are_mitmproxys(serve: Serve, upstream: type[Upstream]) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(hears, Opens(), lane=True) as proxy, proxy.client() as client:
            await client.ask(server.request("A: b", "Content-Length: 3", method="POST", body=b"abc"))
        (flow,) = hears.flows
        assert (flow.request.method, flow.request.pretty_url) == ("POST", f"http://{server.authority}/")
        assert (flow.request.headers["a"], flow.request.http_version) == ("b", "HTTP/1.1")
        assert flow.response
        assert (flow.response.status_code, flow.response.reason) == (200, "OK")
        assert flow.client_conn.sockname[1] == proxy.port
        assert f"{flow.client_conn.peername[0]}" == "127.0.0.1"
        assert "{}:{}".format(*flow.server_conn.address or ()) == server.authority
        assert flow.server_conn.timestamp_tcp_setup
        times = (flow.request.timestamp_start, flow.request.timestamp_end, flow.response.timestamp_start)
        assert [*times, flow.response.timestamp_end] == sorted(
            [*times, flow.response.timestamp_end], key=lambda t: t or 0
        )
        assert not flow.live
        assert flow.get_state(), "it can be recorded"

    _run(run)


def test_upstreams_are_kept_apart(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as one, upstream() as other, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            for server in (one, other) * 3:
                assert (await client.ask(server.request())).code == 200
            assert [len(one.heads), one.connections, len(other.heads), other.connections] == [3, 1, 3, 1]

    _run(run)


def test_clients_do_not_share_upstream_connections(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy:
            async with proxy.client() as one, proxy.client() as other:
                for client in (one, other) * 2:
                    assert (await client.ask(server.request())).code == 200
            assert (server.connections, proxy.carried) == (2, 4)

    _run(run)


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_many_requests_in_one_segment_are_answered_in_order(serve: Serve, cut: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async def run() -> None:
        async with _listening(echo) as authority, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(b"".join(_request(authority, path=f"/{number}") for number in range(50)))
            assert [(await client.reply()).body for _ in range(50)] == [b"/%d" % number for number in range(50)]
            assert proxy.carried == 50
            requests = b"".join(_request(authority, path=f"/{number}") for number in range(3))
            for begin in range(0, len(requests), max(cut, len(requests) // 12)):
                client.send(requests[begin : begin + max(cut, len(requests) // 12)])
                await asyncio.sleep(0.001)
            assert [(await client.reply()).body for _ in range(3)] == [b"/0", b"/1", b"/2"]

    _run(run)


def test_many_refused_requests_in_one_segment_are_answered(serve: Serve) -> None:
    """One answer leads to the next request, however many there are: it must not go deeper each time."""
    judge, count = Verdicts(Refuse(403, "no")), 1000

    async def run() -> None:
        async with serve(Opens(judge), lane=True) as proxy, proxy.client() as client:
            client.send(_request("a.example") * count)
            for _ in range(count):
                assert (await client.reply()).code == 403
            assert len(judge.asked) == count
            assert proxy.carried == 0

    _run(run)


def test_requests_that_are_answered_here_have_their_turn_one_by_one(serve: Serve) -> None:
    """Else who sends a thousand of them at once keeps all others waiting."""
    judge, count, so_far = Verdicts(Refuse(403, "no")), 300, [0]

    async def watch() -> None:
        while True:
            so_far.append(len(judge.asked))
            await asyncio.sleep(0)

    async def run() -> None:
        async with serve(Opens(judge), lane=True) as proxy, proxy.client() as client:
            watching = asyncio.create_task(watch())
            client.send(_request("a.example") * count)
            for _ in range(count):
                assert (await client.reply()).code == 403
            watching.cancel()
            assert max(after - before for before, after in itertools.pairwise(so_far)) == 1

    _run(run)


def test_the_client_may_want_its_connection_closed(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(server.request("Connection: close") + server.request())
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\nConnection: close\r\n\r\nok")
            assert answer.count(b"HTTP/1.1") == len(server.heads) == proxy.carried == 1
            assert b"connection" not in server.heads[0].lower()

    _run(run)


@pytest.mark.parametrize("answer", [OK[:-2], b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
def test_an_answer_without_a_body_is_followed_by_the_next(
    serve: Serve, upstream: type[Upstream], answer: bytes
) -> None:
    async def run() -> None:
        async with upstream(answer, answer) as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            request = server.request(method="HEAD") if b"200" in answer else server.request()
            for _ in range(2):
                reply = await client.ask(request, head_only=True)
                assert reply.head.startswith(answer.splitlines()[0])
            assert (server.connections, proxy.carried) == (1, 2)

    _run(run)


@pytest.mark.parametrize("chunked", [True, False])
def test_the_body_of_an_answer_is_passed_as_it_comes(serve: Serve, upstream: type[Upstream], chunked: bool) -> None:
    """In chunks of our own, without trailers; one that ends with its connection still does (RFC 9112 §6.3)."""

    async def run() -> None:
        async with upstream(None) as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(server.request())
            await _until(lambda: server.heads)
            await server.answer(b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * chunked + b"\r\n")
            head = (await client.head()).head.lower()
            assert (b"\r\ntransfer-encoding: chunked\r\n" in head) is chunked
            assert (b"\r\nconnection: close\r\n" in head) is not chunked
            for piece in (b"abc", b"defg"):
                await server.answer(b"%x;x=y\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                expected = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
                assert await client.exactly(len(expected)) == expected
            if chunked:
                await server.answer(b"0\r\nX: a\r\n\r\n")
                assert await client.exactly(5) == b"0\r\n\r\n"
            else:
                server.hang_up()
                assert await client.rest() == b""
            assert proxy.carried == 1

    _run(run)


def test_interim_answers_are_passed_up_to_a_limit(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream(HINT * 3 + OK, HINT * 65 + OK) as server, serve(Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request())
                assert [(await client.head()).code for _ in range(3)] == [103] * 3
                assert (await client.reply()).body == b"ok"
                client.send(server.request())
                answer = await client.rest()
            assert answer.count(b"HTTP/1.1 103 ") == 64
            assert answer.endswith(b"jwtproxy: the server sent more than 64 interim answers\n")
            assert proxy.carried == 2

    _run(run)


def test_what_an_uninvited_upgrade_leads_to_is_closed(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nwhatever"
        async with upstream(answer) as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(server.request() + b"whatever")
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert b"whatever" not in answer
            assert proxy.carried == 1

    _run(run)


# --- bodies of requests


def _piecewise(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_upload_of_a_length_is_passed(serve: Serve, upstream: type[Upstream], size: int) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            head = server.request("Content-Length: 9", method="POST")
            for piece in [head, *_piecewise(b"GET http:", size)]:
                client.send(piece)
                await asyncio.sleep(0.002)
            assert (await client.reply()).code == 200
            client.send((head + b"GET http:") * 2 + server.request())
            assert [(await client.reply()).code for _ in range(3)] == [200] * 3
            assert server.bodies == [b"GET http:"] * 3 + [b""]
            assert (server.connections, proxy.carried) == (1, 4)

    _run(run)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_upload_in_chunks_is_passed_in_chunks_of_our_own(serve: Serve, upstream: type[Upstream], size: int) -> None:
    chunked = b"3;x=y\r\nabc\r\n00004\r\ndefg\r\n0\r\nx-my-jwt: evil\r\n\r\n"

    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            head = server.request("Transfer-Encoding: chunked", method="PUT")
            for piece in [head, *_piecewise(chunked, size)]:
                client.send(piece)
                await asyncio.sleep(0.001)
            assert (await client.reply()).code == 200
            client.send(head + chunked + server.request())
            assert [(await client.reply()).code for _ in range(2)] == [200] * 2
            contents = [b"".join(re.findall(rb"[1-9a-f]\r\n(.*?)\r\n", body)) for body in server.bodies]
            assert contents == [b"abcdefg", b"abcdefg", b""]
            assert not any(b"evil" in body or b";" in body for body in server.bodies)
            assert (server.connections, proxy.carried) == (1, 3)

    _run(run)


def test_a_long_upload_is_passed(serve: Serve, upstream: type[Upstream]) -> None:
    body = bytes(range(256)) * 20_000

    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(server.request(f"Content-Length: {len(body)}", method="PUT", body=body))
                assert reply.code == 200
            assert server.bodies == [body] * 2
            assert proxy.carried == 2

    _run(run)


def test_malformed_chunks_are_refused(serve: Serve, upstream: type[Upstream]) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(hears, Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(server.request("Transfer-Encoding: chunked", method="POST", body=b"1\r\na\r\nx\r\n"))
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert answer.endswith(b"jwtproxy: the request's body is malformed\n")
            assert server.bodies == []
            assert proxy.carried == 1
        assert hears.of_flows == ["requestheaders", "error: the request's body is malformed"]

    _run(run)


@pytest.mark.parametrize("keeps", [True, False])
def test_an_answer_that_comes_before_the_body_is_passed_at_once(serve: Serve, keeps: bool) -> None:
    """The rest of the body still goes where it was to go, or nowhere; the next request is read after it."""
    bodies: list[bytes] = []

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(OK if keeps else OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            if head.startswith(b"POST") and keeps:
                bodies.append(await reader.readexactly(6))
            elif not keeps:
                return

    async def run() -> None:
        async with _listening(early) as authority, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            for number in range(2):
                reply = await client.ask(_request(authority, "Content-Length: 6", method="POST", body=b"abc"))
                assert (reply.code, reply.body) == (200, b"ok"), number
                assert b"connection: close" not in reply.head.lower()
                await asyncio.sleep(0.02)
                client.send(b"def")
            assert (await client.ask(_request(authority))).code == 200
            assert proxy.carried == 3
            assert bodies == ([b"abcdef"] * 2 if keeps else [])

    _run(run)


def test_a_body_that_turns_out_malformed_after_its_answer_is_no_second_end_of_its_flow(serve: Serve) -> None:
    hears = Hears()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()

    async def run() -> None:
        async with _listening(early) as authority, serve(hears, Opens(), lane=True) as proxy, proxy.client() as client:
            head = _request(authority, "Transfer-Encoding: chunked", method="POST")
            assert (await client.ask(head)).body == b"ok"
            client.send(b"x\r\n")
            assert await client.rest() == b""
            assert proxy.carried == 1
        assert hears.of_flows == ["requestheaders", "responseheaders", "response"]

    _run(run)


def test_an_early_answer_may_close_the_connection(serve: Serve) -> None:
    ended = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()

    async def run() -> None:
        async with _listening(early) as authority, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(_request(authority, "Connection: close", "Content-Length: 9", method="POST", body=b"a"))
            assert (await client.rest()).endswith(b"\r\nConnection: close\r\n\r\nok")
            client.send(b"b")
            await asyncio.wait_for(ended.wait(), 5)
            assert proxy.carried == 1

    _run(run)


# --- what goes wrong


def test_an_upstream_that_is_not_there_is_told_of(serve: Serve, upstream: type[Upstream]) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(hears, Opens(), lane=True) as proxy:
            server.close()
            for lines, body in (((), b""), (("Content-Length: 9",), b"a")):
                async with proxy.client() as client:
                    client.send(server.request(*lines, method="POST", body=body))
                    answer = await client.rest()
                    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
                    assert b"\r\nConnection: close\r\n" in answer
                    text = f"jwtproxy: cannot connect to http://{server.authority}: connection refused\n"
                    assert answer.endswith(text.encode())
            assert proxy.carried == 2
        assert [what for what in hears.of_flows if "error" in what] == [
            f"error: cannot connect to http://{server.authority}: connection refused"
        ] * 2
        assert Counter(hears.heard)["server_connect_error"] == 2

    _run(run)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "server closed connection"),
        (b"HTTP/1.1 2", "server closed connection within its answer's head"),
        (b"SSH-2.0-x\r\n\r\n", "the server's answer does not begin with a status line of HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nA b\r\n\r\n", "a header line does not begin with a name and a colon"),
        (OK.replace(b"2\r", b"2\r\nContent-Length: 3\r"), "Content-Length is given more than once"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_bad_answer_is_told_of(serve: Serve, answer: bytes, reason: str, body: bytes) -> None:
    hears = Hears()

    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if answer.endswith(b"\r\n\r\n"):
            await reader.read()

    async def run() -> None:
        async with _listening(bad) as authority, serve(hears, Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(_request(authority, f"Content-Length: {len(body)}", method="POST", body=body))
            said = await client.rest()
            assert said.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            assert said.endswith(f"jwtproxy: {reason}\n".encode())
            assert proxy.carried == 1
        assert hears.of_flows == ["requestheaders", "request", f"error: {reason}"]

    _run(run)


@pytest.mark.parametrize("length", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_an_answer_that_breaks_off_is_not_made_whole(serve: Serve, upstream: type[Upstream], length: bytes) -> None:
    hears, answer = Hears(), b"HTTP/1.1 200 OK\r\n%b\r\n\r\n2\r\nok\r\n" % length

    async def run() -> None:
        async with upstream(answer) as server, serve(hears, Opens(), lane=True) as proxy, proxy.client() as client:
            await client.ask(server.request(), head_only=True)
            server.hang_up()
            assert not (await client.rest()).endswith(b"0\r\n\r\n")
            assert proxy.carried == 1
        assert hears.of_flows[:3] == WHOLE[:3]
        assert hears.of_flows[3].startswith("error: HTTP/1 protocol error: ")
        assert len(hears.of_flows) == 4

    _run(run)


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_an_upstream_that_stays_silent_is_given_up(serve: Serve, upstream: type[Upstream], body: bytes) -> None:
    async def run() -> None:
        opens = Opens(timeout=0.15)
        async with upstream(None) as server, serve(opens, lane=True) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(server.request(f"Content-Length: {len(body)}", method="POST", body=body))
                assert reply.code == 504
                text = f"jwtproxy: no answer from http://{server.authority} within 0.15 s\n"
                assert reply.body == text.encode()
                server._answers.append(None)
            assert (server.connections, proxy.carried) == (2, 2), "what it may still say is no answer to the next"

    _run(run)


def test_the_clock_begins_with_the_end_of_the_request_and_ends_with_the_head(
    serve: Serve, upstream: type[Upstream]
) -> None:
    async def run() -> None:
        async with upstream(None) as server, serve(Opens(timeout=0.2), lane=True) as proxy, proxy.client() as client:
            client.send(server.request("Content-Length: 3", method="POST"))
            await asyncio.sleep(0.4)
            client.send(b"abc")
            await _until(lambda: server.bodies)
            await server.answer(OK[:-2])
            await asyncio.sleep(0.4)
            await server.answer(OK[-2:])
            assert (await client.reply()).body == b"ok"
            assert proxy.carried == 1

    _run(run)


def test_an_idle_client_is_let_go(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True, tcp_timeout=1) as proxy:
            async with proxy.client() as silent, proxy.client() as client:
                assert (await client.ask(server.request())).code == 200
                await asyncio.sleep(0.6)
                assert (await client.ask(server.request())).code == 200
                for one in (silent, client):
                    with contextlib.suppress(ConnectionError):
                        assert await asyncio.wait_for(one.rest(), 4) == b""
            assert proxy.carried == 2

    _run(run)


class Counts(Ours):
    """An addon that notes which limits are reached."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[str] = []

    def load(self, loader: object) -> None:
        limits.count_with(ctx.options, self.counted.append)


async def _hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer, and say no more."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


def test_silence_is_borne_longer_while_a_request_is_in_flight(serve: Serve) -> None:
    counts = Counts()

    async def run() -> None:
        times = Opens(head=0.1, body=0.1, keepalive=0.1, idle=0.6)
        async with _listening(_hangs) as authority, serve(counts, times, lane=True) as proxy, proxy.client() as client:
            assert (await client.ask(_request(authority), head_only=True)).code == 200
            began = time.monotonic()
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b"o"
            assert time.monotonic() - began > 0.5
            assert (proxy.carried, counts.counted) == (1, ["jwt_idle_timeout"])

    _run(run)


@pytest.mark.parametrize("asks", [0, 1, 2])
def test_a_client_that_asks_for_nothing_more_is_let_go(serve: Serve, upstream: type[Upstream], asks: int) -> None:
    counts = Counts()

    async def run() -> None:
        async with upstream() as server, serve(counts, Opens(keepalive=0.3), lane=True) as proxy:
            async with proxy.client() as client:
                for _ in range(asks):
                    await asyncio.sleep(0.15)
                    assert (await client.ask(server.request())).code == 200
                began = time.monotonic()
                assert await client.rest() == b""
                assert time.monotonic() - began > 0.25
            assert (proxy.carried, counts.counted) == (asks, ["jwt_keepalive_timeout"])

    _run(run)


def test_who_was_refused_and_stays_is_let_go_without_being_counted(serve: Serve, upstream: type[Upstream]) -> None:
    counts = Counts()

    async def run() -> None:
        async with upstream() as server, serve(counts, Opens(head=0.1, keepalive=0.2), lane=True) as proxy:
            async with proxy.client() as client:
                assert (await client.ask(server.request()[:9])).code == 408
                assert await client.rest() == b""
                await _until(lambda: not proxy.lane or not list(proxy.lane.connections()))
            assert counts.counted == ["jwt_head_timeout"]

    _run(run)


def test_a_body_is_owed_only_when_its_upstream_is_there(serve: Serve, upstream: type[Upstream]) -> None:
    """While it is dialled, nobody takes it."""

    class Slow(Ours):
        async def server_connect(self, data: ServerConnectionHookData) -> None:
            await asyncio.sleep(0.5)

    async def run() -> None:
        async with upstream() as server, serve(Slow(), Opens(body=0.2), lane=True) as proxy, proxy.client() as client:
            assert (await client.ask(server.request("Content-Length: 1", method="POST", body=b"a"))).code == 200
            client.send(server.request("Content-Length: 2", method="POST", body=b"a"))
            assert (await client.reply()).code == 408
            assert proxy.carried == 2

    _run(run)


@pytest.mark.parametrize("body", [b"", b"a"])
def test_what_a_client_that_is_gone_has_asked_for_ends(serve: Serve, body: bytes) -> None:
    hears, ended = Hears(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()

    async def run() -> None:
        async with _listening(silent) as authority, serve(hears, Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                length = 9 if body else 0
                client.send(_request(authority, f"Content-Length: {length}", method="POST", body=body))
                await _until(lambda: "server_connected" in hears.heard)
            await asyncio.wait_for(ended.wait(), 5)
            await _until(lambda: "server_disconnected" in hears.heard)
            assert proxy.carried == 1
        assert hears.of_flows == [*WHOLE[: 1 if body else 2], "error: client disconnected"]
        assert not any(flow.live for flow in hears.flows)

    _run(run)


@pytest.mark.parametrize("stray", [b"x", OK])
def test_what_an_upstream_says_unasked_is_no_answer(serve: Serve, upstream: type[Upstream], stray: bytes) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            assert (await client.ask(server.request())).body == b"ok"
            await server.answer(stray)
            await asyncio.sleep(0.05)
            server._answers.append(OK.replace(b"ok", b"no"))
            assert (await client.ask(server.request())).body == b"no"
            assert (server.connections, proxy.carried) == (2, 2)

    _run(run)


def test_what_follows_an_answer_is_not_the_next(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream(OK + OK.replace(b"ok", b"no")) as server, serve(Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request() * 2)
                assert [(await client.reply()).body for _ in range(2)] == [b"ok"] * 2
            assert (server.connections, proxy.carried) == (2, 2)

    _run(run)


class Racing:
    """An upstream that closes each connection as its second request comes, or sends some of an answer first."""

    def __init__(self, said: bytes = b"") -> None:
        self.heads: list[bytes] = []
        self._said = said

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (OK, self._said):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()


@pytest.mark.parametrize(
    ("method", "body", "said", "goes_again"),
    [
        ("GET", b"", b"", True),
        ("DELETE", b"", b"", True),
        ("POST", b"", b"", False),
        ("PUT", b"abc", b"", False),
        ("GET", b"", b"HTTP/1.1 2", False),
        ("GET", b"", HINT, False),
    ],
)
def test_a_request_that_crosses_the_end_of_its_connection_goes_again_if_it_may(
    serve: Serve, method: str, body: bytes, said: bytes, goes_again: bool
) -> None:
    """RFC 9112 §9.3.1: once, with another token, and counted once."""

    async def test() -> None:
        judge, racing, hears = Numbers(), Racing(said), Hears()
        opens = Opens(judge)
        async with _listening(racing.serve_one) as authority, serve(opens, hears, lane=True) as proxy:
            async with proxy.client() as client:
                assert (await client.ask(_request(authority))).code == 200
                length = [f"Content-Length: {len(body)}"] if body else []
                reply = await client.ask(_request(authority, *length, method=method, body=body))
            assert reply.code == (200 if goes_again else 103 if said == HINT else 502)
            assert len(racing.heads) == 2 + goes_again
            numbers = [re.findall(rb"x-number: (\d+)", head)[0] for head in racing.heads]
            assert len(set(numbers)) == len(numbers)
            assert opens.count == 2
            assert len(hears.flows) == 2
            assert not any("error" in what for what in hears.heard) or not goes_again

    _run(test)


def test_a_request_goes_again_once(serve: Serve) -> None:
    async def test() -> None:
        heads: list[bytes] = []

        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if len(heads) == 1:
                writer.write(OK)
                heads.append(await reader.readuntil(b"\r\n\r\n"))

        async with _listening(serve_one) as authority, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            asked = _request(authority)
            assert (await client.ask(asked)).code == 200
            reply = await client.ask(asked)
            assert (reply.code, reply.body) == (502, b"jwtproxy: server closed connection\n")
        assert len(heads) == 3

    _run(test)


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("last", "answer", "listens"),
    [(True, OK, True), (False, OK, False), (True, EVENTS, False)],
)
def test_who_says_no_more_gets_the_answer_if_the_request_said_so(
    serve: Serve, upstream: type[Upstream], last: bool, answer: bytes, listens: bool
) -> None:
    """RFC 9112 §9.6."""

    async def test() -> None:
        hears = Hears()
        async with upstream(None) as server, serve(hears, Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(server.request(*(["Connection: close"] if last else [])))
            await _until(lambda: server.heads)
            client.end()
            await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                await server.answer(answer)
            assert (b"200 OK" in await client.rest()) is last
            await _until(lambda: hears.of_flows[-1] == ("response" if listens else "error: client disconnected"))
            await _until(lambda: "server_disconnected" in hears.heard)

    _run(test)


def test_an_upstream_that_has_closed_its_connection_gets_another(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            for _ in range(3):
                assert (await client.ask(server.request())).code == 200
                server.hang_up()
                await asyncio.sleep(0.05)
            assert (server.connections, proxy.carried) == (3, 3)

    _run(run)


# --- hooks

HOOKS = ["requestheaders", "request", "responseheaders", "response"]


def _raises(flow: object) -> None:
    raise ValueError("a hook has failed")


async def _waits(flow: object) -> None:
    await asyncio.sleep(0)


def _halts(flow: object) -> None:
    raise exceptions.AddonHalt


@pytest.mark.parametrize("hook", [*HOOKS, "client_connected"])
def test_a_hook_that_fails_does_not_stop_the_others(
    serve: Serve, upstream: type[Upstream], hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(Ours(**{hook: _raises}), hears, Opens(), lane=True) as proxy:
            assert (await proxy.ask(server.request())).code == 200
            assert proxy.carried == 1
        assert hears.of_flows == WHOLE
        assert "client_connected" in hears.heard
        assert "a hook has failed" in caplog.text

    _run(run)


def test_a_hook_may_halt_the_others(serve: Serve, upstream: type[Upstream]) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(Ours(request=_halts), hears, Opens(), lane=True) as proxy:
            assert (await proxy.ask(server.request())).code == 200
            assert proxy.carried == 1
        assert hears.of_flows == [what for what in WHOLE if what != "request"]

    _run(run)


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_request_whose_hook_would_have_to_wait_does_not_leave(
    serve: Serve, upstream: type[Upstream], hook: str, body: bytes
) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(Ours(**{hook: _waits}), hears, Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request(f"Content-Length: {len(body)}", method="POST", body=body))
                answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            assert answer.endswith(NOT_SIGNED)
            left = hook == "request" and body  # its head had to leave before
            assert len(server.heads) == proxy.carried == (1 if left else 0)
        assert hears.of_flows[-1].startswith("error: ")

    _run(run)


@pytest.mark.parametrize("hook", ["responseheaders", "response"])
def test_an_answer_whose_hook_would_have_to_wait_is_not_passed_as_whole(
    serve: Serve, upstream: type[Upstream], hook: str
) -> None:
    hears, answer = Hears(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    async def run() -> None:
        async with upstream(answer) as server, serve(hears, Ours(**{hook: _waits}), Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request())
                said = await client.rest()
            if hook == "responseheaders":
                assert said.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            assert not said.endswith(b"0\r\n\r\n")
            assert proxy.carried == 1
        assert hears.of_flows[-1].startswith("error: ")

    _run(run)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_flow_may_be_killed(serve: Serve, upstream: type[Upstream], hook: str, body: bytes) -> None:
    hears = Hears()

    async def run() -> None:
        kills = Ours(**{hook: lambda flow: flow.kill()})
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        async with upstream(answer) as server, serve(hears, kills, Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request(f"Content-Length: {len(body)}", method="POST", body=body))
                said = await client.rest()
            assert said == b"" if hook != "response" else not said.endswith(b"0\r\n\r\n")
            assert proxy.carried == (1 if body and hook == "request" else HOOKS.index(hook) // 2)
        assert hears.of_flows[-1] == "error: Connection killed."
        assert Counter(hears.of_flows)["error: Connection killed."] == 1

    _run(run)


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
def test_a_hook_may_answer(serve: Serve, upstream: type[Upstream], hook: str) -> None:
    hears = Hears()

    def answer(flow: HTTPFlow) -> None:
        flow.response = Response.make(418, b"tea", {"A": "b"})

    async def run() -> None:
        async with upstream() as server, serve(Ours(**{hook: answer}), hears, Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                for method in ("GET", "HEAD", "GET"):
                    client.send(server.request(method=method))
                    reply = await client.head()
                    assert (reply.code, b"\r\nA: b\r\n" in reply.head) == (418, True)
                    assert method == "HEAD" or await client.exactly(3) == b"tea"
            assert server.heads == []
            assert (proxy.carried, proxy.lane is None) == (0, False)
        assert hears.of_flows == WHOLE * 3

    _run(run)


def test_an_answer_of_a_hook_to_a_request_with_a_body_does_not_wait_for_it(
    serve: Serve, upstream: type[Upstream]
) -> None:
    def answer(flow: HTTPFlow) -> None:
        flow.response = Response.make(418, b"tea")

    async def run() -> None:
        async with upstream() as server, serve(Ours(requestheaders=answer), Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request("Content-Length: 1000000000", method="POST", body=b"a"))
                said = await client.rest()
                assert said.startswith(b"HTTP/1.1 418 ")
                assert b"connection: close" in said.lower()
                assert said.endswith(b"tea")
            assert server.heads == []

    _run(run)


def test_an_answer_of_a_hook_may_be_chunked(serve: Serve) -> None:
    def answer(flow: HTTPFlow) -> None:
        flow.response = Response.make(200, b"tea", {"Transfer-Encoding": "chunked"})

    async def run() -> None:
        async with serve(Ours(request=answer), Opens(), lane=True) as proxy, proxy.client() as client:
            for _ in range(2):
                assert (await client.ask(_request("a.example"))).body == b"3\r\ntea\r\n0\r\n\r\n"

    _run(run)


def test_an_empty_chunked_answer_of_a_hook_ends_once(serve: Serve) -> None:
    def answer(flow: HTTPFlow) -> None:
        flow.response = Response.make(200, b"", {"Transfer-Encoding": "chunked"})

    async def run() -> None:
        async with serve(Ours(request=answer), Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(_request("a.example") + _request("a.example", "Connection: close"))
            assert (await client.reply()).body == b"0\r\n\r\n"
            assert (await client.rest()).partition(b"\r\n\r\n")[2] == b"0\r\n\r\n"

    _run(run)


def test_a_request_goes_where_a_hook_sends_it(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as one, upstream() as other:

            def elsewhere(flow: HTTPFlow) -> None:
                if flow.request.path == "/":
                    flow.request.port = int(other.authority.partition(":")[2])

            async with serve(Ours(request=elsewhere), Opens(), lane=True) as proxy, proxy.client() as client:
                assert (await client.ask(one.request())).code == 200
                assert (await client.ask(_request(other.authority, path="/b"))).code == 200
                assert (await client.ask(_request(one.authority, path="/c"))).code == 200
                assert proxy.carried == 3
            assert [head.split()[1] for head in one.heads] == [b"/c"]
            assert [head.split()[1] for head in other.heads] == [b"/", b"/b"]
            assert other.connections == 1

    _run(run)


@pytest.mark.parametrize("odd", [{"method": "A(B)"}, {"path": ""}, {"path": "/a b"}, {"fields": ((b"a\r\nb", b"c"),)}])
@pytest.mark.parametrize("hook", ["requestheaders", "request", "server_connect"])
def test_no_hook_can_make_two_requests_of_one(
    serve: Serve, upstream: type[Upstream], hook: str, odd: dict[str, Any]
) -> None:
    seen: list[HTTPFlow] = []

    def spoil(_: object) -> None:
        for name, value in odd.items():
            setattr(seen[-1].request if name != "fields" else seen[-1].request.headers, name, value)

    async def run() -> None:
        spoils = Ours(**{hook: spoil})
        async with upstream() as server, serve(Ours(requestheaders=seen.append), spoils, Opens(), lane=True) as proxy:
            assert (await proxy.ask(server.request())).code == 502
            assert not server.heads

    _run(run)


def test_what_a_hook_adds_to_a_path_is_encoded_as_a_clients_is(serve: Serve, upstream: type[Upstream]) -> None:
    def add(flow: HTTPFlow) -> None:
        flow.request.path = "/\xe9"

    async def run() -> None:
        async with upstream() as server, serve(Ours(request=add), Opens(), lane=True) as proxy:
            assert (await proxy.ask(server.request())).code == 200
            assert server.heads[0].startswith(b"GET /%C3%A9 HTTP/1.1\r\n")
            assert proxy.carried == 1

    _run(run)


@pytest.mark.parametrize("name", ["a\r\nb", "a b", ""])
def test_no_hook_can_make_two_answers_of_one(serve: Serve, upstream: type[Upstream], name: str) -> None:
    def add(flow: HTTPFlow) -> None:
        assert flow.response
        flow.response.headers[name] = "c"

    async def run() -> None:
        async with upstream() as server, serve(Ours(responseheaders=add), Opens(), lane=True) as proxy:
            reply = await proxy.ask(server.request())
            assert reply.code == 502
            assert reply.body.startswith(b"jwtproxy: in the answer, ")

    _run(run)


@pytest.mark.parametrize(
    "change", [{"reason": "OK\r\nA: b\r\n\r\nHTTP/1.1 200"}, {"status_code": 99}, {"status_code": 1000}]
)
def test_no_hook_can_make_two_answers_of_a_usual_one(
    serve: Serve, upstream: type[Upstream], change: dict[str, Any]
) -> None:
    def spoil(flow: HTTPFlow) -> None:
        for name, value in change.items():
            setattr(flow.response, name, value)

    async def run() -> None:
        async with upstream() as server, serve(Ours(responseheaders=spoil), Opens(), lane=True) as proxy:
            reply = await proxy.ask(server.request())
            assert reply.code == 502
            assert reply.body.startswith(b"jwtproxy: in the answer, ")

    _run(run)


@pytest.mark.parametrize(("status", "body"), [(204, b""), (304, b""), (404, b"ok"), (200, b"ok")])
def test_a_hook_may_change_the_status_of_an_answer(
    serve: Serve, upstream: type[Upstream], status: int, body: bytes
) -> None:
    """With 204 and 304 no body follows, whatever the upstream sends (RFC 9110 §6.4.1)."""

    def change(flow: HTTPFlow) -> None:
        assert flow.response
        flow.response.status_code = status

    async def run() -> None:
        async with upstream() as server, serve(Ours(responseheaders=change), Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                for _ in range(2):
                    client.send(server.request())
                    assert (await client.head()).code == status
                    assert await client.exactly(len(body)) == body
            assert proxy.carried == 2

    _run(run)


@pytest.mark.parametrize("length", ["Content-Length", "Transfer-Encoding"])
def test_a_hook_may_change_how_an_answer_is_framed(serve: Serve, upstream: type[Upstream], length: str) -> None:
    """What its body then is, its client still can tell."""

    def change(flow: HTTPFlow) -> None:
        assert flow.response
        del flow.response.headers[length]

    async def run() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        answer = OK if length == "Content-Length" else chunked
        async with upstream(answer) as server, serve(Ours(responseheaders=change), Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request())
                said = await client.rest()
            assert b"\r\nConnection: close\r\n" in said
            assert said.endswith(b"\r\n\r\nok")

    _run(run)


def test_a_client_that_hooks_do_not_want_is_closed(serve: Serve, upstream: type[Upstream]) -> None:
    def refuse(client: Any) -> None:
        client.error = "no"

    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(hears, Ours(client_connected=refuse), Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(server.request())
                assert await client.rest() == b""
            assert (proxy.carried, server.heads) == (0, [])
        assert hears.heard == ["client_connected", "client_disconnected"], "once, and not by mitmproxy again"

    _run(run)


def test_hooks_may_refuse_a_server(serve: Serve, upstream: type[Upstream]) -> None:
    def refuse(data: ServerConnectionHookData) -> None:
        data.server.error = "no"

    async def run() -> None:
        async with upstream() as server, serve(Ours(server_connect=refuse), Opens(), lane=True) as proxy:
            reply = await proxy.ask(server.request())
            assert (reply.code, server.connections) == (502, 0)
            assert reply.body.endswith(b": connection killed: no\n")

    _run(run)


@pytest.mark.parametrize("hook", ["server_connect", "server_connected"])
def test_hooks_of_servers_are_waited_for(serve: Serve, upstream: type[Upstream], hook: str) -> None:
    async def waits(data: ServerConnectionHookData) -> None:
        await asyncio.sleep(0.05)

    async def run() -> None:
        async with upstream() as server, serve(Ours(**{hook: waits}), Opens(), lane=True) as proxy:
            assert (await proxy.ask(server.request())).code == 200
            assert proxy.carried == 1

    _run(run)


@pytest.mark.parametrize("said", [b"220 hello\r\n", b""])
def test_a_server_that_speaks_first_or_hangs_up_while_a_hook_waits_gets_no_request(serve: Serve, said: bytes) -> None:
    async def waits(data: ServerConnectionHookData) -> None:
        await asyncio.sleep(0.1)

    async def speaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if said:
            assert await reader.read() == b""

    async def run() -> None:
        async with _listening(speaks) as authority, serve(Ours(server_connected=waits), Opens(), lane=True) as proxy:
            reply = await asyncio.wait_for(proxy.ask(_request(authority)), 5)
            assert (reply.code, reply.body) == (502, b"jwtproxy: server closed connection\n")

    _run(run)


# --- the gate


class Fails(Verdicts):
    """A judge that breaks down."""

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        raise ValueError


@pytest.mark.parametrize("body", [b"", b"abc"])
@pytest.mark.parametrize(
    ("judge", "status", "text"),
    [(Verdicts(Refuse(403, "no")), 403, b"jwtproxy: no\n"), (Fails(), 502, NOT_SIGNED)],
    ids=["refuses", "fails"],
)
def test_what_is_refused_does_not_leave(
    serve: Serve, upstream: type[Upstream], judge: Verdicts, status: int, text: bytes, body: bytes
) -> None:
    async def run() -> None:
        async with upstream() as server, serve(opens := Opens(judge), lane=True) as proxy:
            for _ in range(2):
                request = server.request(f"Content-Length: {len(body)}", method="POST", body=body)
                reply = await proxy.ask(request)
                assert (reply.code, reply.body) == (status, text)
            assert (server.connections, proxy.carried, opens.count) == (0, 0, 0)

    _run(run)


def test_nothing_leaves_where_no_gate_hangs(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            assert (await client.ask(server.request())).code == 200
            gate.shut(proxy.master.options)
            assert (await client.ask(server.request())).code == 502
            assert (len(server.heads), proxy.carried) == (1, 1)

    _run(run)


def test_the_gate_is_asked_once_more_after_dialling(serve: Serve, upstream: type[Upstream]) -> None:
    """It may have taken as long as a token is good for."""

    async def run() -> None:
        judge = Verdicts()

        def refuse(data: object) -> None:
            gate.hang(proxy.master.options, gate.Gate(lambda: Verdicts(Refuse(403, "too late"))))

        async with upstream() as server, serve(Ours(server_connected=refuse), Opens(judge), lane=True) as proxy:
            assert (await proxy.ask(server.request())).code == 403
            assert server.heads == []

    _run(run)


# --- odd requests


def test_an_odd_request_is_mitmproxys_and_so_are_all_that_follow(serve: Serve, upstream: type[Upstream]) -> None:
    hears = Hears()

    async def run() -> None:
        async with upstream() as server, serve(hears, opens := Opens(), lane=True) as proxy, proxy.client() as client:
            odd = server.request("A: b", "A: c")
            for request, carried in ((server.request(), 1), (server.request(), 2), (odd, 2), (server.request(), 2)):
                assert (await client.ask(request)).code == 200
                assert proxy.carried == carried
            assert opens.count == 4
            assert proxy.lane
            assert list(proxy.lane.connections()) == []
            await _until(lambda: Counter(hears.heard)["client_disconnected"] == 1)
            assert Counter(hears.heard)["client_connected"] == 2, "it is another one"
        assert hears.of_flows == WHOLE * 4
        assert Counter(hears.heard)["server_connected"] == Counter(hears.heard)["server_disconnected"] == 2

    _run(run)


def test_odd_requests_among_others_in_one_segment_are_answered_in_order(serve: Serve) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async def run() -> None:
        async with _listening(echo) as authority, serve(Opens(), lane=True) as proxy, proxy.client() as client:
            lines = ((), (), ("A: b", "A: c"), (), ("A: b", "a: c"))
            requests = [_request(authority, *fields, path=f"/{number}") for number, fields in enumerate(lines)]
            client.send(b"".join(requests))
            assert [(await client.reply()).body for _ in requests] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
            assert proxy.carried == 2

    _run(run)


@pytest.mark.parametrize(
    "first", [b"\r\n", b"get http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01", b"GET / HTTP/1.1\nHost: a\n\n"]
)
def test_a_connection_that_begins_oddly_is_mitmproxys_alone(serve: Serve, first: bytes) -> None:
    """It hears of one client only."""
    hears = Hears()

    async def run() -> None:
        async with serve(hears, Opens(), lane=True) as proxy:
            async with proxy.client() as client:
                client.send(first)
                await _until(lambda: "client_connected" in hears.heard)
                assert proxy.lane
                assert list(proxy.lane.connections()) == []
            await _until(lambda: "client_disconnected" in hears.heard)
            assert Counter(hears.heard)["client_connected"] == 1

    _run(run)


def test_a_head_may_come_in_a_few_pieces_or_goes_to_mitmproxy(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=True) as proxy:
            for pieces, carried in ((4, 1), (40, 1)):
                async with proxy.client() as client:
                    request = server.request("A: " + "b" * 60)
                    for piece in _piecewise(request, len(request) // pieces):
                        client.send(piece)
                        await asyncio.sleep(0.003)
                    assert (await client.reply()).code == 200
                    assert proxy.carried == carried

    _run(run)


def test_a_head_that_goes_to_mitmproxy_has_no_longer_for_that(serve: Serve, upstream: type[Upstream]) -> None:
    counts = Counts()

    async def run() -> None:
        async with upstream() as server, serve(counts, Opens(head=1.2), lane=True) as proxy:

            async def late(*, kept_alive: bool) -> None:
                async with proxy.client() as client:
                    if kept_alive:
                        assert (await client.ask(server.request())).code == 200
                    began = time.monotonic()
                    client.send(b"GET http://")
                    await asyncio.sleep(0.9)
                    for _ in range(20):
                        client.send(b"a")
                        await asyncio.sleep(0.003)
                    given_away = time.monotonic()
                    assert (await client.reply()).code == 408
                    assert time.monotonic() > began + 1.1
                    assert time.monotonic() < given_away + 1.0

            await asyncio.gather(late(kept_alive=False), late(kept_alive=True))
            assert proxy.lane
            assert counts.counted == ["jwt_head_timeout"] * 2

    _run(run)


def test_the_lane_is_left_when_it_is_switched_off(serve: Serve, upstream: type[Upstream]) -> None:
    """By a script, say, whose hooks may come and go; what is under way ends as it began."""

    class Foreign:
        def __init__(self) -> None:
            self.heard = 0

        def request(self, flow: HTTPFlow) -> None:
            self.heard += 1

    foreign = Foreign()

    async def run() -> None:
        async with upstream(None) as server, serve(Opens(), lane=True) as proxy:
            async with proxy.client() as client, proxy.client() as other:
                client.send(server.request())
                await _until(lambda: server.heads)
                proxy.master.addons.add(foreign)
                await server.answer(OK)
                assert (await client.reply()).code == 200
                assert (proxy.carried, foreign.heard) == (1, 0)
                for one in (client, other):
                    assert (await one.ask(server.request())).code == 200
                assert (proxy.carried, foreign.heard) == (1, 2)
            proxy.master.addons.remove(foreign)
            assert (await proxy.ask(server.request())).code == 200
            assert proxy.carried == 2

    _run(run)


# --- what must not happen


class Breaks(gate.Gate):
    """A gate that breaks when it is asked for the nth time, or for what an answer is to say."""

    def __init__(self, at: int) -> None:
        super().__init__(lambda: UNSIGNED)
        self._left = at

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("broken")

    def refusal_for(self, flow: HTTPFlow) -> Any:
        self._count()
        return super().refusal_for(flow)

    def named_fields(self, version: bytes, fields: Fields) -> Fields:
        self._count()
        return super().named_fields(version, fields)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5], ids=["asked", "dialled", "answered", "asked again", "answered again"])
def test_an_exception_closes_both_sides(serve: Serve, at: int, caplog: pytest.LogCaptureFixture) -> None:
    hears, open_ones = Hears(), set[object]()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(OK)
        open_ones.discard(writer)

    async def run() -> None:
        async with _listening(answers) as authority, serve(hears, Opens(), lane=True) as proxy:
            gate.hang(proxy.master.options, Breaks(at))
            async with proxy.client() as client:
                for _ in range(2):
                    client.send(_request(authority))
                    await asyncio.sleep(0.03)
                with contextlib.suppress(ConnectionError):
                    answer = await asyncio.wait_for(client.rest(), 5)
                    assert answer.count(b"HTTP/1.1 200 OK") < 2
                await _until(lambda: not open_ones)
                assert proxy.lane
                assert list(proxy.lane.connections()) == []
        assert not any(flow.live for flow in hears.flows)
        assert "\nRuntimeError" in caplog.text
        assert "RuntimeError: broken" not in caplog.text, "what an exception says may hold what passes"
        assert "jwtproxy: error: a connection was closed, as carrying it failed" in caplog.text

    _run(run)


def test_an_exception_of_the_timer_closes_both_sides(
    serve: Serve, upstream: type[Upstream], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*arguments: object) -> None:
        raise RuntimeError("broken")

    async def run() -> None:
        async with upstream(None) as server, serve(Opens(timeout=0.1), lane=True) as proxy, proxy.client() as client:
            monkeypatch.setattr(flows, "respond", breaks)
            client.send(server.request())
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(client.rest(), 5) == b""
        assert "jwtproxy: error: a connection was closed, as carrying it failed" in caplog.text

    _run(run)


def test_flows_are_freed_when_they_end(serve: Serve, upstream: type[Upstream]) -> None:
    seen: list[weakref.ref[HTTPFlow]] = []

    async def run() -> None:
        notes = Ours(request=lambda flow: seen.append(weakref.ref(flow)))
        async with upstream() as server, serve(notes, Opens(), lane=True) as proxy, proxy.client() as client:
            for body in (b"", b"abc", b""):
                request = server.request(f"Content-Length: {len(body)}", method="POST", body=body)
                assert (await client.ask(request)).code == 200
            await asyncio.sleep(0.02)
            gc.collect()
            assert [ref() for ref in seen] == [None] * 3
            assert proxy.carried == 3

    _run(run)


# --- pauses


def _small(port: int) -> socket.socket:
    """A client's socket that takes little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def test_a_client_that_does_not_read_makes_its_upstream_wait(serve: Serve) -> None:
    written = [0]

    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SEVERAL)
        while written[0] < SEVERAL:
            writer.write(bytes(65_536))
            await writer.drain()
            written[0] += 65_536

    async def run() -> None:
        async with _listening(pours) as authority, serve(Opens(), lane=True) as proxy:
            with _small(proxy.port) as sock:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sock, _request(authority))
                before = -1
                while written[0] != before:
                    before = written[0]
                    await asyncio.sleep(STANDS_STILL)
                assert 0 < written[0] < SEVERAL // 2
                received = 0
                while received < SEVERAL:
                    received += len(await loop.sock_recv(sock, 1 << 20))
                assert proxy.carried == 1

    _run(run)


def test_an_upstream_that_does_not_read_makes_its_client_wait(serve: Serve) -> None:
    go_on = asyncio.Event()

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        left = SEVERAL
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(OK)

    async def run() -> None:
        async with _listening(stalls) as authority, serve(Opens(), lane=True) as proxy:
            with _small(proxy.port) as sock:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sock, _request(authority, f"Content-Length: {SEVERAL}", method="POST"))
                sent = 0
                with contextlib.suppress(TimeoutError):
                    while sent < SEVERAL:
                        await _writable(sock)
                        sent += sock.send(bytes(65_536))
                assert 0 < sent < SEVERAL // 2
                go_on.set()
                await loop.sock_sendall(sock, bytes(SEVERAL - sent))
                assert (await loop.sock_recv(sock, 65_536)).startswith(b"HTTP/1.1 200 OK\r\n")
                assert proxy.carried == 1

    _run(run)


async def _writable(sock: socket.socket) -> None:
    """Wait until it takes something. Raises TimeoutError."""
    loop, writable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        await asyncio.wait_for(writable.wait(), STANDS_STILL)
    finally:
        loop.remove_writer(sock)


async def _pour(sock: socket.socket, data: bytes, most: int) -> int:
    """Send this over and over until nothing is taken for a while; how many bytes were."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            await _writable(sock)
            sent += sock.send(data[sent % len(data) :])
    return sent


def test_a_client_that_reads_no_answers_is_not_read_for_ever(serve: Serve) -> None:
    """Answers of our own cost no upstream anything: nothing else would stop their client."""

    async def run() -> None:
        async with serve(Opens(Verdicts(Refuse(403, "no" * 10_000))), lane=True) as proxy:
            with _small(proxy.port) as sock:
                request = _request("a.example", "A: " + "b" * 20_000) * 10
                assert await _pour(sock, request, SEVERAL) < SEVERAL // 2

    _run(run)


def test_a_client_that_is_ahead_is_not_read_for_ever(serve: Serve) -> None:
    """However many requests have been answered since it began."""
    answered = [0]

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answered[0] < 300:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.001)
            writer.write(OK)
            answered[0] += 1
        await reader.read()

    async def run() -> None:
        async with _listening(answers) as authority, serve(Opens(), lane=True) as proxy:
            with _small(proxy.port) as sock:
                request = _request(authority, "A: " + "b" * 100)
                sent = await _pour(sock, request * 400, SEVERAL)
                await _until(lambda: answered[0] == 300)
                sent += await _pour(sock, request * 400, SEVERAL)
                assert sent < SEVERAL // 2

    _run(run)


def test_one_reason_to_wait_does_not_undo_another(serve: Serve) -> None:
    """An upstream that answers early and reads nothing is still behind when the next upload comes."""
    writers: list[asyncio.StreamWriter] = []
    hears, body = Hears(), bytes(65_536)

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writers.append(writer)
        await asyncio.sleep(60)

    async def run() -> None:
        async with _listening(stalls) as authority, serve(hears, Opens(), lane=True) as proxy, proxy.client() as client:
            request = _request(authority, f"Content-Length: {len(body)}", method="POST", body=body)
            done = 0
            with contextlib.suppress(TimeoutError):
                while done * len(body) < SEVERAL:
                    client.send(request)
                    async with asyncio.timeout(STANDS_STILL):
                        while hears.heard.count("request") <= done or not writers:
                            await asyncio.sleep(0)
                        writers[0].write(OK)
                        assert (await client.reply()).code == 200
                    done += 1
            assert 0 < done * len(body) < SEVERAL // 2
            assert len(writers) == 1

    _run(run)


def test_an_upstream_that_ends_while_it_is_behind_keeps_nobody_waiting(serve: Serve) -> None:
    """It has answered; what is left of the body goes nowhere."""
    asked: list[bytes] = []
    may_end = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        if len(asked) == 1:
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            await may_end.wait()
            writer.transport.abort()
        else:
            await reader.read()

    async def run() -> None:
        async with _listening(early) as authority, serve(Opens(), lane=True) as proxy:
            with _small(proxy.port) as sock:
                loop = asyncio.get_running_loop()
                upload = _request(authority, f"Content-Length: {SEVERAL}", method="POST") + bytes(SEVERAL)
                sent = await _pour(sock, upload, len(upload))
                assert sent < SEVERAL // 2
                assert (await loop.sock_recv(sock, 4096)).endswith(b"ok")
                may_end.set()
                await loop.sock_sendall(sock, upload[sent:] + _request(authority))
                assert (await loop.sock_recv(sock, 4096)).endswith(b"ok")
                assert len(asked) == proxy.carried == 2

    _run(run)


def test_an_upstream_that_is_given_up_while_it_is_behind_keeps_nobody_waiting(
    serve: Serve, upstream: type[Upstream]
) -> None:
    async def run() -> None:
        async with upstream(None) as server, serve(Opens(timeout=0.2), lane=True) as proxy, proxy.client() as client:
            client.send(server.request("Content-Length: 3", method="POST", body=b"abc"))
            await _until(lambda: server.bodies)
            assert proxy.lane
            (engine,) = proxy.lane.connections()
            engine.upstream_is_full(True)  # as after a longer body
            assert (await client.reply()).code == 504
            assert (await asyncio.wait_for(client.ask(server.request()), 5)).code == 200
            assert proxy.carried == 2

    _run(run)


def test_what_stands_still_does_not_grow(serve: Serve, upstream: type[Upstream]) -> None:
    """While an upstream is dialled, a body waits in front of the proxy."""
    release = asyncio.Event()

    async def waits(data: object) -> None:
        await release.wait()

    async def run() -> None:
        async with upstream() as server, serve(Ours(server_connect=waits), Opens(), lane=True) as proxy:
            with _small(proxy.port) as sock:
                head = server.request(f"Content-Length: {SEVERAL}", method="POST")
                sent = await _pour(sock, head + bytes(SEVERAL), len(head) + SEVERAL)
                assert sent < SEVERAL // 2
                release.set()
                await asyncio.get_running_loop().sock_sendall(sock, bytes(SEVERAL + len(head) - sent))
                assert (await asyncio.get_running_loop().sock_recv(sock, 4096)).startswith(b"HTTP/1.1 200 OK\r\n")
                assert len(server.bodies[0]) == SEVERAL
                assert proxy.carried == 1

    _run(run)


def test_who_knows_what_is_in_flight_is_told_of_a_request_that_mitmproxy_is_to_try_again() -> None:
    """In a tunnel, where the upstream has closed the connection: until then, the lane itself knows of it."""
    told: list[HTTPFlow] = []
    given: list[tuple[Engine, bytes, HTTPFlow | None]] = []
    lane: Any = SimpleNamespace(connections=set(), left_out={"requestheaders": (told.append,)})
    engine, flow = Engine(lane, Route(), lambda *what: given.append(what)), tflow.tflow()
    engine._leave_to_mitmproxy(flow)
    assert told == [flow]
    assert given == [(engine, b"", flow)]
