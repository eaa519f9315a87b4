"""The seam inside mitmproxy: what clients and upstreams see of a real server, and its layers one event at a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import h2.connection
import h2.events
import pytest
from mitmproxy import connection
from mitmproxy.addons import proxyserver
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.test import taddons, tflow

from jwtproxy import http1, http_stream, pages
from jwtproxy.http_stream import seam

if TYPE_CHECKING:
    from tests.conftest import Serve, Upstream

REFUSED = pages.text(403, "not that")


@pytest.fixture(autouse=True)
def installed(pristine: None) -> None:
    http_stream.install()


class Answers:
    """An addon that answers every request by itself, and keeps what it saw."""

    def __init__(self, page: pages.Page = REFUSED) -> None:
        self.page = page
        self.seen: list[tuple[str, bool]] = []
        self.flows: list[HTTPFlow] = []

    def requestheaders(self, flow: HTTPFlow) -> None:
        self.seen.append((flow.request.path, http_stream.to_self(flow)))
        self.flows.append(flow)
        http_stream.respond(flow, self.page)


class Streams:
    """An addon that streams every request."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.stream = True


class Kills:
    """An addon that kills whatever is about to be answered."""

    def responseheaders(self, flow: HTTPFlow) -> None:
        flow.kill()


class Forwarded:
    """Counts what goes upstream."""

    def __init__(self) -> None:
        self.count = 0
        seam.forwarded = self

    def __call__(self) -> None:
        self.count += 1


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
        ("a.example", "X: y", "a.example"),
        ("a.example", "Host: b.example\r\nhost: a.example", "a.example"),
        ("a.example:0", "Host: a.example:0", "a.example"),
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
        ("refuse", [], 403, []),
        ("refuse", ["b.example"], 421, ["b.example"]),
        ("refuse", ["a.example", "b.example"], 421, ["a.example", "b.example"]),
        ("refuse", ["a.example:443"], 421, ["a.example:443"]),
        ("allow", ["b.example"], 403, ["b.example"]),
        ("allow", ["a.example", "b.example"], 403, ["a.example", "b.example"]),
    ],
)
def test_in_a_tunnel_hosts_are_compared_with_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, mismatch: str, hosts: list[str], code: int, expected: list[str]
) -> None:
    monkeypatch.setattr(seam, "host_mismatch", mismatch)

    async def run() -> None:
        addon = Hosts()
        async with serve(addon, connection_strategy="lazy") as proxy, proxy.client() as client:
            assert (await client.ask(b"CONNECT a.example:80 HTTP/1.1\r\n\r\n")).code == 200
            lines = "".join(f"Host: {host}\r\n" for host in hosts)
            for _ in range(2):
                assert (await client.ask(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())).code == code
        assert addon.hosts == [expected] * 2

    asyncio.run(run())


