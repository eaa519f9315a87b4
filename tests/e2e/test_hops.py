"""What a message says to its next neighbour stays with it; what it says of its way is kept (RFC 9110 §7.6)."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.clients import Raw, message
from tests.support.harness import Proxy, StartProxy, thorough, verify
from tests.support.upstreams import OK, Recorder, raw, scripted

PSEUDONYM = re.compile(rb"\A1\.1 jwtproxy-[0-9a-f]{8}\Z")
NEIGHBOURLY = [
    "Connection: close, X-Own",
    "X-Own: 1",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: trailers, deflate;q=0.5",
    "Upgrade: h2c",
    "Proxy-Authorization: Basic eDp5",
]


def _get(recorder: Recorder, *lines: str, method: str = "GET") -> bytes:
    return message(method, f"{recorder.url}/", f"Host: {recorder.authority}", *lines)


def test_a_request_loses_what_was_for_the_proxy(proxy: Proxy, recorder: Recorder) -> None:
    with Raw(proxy.port) as client:
        assert client.request(_get(recorder, *NEIGHBOURLY, "X-Kept: 1")).body == b"ok"
    seen = recorder.only()
    assert verify(seen.token)
    names = [name.lower() for name, _ in seen.fields]
    assert names == [b"host", b"x-kept", b"te", b"connection", b"x-my-jwt"]
    assert (seen.values("te"), seen.values("connection")) == (["trailers"], ["TE"])


def test_in_a_tunnel_too(start_proxy: StartProxy, recorder: Recorder) -> None:
    """Also where the proxy asks for a password itself."""
    proxy = start_proxy("--proxyauth", "user:pass")
    with Raw(proxy.port) as client:
        client.request(
            message("CONNECT", recorder.authority, "Host: x", "Proxy-Authorization: Basic dXNlcjpwYXNz"),
            "CONNECT",
        )
        client.request(message("GET", "/", f"Host: {recorder.authority}", *NEIGHBOURLY))
    assert recorder.only().values("proxy-authorization") == []


def test_an_answer_loses_what_was_for_the_proxy_and_the_connection_lives_on(proxy: Proxy, recorder: Recorder) -> None:
    fields = "Connection: close, X-Own\r\nX-Own: 1\r\nKeep-Alive: 1\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c"
    recorder.route("/", raw(f"HTTP/1.1 200 OK\r\n{fields}\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok".encode()))
    with Raw(proxy.port) as client:
        for _ in range(2):
            reply = client.request(_get(recorder))
            assert [name.lower() for name, _ in reply.fields] == [b"x-kept", b"content-length", b"date", b"via"]


@pytest.mark.parametrize("value", ['"x-my-jwt"', "x-my-jwt;q=1", "Host", "content-LENGTH", "a, Content-Type"])
def test_a_connection_field_that_may_hide_what_it_names_is_refused(
    proxy: Proxy, recorder: Recorder, value: str
) -> None:
    with Raw(proxy.port) as client:
        assert client.request(_get(recorder, f"Connection: {value}")).status == 400
    assert recorder.requests == []


# --- Via


@pytest.mark.parametrize(
    ("via", "on_request", "on_answer"),
    [
        pytest.param("auto", False, True, marks=thorough),
        ("on", True, True),
        pytest.param("off", False, False, marks=thorough),
    ],
)
def test_messages_say_that_they_came_by_us(
    start_proxy: StartProxy, recorder: Recorder, via: str, on_request: bool, on_answer: bool
) -> None:
    """All workers by one name, which differs from start to start."""
    names = set()
    for _ in range(2):
        proxy = start_proxy("--set", f"jwt_via={via}", "--workers", "2")
        own = set()
        for _ in range(6):
            with Raw(proxy.port) as client:
                own |= {*client.request(_get(recorder, "Via: 1.0 fred")).values("via")}
        assert len(own) == on_answer
        names |= own
    assert len(names) == 2 * on_answer
    for name in names:
        assert PSEUDONYM.fullmatch(name.encode())
    for seen in recorder.requests:
        assert seen.values("via")[0] == "1.0 fred"
        assert len(seen.values("via")) == 1 + on_request


def test_a_next_proxy_is_told_and_given_the_clients_credentials(start_proxy: StartProxy, recorder: Recorder) -> None:
    recorder.route(
        "http://a.example/", raw(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
    )
    proxy = start_proxy("--mode", f"upstream:{recorder.url}")
    with Raw(proxy.port) as client:
        reply = client.request(
            message("GET", "http://a.example/", "Host: a.example", "Proxy-Authorization: Basic eDp5")
        )
    assert (reply.status, reply.values("proxy-authenticate")) == (407, ["Basic"])
    seen = recorder.only()
    assert seen.values("proxy-authorization") == ["Basic eDp5"]
    assert PSEUDONYM.fullmatch(seen.values("via")[0].encode())


def test_so_it_is_when_asked_for_a_tunnel(start_proxy: StartProxy) -> None:
    asked = bytearray()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.settimeout(5)
        asked.extend(connection.recv(1 << 16))
        connection.sendall(OK)

    heads: list[bytes] = []
    with scripted(serve, heads) as port:
        proxy = start_proxy("--mode", f"upstream:http://127.0.0.1:{port}")
        with Raw(proxy.port) as client:
            client.request(message("CONNECT", "a.example:80", "Host: x", "Proxy-Authorization: Basic eDp5"), "CONNECT")
            fields = ("Host: a.example", "Proxy-Authorization: Basic origin")
            assert client.request(message("GET", "/", *fields)).body == b"hi"
    assert b"\r\nProxy-Authorization: Basic eDp5\r\n" in heads[0]
    assert re.search(rb"\r\nVia: 1\.1 jwtproxy-[0-9a-f]{8}\r\n", heads[0])
    assert b"x-my-jwt" not in heads[0]
    assert b"roxy-" not in asked
    assert b"Via" not in asked
    assert asked.count(b"x-my-jwt: ") == 1


def _loop(start_proxy: StartProxy) -> Proxy:
    """The first of two proxies that name each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first = start_proxy("--mode", f"upstream:http://127.0.0.1:{port}")
    start_proxy("--mode", f"upstream:http://127.0.0.1:{first.port}", "--port", str(port), env={"HTTP_PORT": None})
    return first


