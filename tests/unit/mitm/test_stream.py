"""One request and its answer: what clients and upstreams see of a real server, and its layers one event at a time."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.http import HTTPFlow

from jwtproxy.conduct.verdict import Refuse
from jwtproxy.mitm import flows, patches, pressure
from jwtproxy.observe import pages
from jwtproxy.policy.faults import Unsigned
from tests.support.http2 import Http2
from tests.support.inside import Opens, Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.inside import Serve, Upstream

PAGE = pages.text(403, "not that")
REFUSED = Refuse(403, "not that")


@pytest.fixture(autouse=True)
def installed(pristine: None) -> None:
    patches.install()


class Answers:
    """An addon that answers every request by itself, and keeps what it saw."""

    def __init__(self, page: pages.Page = PAGE) -> None:
        self.page = page
        self.seen: list[tuple[str, bool]] = []
        self.flows: list[HTTPFlow] = []

    def requestheaders(self, flow: HTTPFlow) -> None:
        self.seen.append((flow.request.path, flows.to_self(flow)))
        self.flows.append(flow)
        flows.respond(flow, self.page)


class Streams:
    """An addon that streams every request."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.stream = True


class Kills:
    """An addon that kills whatever is about to be answered."""

    def responseheaders(self, flow: HTTPFlow) -> None:
        flow.kill()


# --- who is asked