def test_a_refusal_needs_no_hook(serve: Serve, upstream: type[Upstream]) -> None:
    class TakesBack:
        def request(self, flow: HTTPFlow) -> None:
            flow.response = None
            assert http_stream.refusal(flow) is not None

    async def run() -> None:
        async with upstream() as server, serve(TakesBack()) as proxy, proxy.client() as client:
            await client.ask(f"CONNECT {server.authority} HTTP/1.1\r\n\r\n".encode())
            reply = await client.ask(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
            assert (reply.code, b"b.example" in reply.body) == (421, False)
            assert f"http://{server.authority}".encode() in reply.body
            assert server.heads == []

    asyncio.run(run())


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_a_host_that_cannot_be_is_answered(serve: Serve, method: str) -> None:
    async def run() -> None:
        async with serve() as proxy:
            target = "http://[::1%a\0]:9/" if method == "GET" else "[::1%a\0]:9"
            assert (await proxy.ask(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())).code == 400

    asyncio.run(run())


# --- answers of our own


@pytest.mark.parametrize("framing", ["Content-Length: 1073741824", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("options", [{}, {"stream_large_bodies": "1m"}])
def test_an_answer_does_not_wait_for_the_body(serve: Serve, framing: str, options: dict[str, str]) -> None:
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
                assert f"content-length: {len(REFUSED.body)}".encode() in reply.head.lower()

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
        seam.gate = lambda flow: REFUSED
        forwarded = Forwarded()
        async with upstream() as server, serve(*addons) as proxy:
            body = () if method == "GET" else ("Content-Length: 2",)
            reply = await proxy.ask(server.request(*body, method=method, body=b"hi" if body else b""))
            assert (reply.code, reply.body) == (403, b"jwtproxy: not that\n")
            assert server.heads == []
        assert forwarded.count == 0

    asyncio.run(run())


@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["whole", "streamed"])
def test_what_passes_the_gate_is_counted_once(
    serve: Serve, upstream: type[Upstream], addons: tuple[object, ...]
) -> None:
    async def run() -> None:
        asked, forwarded = [], Forwarded()
        seam.gate = lambda flow: asked.append(flow.request.path)
        async with upstream() as server, serve(*addons) as proxy, proxy.client() as client:
            for expected in range(1, 4):
                reply = await client.ask(server.request("Content-Length: 2", method="POST", body=b"hi"))
                assert (reply.code, reply.body) == (200, b"ok")
                assert (len(asked), forwarded.count) == (expected, expected)
            assert server.bodies == [b"hi"] * 3

    asyncio.run(run())


def test_an_upstream_that_cannot_be_reached_counts_and_gives_502(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        forwarded = Forwarded()
        async with upstream() as server:
            request = server.request()
        async with serve() as proxy:
            reply = await proxy.ask(request)
            assert reply.code == 502
            assert b"connection refused" in reply.body
            assert b"Errno" not in reply.body
        assert forwarded.count == 1

    asyncio.run(run())


def test_what_an_addon_answered_neither_passes_the_gate_nor_counts(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        forwarded = Forwarded()
        async with upstream() as server, serve(Answers()) as proxy:
            await proxy.ask(server.request())
            assert server.heads == []
        assert forwarded.count == 0

    asyncio.run(run())


# --- silent upstreams


@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["whole", "streamed"])
@pytest.mark.parametrize("body", [b"", b"hi"])
def test_a_silent_upstream_gives_504(
    serve: Serve, upstream: type[Upstream], addons: tuple[object, ...], body: bytes
) -> None:
    async def run() -> None:
        seam.response_timeout = 0.1
        async with upstream(None) as server, serve(*addons) as proxy, proxy.client() as client:
            length = (f"Content-Length: {len(body)}",) if body else ()
            reply = await client.ask(server.request(*length, method="POST", body=body))
            assert reply.code == 504
            assert reply.body == f"jwtproxy: no answer from http://{server.authority} within 0.1 s\n".encode()
            assert (await client.ask(server.request())).code == 200, "the connection lives on"

    asyncio.run(run())


def test_the_clock_starts_after_the_last_byte_of_the_request(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        seam.response_timeout = 0.2
        async with upstream() as server, serve(Streams()) as proxy, proxy.client() as client:
            head = server.request("Content-Length: 2", method="POST")
            for part in (head, b"h"):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.ask(part), 0.3)
            assert (await client.ask(b"i")).code == 200

    asyncio.run(run())


def test_a_second_request_has_all_the_time_of_the_first(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        seam.response_timeout = 0.4
        async with (
            upstream(b"HTTP/1.1 204 No Content\r\n\r\n", None) as server,
            serve() as proxy,
            proxy.client() as client,
        ):
            await client.ask(server.request())
            await asyncio.sleep(0.2)
            before = time.monotonic()
            assert (await client.ask(server.request())).code == 504
            assert time.monotonic() - before > 0.35
            assert (await client.ask(server.request())).code == 200, "the alarm can be set again"

    asyncio.run(run())


def test_an_answer_in_time_may_take_as_long_as_it_likes(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        seam.response_timeout = 0.1
        async with upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") as server, serve() as proxy:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(proxy.ask(server.request()), 0.4)

    asyncio.run(run())


@pytest.mark.parametrize(("timeout", "lines"), [(0.0, ()), (0.05, ("Upgrade: websocket", "Connection: Upgrade"))])
def test_no_limit_means_none_and_an_upgrade_has_none(
    serve: Serve, upstream: type[Upstream], timeout: float, lines: tuple[str, ...]
) -> None:
    async def run() -> None:
        seam.response_timeout = timeout
        async with upstream(None) as server, serve() as proxy:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(proxy.ask(server.request(*lines)), 0.4)

    asyncio.run(run())


# --- what mitmproxy would not forward


def test_a_websocket_target_is_a_request_like_any_other(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve() as proxy:
            assert (await proxy.ask(server.request().replace(b"http://", b"ws://"))).code == 200

    asyncio.run(run())


def test_trailers_of_a_request_are_dropped(serve: Serve, upstream: type[Upstream]) -> None:
    chunked = b"2\r\nhi\r\n0\r\nx-my-jwt: evil\r\n\r\n"

    async def run() -> None:
        async with upstream() as server, serve(Streams()) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(server.request("Transfer-Encoding: chunked", method="POST", body=chunked))
                assert reply.code == 200
            assert server.bodies == [b"2\r\nhi\r\n0\r\n\r\n"] * 2

    asyncio.run(run())


def test_trailers_of_an_answer_are_dropped(serve: Serve, upstream: type[Upstream]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Checksum: 1\r\n\r\n"

    async def run() -> None:
        async with upstream(answer, answer) as server, serve() as proxy, proxy.client() as client:
            for _ in range(2):
                assert (await client.ask(server.request())).body == b"2\r\nhi\r\n0\r\n\r\n"

    asyncio.run(run())


# --- several requests at a time: HTTP/2, one event at a time


class Http2:
    """An HTTP/2 client whose requests pass mitmproxy's layers to HTTP/1.1 upstreams that never answer."""

    def __init__(self, *, stream: bool = True) -> None:
        self._stream = stream
        with taddons.context(proxyserver.Proxyserver()) as context:
            options = context.options
        client = tflow.tclient_conn()
        client.alpn = b"h2"
        self._client, self._layer = client, http.HttpLayer(Context(client, options), http.HTTPMode.regular)
        self._peer = h2.connection.H2Connection()
        self.wakeups: list[commands.RequestWakeup] = []
        self.codes: dict[int, str] = {}
        self.upstream = b""
        self._peer.initiate_connection()
        self._handle(events.Start())
        self._send()

    def get(self, host: str) -> int:
        """The id of a new request."""
        return self.begin("GET", host, end=True)

    def begin(self, method: str, host: str, *fields: tuple[str, str], end: bool = False) -> int:
        """The id of a new request, of which a body may follow."""
        stream = self._peer.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", "/")]
        self._peer.send_headers(stream, [*pseudo, *fields], end_stream=end)
        self._send()
        return stream

    def body(self, stream: int, data: bytes, *trailers: tuple[str, str]) -> None:
        """All of the body, and perhaps trailers."""
        self._peer.send_data(stream, data, end_stream=not trailers)
        if trailers:
            self._peer.send_headers(stream, trailers, end_stream=True)
        self._send()

    def wake(self) -> None:
        """The oldest alarm rings."""
        self._handle(events.Wakeup(self.wakeups.pop(0)))

    def cancel(self, stream: int) -> None:
        """The client is no longer interested."""
        self._peer.reset_stream(stream, 8)
        self._send()

    def _send(self) -> None:
        self._handle(events.DataReceived(self._client, self._peer.data_to_send()))

    def _handle(self, event: events.Event) -> None:
        queue = [event]
        while queue:
            for command in self._layer.handle_event(queue.pop(0)):
                if isinstance(command, http.HttpRequestHeadersHook):
                    command.flow.request.stream = self._stream
                if isinstance(command, commands.StartHook):
                    queue.append(events.HookCompleted(command))
                elif isinstance(command, commands.OpenConnection):
                    command.connection.state = connection.ConnectionState.OPEN
                    queue.append(events.OpenConnectionCompleted(command, None))
                elif isinstance(command, commands.RequestWakeup):
                    self.wakeups.append(command)
                elif isinstance(command, commands.SendData):
                    self._receive(command)

    def _receive(self, command: commands.SendData) -> None:
        if command.connection is not self._client:
            self.upstream += command.data
            return
        for event in self._peer.receive_data(command.data):
            if isinstance(event, h2.events.ResponseReceived):
                assert event.stream_id
                self.codes[event.stream_id] = dict(event.headers or [])[b":status"].decode()


def test_one_alarm_serves_all_requests_of_a_connection() -> None:
    seam.response_timeout = 0.05
    client = Http2()
    streams = [client.get(f"{name}.example") for name in "abc"]
    assert len(client.wakeups) == 1
    time.sleep(0.06)
    client.wake()
    assert client.codes == dict.fromkeys(streams, "504")
    assert client.wakeups == [], "nobody waits any longer"
    client.get("d.example")
    assert len(client.wakeups) == 1, "the next request sets the alarm again"


def test_each_request_has_its_own_deadline() -> None:
    seam.response_timeout = 0.5
    client = Http2()
    first = client.get("a.example")
    time.sleep(0.4)
    second = client.get("b.example")
    time.sleep(0.12)
    client.wake()
    assert client.codes == {first: "504"}
    (again,) = client.wakeups
    assert 0 < again.delay < 0.5, "until the second one's time is up"
    time.sleep(again.delay)
    client.wake()
    assert client.codes == {first: "504", second: "504"}


def test_an_alarm_after_all_is_settled_does_nothing() -> None:
    seam.response_timeout = 0.01
    client = Http2()
    client.cancel(client.get("a.example"))
    time.sleep(0.02)
    client.wake()
    assert (client.codes, client.wakeups) == ({}, [])


def test_an_early_answer_over_http2_keeps_the_connection() -> None:
    seam.gate = lambda flow: REFUSED
    client = Http2()
    for _ in range(2):
        assert client.codes[client.begin("POST", "a.example")] == "403"


@pytest.mark.parametrize("hosts", [(), ("b.example", "a.example")])
def test_over_http2_the_authority_alone_tells_the_host(hosts: tuple[str, ...]) -> None:
    client = Http2()
    client.begin("GET", "a.example", *(("host", host) for host in hosts), end=True)
    assert client.upstream.lower().count(b"host:") == 1
    assert b"host: a.example\r\n" in client.upstream.lower()


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


# --- installing


def test_installing_twice_is_installing_once() -> None:
    http_stream.install()
    assert http.HttpStream is http_stream.Stream
    assert _http1.ChunkedReader is http1.ChunkedBody
    assert (http.Http1Server, http.Http1Client) == (http1.Server, http1.Client)


def test_a_mitmproxy_that_lacks_what_is_overridden_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        start_request_stream = check_invalid = None

    monkeypatch.setattr(http, "HttpStream", Older)
    with pytest.raises(RuntimeError, match=r"make_server_connection") as caught:
        http_stream.install()
    assert "check_invalid" not in str(caught.value)
    assert not issubclass(http.HttpStream, http_stream.Stream), "nothing was changed"


def test_a_mitmproxy_that_reads_chunks_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HttpStream", http_stream.Stream.__base__)
    monkeypatch.delattr(_http1, "ChunkedReader")
    with pytest.raises(RuntimeError, match="ChunkedReader"):
        http_stream.install()