def test_a_loop_of_proxies_ends_at_once(start_proxy: StartProxy) -> None:
    first = _loop(start_proxy)
    with Raw(first.port) as client:
        reply = client.request(message("GET", "http://a.example/", "Host: a.example"))
    assert reply.status == 502
    assert reply.values("proxy-status") == ["jwtproxy; error=proxy_loop_detected"]
    time.sleep(0.3)
    assert first.stdout.count("http://a.example/ 502") == 2, "once for the client, once for the one that came back"
    with Raw(first.port) as client:
        client.send(message("CONNECT", "a.example:80", "Host: x"))
        assert client.head().status == 200
        reply = client.request(message("GET", "/", "Host: a.example"))
        assert reply.status == 502
    assert first.running


# --- methods that are about the way


def test_options_that_may_go_no_further_are_answered(proxy: Proxy, recorder: Recorder) -> None:
    with Raw(proxy.port) as client:
        reply = client.request(_get(recorder, "Max-Forwards: 0", method="OPTIONS"))
        assert (reply.status, reply.body) == (200, b"")
        assert "OPTIONS" in reply.values("allow")[0]
        assert client.request(_get(recorder, "Max-Forwards: 3", method="OPTIONS")).status == 200
        assert client.request(_get(recorder, "Max-Forwards: 0")).status == 200
    first, second = recorder.wait(2)
    assert first.values("max-forwards") == ["2"]
    assert second.values("max-forwards") == ["0"], "it concerns OPTIONS and TRACE alone"


@pytest.mark.parametrize(("trace", "status"), [("off", 405), ("on", 200)])
def test_trace_would_show_the_token(start_proxy: StartProxy, recorder: Recorder, trace: str, status: int) -> None:
    proxy = start_proxy("--set", f"jwt_trace={trace}")
    with Raw(proxy.port) as client:
        reply = client.request(_get(recorder, method="TRACE"))
    assert reply.status == status
    assert len(recorder.requests) == (status == 200)
    assert bool(reply.values("allow")) is (status == 405)


# --- Expect


SIZE = 2 << 20  # streamed
SAID = {
    "100": (b"HTTP/1.1 100 Continue\r\n\r\n", [100, 200]),
    "413": (b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", [413]),
    "nothing": (b"", [100, 200]),
}


@pytest.mark.parametrize("said", SAID)
def test_the_upstream_decides_on_a_streamed_body(proxy: Proxy, said: str) -> None:
    """A 413 costs no upload; silence is not waited for longer than a second."""
    answer, codes = SAID[said]
    heads: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(answer)
        left = SIZE if codes[-1] == 200 else 0
        while left and (data := connection.recv(1 << 16)):
            left -= len(data)
        if codes[-1] == 200:
            connection.sendall(OK)

    with scripted(serve, heads) as port, Raw(proxy.port, timeout=5) as client:
        target = f"http://127.0.0.1:{port}/"
        lines = (f"Host: 127.0.0.1:{port}", f"Content-Length: {SIZE}", "Expect: 100-continue")
        began = time.monotonic()
        client.send(message("PUT", target, *lines))
        head = client.head()
        assert head.status == codes[0]
        assert (time.monotonic() - began > 0.9) is (said == "nothing")
        if codes[0] == 100:
            client.send(bytes(SIZE))
            assert client.head().status == 200
        else:
            assert head.values("connection") == ["close"]
    assert heads[0].lower().count(b"\r\nexpect: 100-continue\r\n") == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_sends_a_short_body_is_told_by_us(proxy: Proxy, recorder: Recorder, version: str) -> None:
    """HTTP/1.0 knows no 100, and sends its body."""
    with Raw(proxy.port) as client:
        lines = (f"Host: {recorder.authority}", "Content-Length: 2", "Expect: 100-continue")
        client.send(message("PUT", f"{recorder.url}/", *lines, version=version))
        if version == "1.1":
            assert client.head().status == 100
        client.send(b"hi")
        assert client.head().status == 200
    assert recorder.only().values("expect") == []
    assert recorder.only().body == b"hi"


# --- reverse mode


@pytest.mark.parametrize(
    ("args", "host"),
    [
        ([], "{upstream}"),
        (["--set", "keep_host_header=true"], "far.example"),
    ],
)
def test_a_reverse_proxy_takes_whole_urls(
    start_proxy: StartProxy, recorder: Recorder, args: Sequence[str], host: str, tmp_path: Path
) -> None:
    """They go to its one upstream, as paths (RFC 9112 §3.2.2)."""
    proxy = start_proxy("--mode", f"reverse:{recorder.url}", *args)
    with Raw(proxy.port) as client:
        assert client.request(message("GET", "http://far.example/a?b#c", "Host: other.example")).body == b"ok"
        assert client.request(message("OPTIONS", "http://far.example", "Host: other.example")).body == b"ok"
    first, second = recorder.wait(2)
    assert (first.target, second.target) == ("/a?b", "*")
    assert first.values("host") == [host.format(upstream=recorder.authority)]