@pytest.mark.parametrize(
    ("request_", "to_self"),
    [
        (b"GET /x HTTP/1.1\r\nHost: localhost:9090\r\n\r\n", True),
        (b"GET /x HTTP/1.1\r\nHost: proxy.svc\r\n\r\n", True),
        (b"GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", True),
        (b"GET /x HTTP/1.1\r\nHost: b\xc3\xa4h/&%\r\n\r\n", True),
        (b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", True),
        (b"GET /x HTTP/1.0\r\n\r\n", True),
        (b"GET http://localhost:9090/x HTTP/1.1\r\nHost: localhost\r\n\r\n", False),
        (b"GET http://other.example/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", False),
        (b"GET http://other.example/x HTTP/1.0\r\n\r\n", False),
    ],
)
def test_a_request_in_origin_form_is_one_to_the_proxy(serve: Serve, request_: bytes, to_self: bool) -> None:
    async def run() -> None:
        addon = Answers()
        async with serve(addon) as proxy:
            assert (await proxy.ask(request_)).code == 403
        assert addon.seen == [("/x", to_self)]

    asyncio.run(run())


def test_the_destination_of_such_a_request_is_where_it_came_in(serve: Serve) -> None:
    async def run() -> None:
        addon = Answers()
        async with serve(addon) as proxy:
            await proxy.ask(b"OPTIONS * HTTP/1.1\r\nHost: evil.example:99\r\n\r\n")
            request = addon.flows[0].request
            assert (request.path, request.scheme, request.host, request.port) == ("*", "http", "127.0.0.1", proxy.port)

    asyncio.run(run())


def test_both_forms_may_share_a_connection(serve: Serve) -> None:
    own = b"GET /own HTTP/1.1\r\nHost: other.example\r\n\r\n"
    through = b"GET http://other.example/through HTTP/1.1\r\nHost: other.example\r\n\r\n"

    async def run() -> None:
        addon = Answers()
        async with serve(addon) as proxy, proxy.client() as client:
            for request in (own, through, own, through):
                await client.ask(request)
        assert addon.seen == [("/own", True), ("/through", False)] * 2

    asyncio.run(run())


def test_in_reverse_mode_every_request_is_one_to_the_upstream(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        addon = Answers()
        async with upstream() as server, serve(addon, mode=[f"reverse:http://{server.authority}"]) as proxy:
            await proxy.ask(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert addon.seen == [("/x", False)]

    asyncio.run(run())


# --- Host


class Hosts(Answers):
    """Answers what is not refused yet, and keeps each Host."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: list[list[str]] = []

    def requestheaders(self, flow: HTTPFlow) -> None:
        self.hosts.append(flow.request.headers.get_all("host"))
        if not flow.response:
            super().requestheaders(flow)


@pytest.mark.parametrize(
    ("target", "lines", "expected"),
    [
        ("a.example", "Host: a.example", "a.example"),
        ("a.example", "Host: A.Example.:80", "A.Example.:80"),
        ("a.example", "Host: b.example", "a.example"),
        ("A.example:80", "Host: b.example", "A.example:80"),
        ("a.example", "Host: b.example\r\nhost: a.example", "a.example"),
    ],
)
def test_hooks_see_one_host_that_of_the_target(serve: Serve, target: str, lines: str, expected: str) -> None:
    async def run() -> None:
        addon = Hosts()
        async with serve(addon) as proxy:
            assert (await proxy.ask(f"GET http://{target}/ HTTP/1.1\r\n{lines}\r\n\r\n".encode())).code == 403
        assert addon.hosts == [[expected]]

    asyncio.run(run())


def test_a_request_to_the_proxy_keeps_its_hosts(serve: Serve) -> None:
    async def run() -> None:
        addon = Hosts()
        async with serve(addon) as proxy:
            await proxy.ask(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert addon.hosts == [["a", "b"]]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("mismatch", "hosts", "code", "expected"),
    [
        ("refuse", ["a.example"], 403, ["a.example"]),
        ("refuse", ["A.example.:80", "a.example"], 403, ["A.example.:80"]),
        ("refuse", [], 400, []),
        ("allow", [], 400, []),
        ("refuse", ["b.example"], 421, ["b.example"]),
        ("refuse", ["a.example", "b.example"], 421, ["a.example", "b.example"]),
        ("refuse", ["a.example:443"], 421, ["a.example:443"]),
        ("allow", ["b.example"], 403, ["b.example"]),
        ("allow", ["a.example", "b.example"], 403, ["a.example", "b.example"]),
    ],
)
def test_in_a_tunnel_hosts_are_compared_with_it(
    serve: Serve, mismatch: str, hosts: list[str], code: int, expected: list[str]
) -> None:
    judge = Unsigned(mismatch)

    async def run() -> None:
        addon = Hosts()
        async with serve(Opens(judge), addon, connection_strategy="lazy") as proxy, proxy.client() as client:
            assert (await client.ask(b"CONNECT a.example:80 HTTP/1.1\r\n\r\n")).code == 200
            lines = "".join(f"Host: {host}\r\n" for host in hosts)
            times = 1 if code == 400 else 2  # after that one the connection is closed
            for _ in range(times):
                assert (await client.ask(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())).code == code
        assert addon.hosts == [expected] * times

    asyncio.run(run())


def test_a_refusal_needs_no_hook(serve: Serve, upstream: type[Upstream]) -> None:
    class TakesBack:
        def request(self, flow: HTTPFlow) -> None:
            assert flow.response
            flow.response = None

    async def run() -> None:
        async with upstream() as server, serve(Opens(), TakesBack()) as proxy, proxy.client() as client:
            await client.ask(f"CONNECT {server.authority} HTTP/1.1\r\n\r\n".encode())
            reply = await client.ask(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
            assert (reply.code, b"b.example" in reply.body) == (421, False)
            assert f"http://{server.authority}".encode() in reply.body
            assert server.heads == []

    asyncio.run(run())


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_a_host_that_cannot_be_is_answered(serve: Serve, method: str) -> None:
    async def run() -> None:
        async with serve(Opens()) as proxy:
            target = "http://[::1%a\0]:9/" if method == "GET" else "[::1%a\0]:9"
            assert (await proxy.ask(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())).code == 400

    asyncio.run(run())


# --- answers of our own


@pytest.mark.parametrize("framing", ["Content-Length: 1073741824", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("options", [{}, {"stream_large_bodies": "1m"}])
def test_an_answer_does_not_wait_for_the_body(serve: Serve, framing: str, options: dict[str, Any]) -> None:
    async def run() -> None:
        async with serve(Answers(), **options) as proxy:
            reply = await proxy.ask(f"PUT /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
            assert (reply.code, reply.body) == (403, b"jwtproxy: not that\n")
            assert b"connection: close" in reply.head.lower(), "or the client would have to send the body first"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("framing", "body"), [("Content-Length: 3", b"hey"), ("Transfer-Encoding: chunked", b"0\r\n\r\n")]
)
def test_what_comes_after_an_early_answer_is_dropped_and_the_connection_closed(
    serve: Serve, framing: str, body: bytes
) -> None:
    async def run() -> None:
        async with serve(Answers()) as proxy, proxy.client() as client:
            await client.ask(f"PUT /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
            client.send(body + b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await client.rest() == b""

    asyncio.run(run())


def test_the_connection_lives_on_when_the_request_has_no_body(serve: Serve) -> None:
    async def run() -> None:
        async with serve(Answers()) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(b"DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (reply.code, b"connection" in reply.head.lower()) == (403, False)

    asyncio.run(run())


def test_the_answer_to_head_has_the_length_of_its_body_and_no_body(serve: Serve) -> None:
    async def run() -> None:
        async with serve(Answers()) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n", head_only=True)
                assert f"content-length: {len(PAGE.body)}".encode() in reply.head.lower()

    asyncio.run(run())


def test_an_answer_may_still_be_killed(serve: Serve) -> None:
    async def run() -> None:
        async with serve(Answers(), Kills()) as proxy, proxy.client() as client:
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await client.ask(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            assert caught.value.partial == b""

    asyncio.run(run())


# --- the gate


@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["whole", "streamed"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_gate_refuses_does_not_leave(
    serve: Serve, upstream: type[Upstream], addons: tuple[object, ...], method: str
) -> None:
    async def run() -> None:
        gate = Opens(Verdicts(REFUSED))
        async with upstream() as server, serve(gate, *addons) as proxy:
            body = () if method == "GET" else ("Content-Length: 2",)
            reply = await proxy.ask(server.request(*body, method=method, body=b"hi" if body else b""))
            assert (reply.code, reply.body) == (403, b"jwtproxy: not that\n")
            assert server.heads == []
        assert gate.count == 0

    asyncio.run(run())


@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["whole", "streamed"])
def test_what_passes_the_gate_is_counted_once(
    serve: Serve, upstream: type[Upstream], addons: tuple[object, ...]
) -> None:
    async def run() -> None:
        judge = Verdicts()
        gate = Opens(judge)
        async with upstream() as server, serve(gate, *addons) as proxy, proxy.client() as client:
            for expected in range(1, 4):
                reply = await client.ask(server.request("Content-Length: 2", method="POST", body=b"hi"))
                assert (reply.code, reply.body) == (200, b"ok")
                assert (len(judge.asked), gate.count) == (expected, expected)
            assert server.bodies == [b"hi"] * 3

    asyncio.run(run())


def test_an_upstream_that_cannot_be_reached_counts_and_gives_502(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        gate = Opens()
        async with upstream() as server:
            request = server.request()
        async with serve(gate) as proxy:
            reply = await proxy.ask(request)
            assert reply.code == 502
            assert b"connection refused" in reply.body
            assert b"Errno" not in reply.body
        assert gate.count == 1

    asyncio.run(run())


def test_a_connection_that_is_refused_is_one_that_cannot_be_made(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server:
            request = server.request()
        said = f"cannot connect to http://{server.authority}: connection refused".encode()
        async with serve(Opens()) as proxy:
            reply = await proxy.ask(request)
            assert (reply.code, said in reply.body) == (502, True)
        async with serve(Opens(), mode=[f"upstream:http://{server.authority}"]) as proxy:
            reply = await proxy.ask(b"GET http://origin.example/ HTTP/1.1\r\nHost: origin.example\r\n\r\n")
            assert (reply.code, said in reply.body) == (502, True), "of the proxy that is asked next"

    asyncio.run(run())


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_peer_that_breaks_off_was_connected(serve: Serve, upstream: type[Upstream], begun: bytes) -> None:
    async def run() -> None:
        async with upstream(None) as server, serve(Opens()) as proxy, proxy.client() as client:
            asked = asyncio.create_task(client.ask(server.request()))
            while not server.heads:
                await asyncio.sleep(0.01)
            await server.answer(begun)
            server.hang_up()
            reply = await asked
            assert reply.code == 502
            assert b"cannot connect" not in reply.body

    asyncio.run(run())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("[Errno 111] Connect call failed ('127.0.0.1', 9)", os.strerror(111).lower()),
        (
            "Multiple exceptions: [Errno 111] Connect call failed ('10.1.2.3', 80), [Errno 101] Connect call failed",
            os.strerror(111).lower(),
        ),
        ("Multiple exceptions: not an address, [Errno 111] Connect call failed ('::1', 9)", os.strerror(111).lower()),
        ("[Errno -2] Name or service not known", "name or service not known"),
        ("No connection within 7 s", "no connection within 7 s"),
        ("TLS handshake failed", "TLS handshake failed"),
        ("no connection", "no connection"),
        ("", ""),
        ("N", "N"),
    ],
)
def test_why_it_failed_is_said_in_words(message: str, reason: str) -> None:
    assert flows.cannot_connect("there", message) == f"cannot connect to there: {reason}"


@pytest.mark.parametrize("reached", [True, False])
def test_who_waited_for_100_gets_an_answer_after_it(serve: Serve, upstream: type[Upstream], reached: bool) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy, proxy.client() as client:
            if not reached:
                server.close()
            head = server.request("Expect: 100-continue", "Content-Length: 2", method="POST")
            assert (await client.ask(head)).code == 100
            assert (await client.ask(b"hi")).code == (200 if reached else 502)

    asyncio.run(run())


def test_what_an_addon_answered_neither_passes_the_gate_nor_counts(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        judge = Verdicts()
        gate = Opens(judge)
        async with upstream() as server, serve(gate, Answers()) as proxy:
            await proxy.ask(server.request())
            assert server.heads == []
        assert gate.count == 0

    asyncio.run(run())


# --- silent upstreams; their clock is proven in test_response_timeout.py


@pytest.mark.parametrize("body", [b"", b"hi"])
@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["whole", "streamed"])
def test_an_upstream_that_stays_silent_is_given_up(
    serve: Serve, upstream: type[Upstream], addons: tuple[object, ...], body: bytes
) -> None:
    async def run() -> None:
        gate = Opens(timeout=0.1)
        async with upstream(None) as server, serve(gate, *addons) as proxy, proxy.client() as client:
            reply = await client.ask(server.request(f"Content-Length: {len(body)}", method="POST", body=body))
            said = f"jwtproxy: no answer from http://{server.authority} within 0.1 s\n".encode()
            assert (reply.code, reply.body) == (504, said)
            assert (await client.ask(server.request())).code == 200, "the connection lives on"
            assert gate.count == 2

    asyncio.run(run())


def test_each_stream_of_a_connection_is_given_up_at_its_time() -> None:
    client = Http2(timeout=0.05)
    streams = [client.get(f"{name}.example") for name in "abc"]
    assert len(client.wakeups) == 1, "one timer for all"
    time.sleep(0.06)
    client.wake()
    assert client.codes == dict.fromkeys(streams, "504")


def test_the_upgrade_to_a_websocket_has_no_limit(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream(None) as server, serve(Opens(timeout=0.05)) as proxy:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(proxy.ask(server.request("Upgrade: WebSocket", "Connection: Upgrade")), 0.3)

    asyncio.run(run())


# --- what mitmproxy would not forward


def test_a_websocket_target_is_a_request_like_any_other(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy:
            assert (await proxy.ask(server.request().replace(b"http://", b"ws://"))).code == 200

    asyncio.run(run())


@pytest.mark.parametrize("framing", ["Content-Length: 2", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["gathered", "streamed"])
def test_a_body_has_exactly_one_framing_field(
    serve: Serve, upstream: type[Upstream], framing: str, addons: tuple[object, ...]
) -> None:
    """Two would be read differently by different servers, as the beginning of another request (RFC 9112 §6.1)."""
    chunked = framing.endswith("chunked")

    async def run() -> None:
        async with upstream() as server, serve(Opens(), *addons) as proxy, proxy.client() as client:
            for _ in range(2):
                body = b"2\r\nhi\r\n0\r\n\r\n" if chunked else b"hi"
                assert (await client.ask(server.request(framing, method="POST", body=body))).code == 200
            for head in server.heads:
                (kept,) = re.findall(rb"(?im)^(?:content-length|transfer-encoding): .*?(?=\r$)", head)
                assert kept.decode() == framing

    asyncio.run(run())


def test_what_follows_an_unknown_upgrade_is_not_passed_on(serve: Serve, upstream: type[Upstream]) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"

    async def run() -> None:
        async with upstream(answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            assert (await client.ask(server.request("Upgrade: x", "Connection: Upgrade"))).code == 101
            client.send(server.request())
            assert await asyncio.wait_for(client.rest(), 5) == b""
            assert len(server.heads) == 1

    asyncio.run(run())


@pytest.mark.parametrize("asked", ["x", "websocket, x"])
def test_a_websocket_that_nobody_asked_for_is_none(serve: Serve, upstream: type[Upstream], asked: str) -> None:
    """RFC 9110 §7.8: what is sent by it could not be signed."""
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

    async def run() -> None:
        async with upstream(answer) as server, serve(Opens(Verdicts())) as proxy, proxy.client() as client:
            request = server.request(f"Upgrade: {asked}", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
            assert (await client.ask(request)).code == 101
            client.send(b"GET /unsigned HTTP/1.1\r\n\r\n")
            assert await client.rest() == b""
            assert len(server.heads) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "x"), ("GET", "/a#b"), ("OPTIONS", "x"), ("GET", "@evil.example/")]
)
def test_over_http2_a_path_that_is_none_is_refused(method: str, path: str) -> None:
    client = Http2()
    assert client.codes[client.begin(method, "a.example", path=path, end=True)] == "400"
    assert client.upstream == b""


# --- several requests at a time: HTTP/2, one event at a time


def test_a_request_that_waits_for_its_turn_begins_then_unless_nobody_wants_it_any_more() -> None:
    async def run() -> None:
        client = Http2()
        for _ in range(16):
            client.get("a.example")
        client.slow = []
        unwanted, wanted = client.get("b.example"), client.get("c.example")
        client.cancel(unwanted)
        assert client.counted == 16
        client.end_hooks()
        assert client.counted == 17
        assert len(client.flows) == 17
        client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert client.codes == {wanted: "200"}

    asyncio.run(run())


def test_a_body_that_is_too_large_to_be_held_whole_is_refused() -> None:
    client = Http2(stream=False, max_body=3)
    upload = client.begin("POST", "a.example")
    client.body(upload, b"hello", end=False)
    assert client.codes == {upload: "413"}
    assert client.upstream == b""


def test_an_answer_that_is_too_large_to_be_held_whole_is_refused() -> None:
    client = Http2(max_body=3)
    asked = client.get("a.example")
    client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
    assert client.codes == {}
    client.answer(b"ll")
    assert client.codes == {asked: "502"}
    assert client.closed == client.opened


def _answered(client: Http2) -> None:
    client.body(client.begin("POST", "a.example"), b"hi")
    client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def _broken_off(client: Http2) -> None:
    client.get("a.example")
    client.hang_up()


def _cancelled(client: Http2) -> None:
    client.cancel(client.begin("POST", "a.example"))


def _cancelled_while_a_hook_waits(client: Http2) -> None:
    client.slow = []
    client.cancel(client.begin("POST", "a.example"))
    client.end_hooks()


def _timed_out(client: Http2) -> None:
    client.get("a.example")
    time.sleep(0.02)
    client.wake()


@pytest.mark.parametrize("story", [_answered, _broken_off, _cancelled, _cancelled_while_a_hook_waits, _timed_out])
def test_nothing_of_a_request_is_left_to_the_collector(story: Callable[[Http2], None]) -> None:
    client = Http2(timeout=0.01)
    gc.disable()
    try:
        story(client)
        assert [flow() for flow in client.flows] == [None]
    finally:
        gc.enable()


def test_an_early_answer_over_http2_keeps_the_connection() -> None:
    client = Http2(Verdicts(REFUSED))
    for _ in range(2):
        assert client.codes[client.begin("POST", "a.example")] == "403"


@pytest.mark.parametrize("hosts", [(), ("b.example", "a.example")])
def test_over_http2_the_authority_alone_tells_the_host(hosts: tuple[str, ...]) -> None:
    client = Http2()
    client.begin("GET", "a.example", *(("host", host) for host in hosts), end=True)
    if len(hosts) > 1 and not client.upstream:
        return  # h2 4.4 refuses them itself
    assert client.upstream.lower().count(b"host:") == 1
    assert b"host: a.example\r\n" in client.upstream.lower()


def test_who_is_full_behind_a_slow_hook_and_then_for_the_upstream_stays_full() -> None:
    client = Http2(both=True)
    client.slow = []
    upload = client.begin("POST", "a.example")
    before = client.room(upload)
    client.body(upload, bytes(190_000), end=False)
    assert client.room(upload) <= before - pressure.HIGH
    client.end_hooks()
    assert client.room(upload) <= before - pressure.HIGH
    while client.make_room(max(client.asked)):
        pass
    assert len(client.received) == 190_000
    assert client.room(upload) > before - pressure.HIGH


def test_a_body_of_unknown_length_goes_on_in_chunks() -> None:
    client = Http2()
    client.body(client.begin("POST", "a.example"), b"hi")
    head, _, body = client.upstream.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body == b"2\r\nhi\r\n0\r\n\r\n"


def test_a_body_of_unknown_length_that_was_gathered_gets_its_length() -> None:
    client = Http2(stream=False)
    client.body(client.begin("POST", "a.example"), b"hi")
    head, _, body = client.upstream.partition(b"\r\n\r\n")
    assert b"content-length: 2" in head.lower()
    assert body == b"hi"


@pytest.mark.parametrize("stream", [False, True])
def test_a_length_that_is_known_stays(stream: bool) -> None:
    client = Http2(stream=stream)
    client.body(client.begin("POST", "a.example", ("content-length", "2")), b"hi")
    head, _, body = client.upstream.partition(b"\r\n\r\n")
    assert head.lower().count(b"content-length: 2") == 1
    assert b"transfer-encoding" not in head.lower()
    assert body == b"hi"


@pytest.mark.parametrize("stream", [False, True])
def test_trailers_end_where_http1_begins(stream: bool) -> None:
    client = Http2(stream=stream)
    client.body(client.begin("POST", "a.example"), b"hi", ("x-my-jwt", "evil"))
    assert b"hi" in client.upstream
    assert b"evil" not in client.upstream
    assert client.codes == {}


def test_without_a_body_there_is_no_framing() -> None:
    client = Http2()
    client.get("a.example")
    assert b"content-length" not in client.upstream.lower()
    assert b"transfer-encoding" not in client.upstream.lower()


@pytest.mark.parametrize("leave", [lambda client, asked: client.leave(), lambda client, asked: client.cancel(asked)])
@pytest.mark.parametrize(
    ("method", "status", "fields", "sent", "last"),
    [
        ("GET", b"200", [(b"content-length", b"2")], b"ok", "response"),
        ("GET", b"200", [(b"content-length", b"2")], b"o", "error"),
        ("GET", b"200", [], b"ok", "error"),
        ("HEAD", b"200", [(b"content-length", b"2")], b"", "response"),
        ("GET", b"204", [], b"", "response"),
    ],
)
def test_who_leaves_with_all_of_an_answer_has_got_it(
    leave: Callable[[Http2, int], None],
    method: str,
    status: bytes,
    fields: list[tuple[bytes, bytes]],
    sent: bytes,
    last: str,
) -> None:
    """As curl does, which knows the length, and does not wait for the end of the stream."""
    client = Http2(both=True, stream_answers=True)
    asked = client.begin(method, "a.example", end=True)
    client.answer_headers(1, [(b":status", status), *fields], end=False)
    if sent:
        client.answer_body(1, sent)
    leave(client, asked)
    assert [name for name in client.heard if name in ("response", "error")] == [last]
    assert [flow() for flow in client.flows] == [None]
