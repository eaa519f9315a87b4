"""Who is not read for a while is read again, and what is taken in portions loses nothing, not even its end."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.clients import Http2, Raw, client_context, message, pseudo
from tests.support.harness import MIB, Process, Proxy, StartBare, StartProxy, rows
from tests.support.upstreams import OK, Recorder, download, scripted
from tests.support.workers import until

TOO_MUCH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + b"x" * 60_000


@pytest.fixture
def proxy(start_proxy: StartProxy) -> Proxy:
    """Mitmproxy's layers carry everything."""
    return start_proxy("--set", "jwt_head_timeout=5", env={"JWT_FAST_LANE": "off"})


def get(port: int, *lines: str) -> bytes:
    return message("GET", f"http://127.0.0.1:{port}/", f"Host: 127.0.0.1:{port}", *lines)


def test_an_upstream_that_says_too_much_is_left(proxy: Proxy) -> None:
    ended: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(TOO_MUCH)
        ended.append(connection.recv(1))

    with scripted(serve) as port, Raw(proxy.port) as client:
        for _ in range(5):
            assert client.request(get(port)).body == b"hello"
        deadline = time.monotonic() + 5
        while len(ended) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ended == [b""] * 5
        assert proxy.fds() < 30


def test_a_client_that_says_nonsense_at_length_hears_the_end(proxy: Proxy) -> None:
    with scripted(lambda connection: None) as port, Raw(proxy.port) as client:
        host = f"Host: 127.0.0.1:{port}"
        head = message("POST", f"http://127.0.0.1:{port}/", host, "Transfer-Encoding: chunked")
        client.send(head + b"xyz\r\n" + b"x" * 60_000)
        assert client.reply().status == 400
        assert client.rest() == b""


@pytest.mark.parametrize("early", [20_000, 200_000])
def test_a_tunnel_passes_what_came_before_it_was_there(proxy: Proxy, early: int) -> None:
    came: list[int] = [0]

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            came[0] += len(data)

    heads: list[bytes] = []
    with scripted(serve, heads) as port, Raw(proxy.port) as client:
        size = early + 1000
        inner = message("POST", "/", f"Host: 127.0.0.1:{port}", f"Content-Length: {size}")
        client.send(message("CONNECT", f"127.0.0.1:{port}", f"Host: 127.0.0.1:{port}") + inner + b"x" * early)
        assert client.head().status == 200
        client.send(b"x" * 1000)
        deadline = time.monotonic() + 5
        while came[0] + sum(map(len, heads)) < size and time.monotonic() < deadline:
            time.sleep(0.05)
        assert came[0] + sum(map(len, heads)) >= size, "some may come with the head"


def test_a_long_head_behind_a_request_is_read_to_its_end(proxy: Proxy) -> None:
    def serve(connection: socket.socket) -> None:
        for _ in range(2):
            time.sleep(0.3)
            connection.sendall(OK)

    with scripted(serve) as port, Raw(proxy.port) as client:
        second = get(port, "X: " + "a" * 100_000)
        client.send(get(port))
        time.sleep(0.1)
        client.send(second[:80_000])
        assert client.reply().status == 200
        client.send(second[80_000:])
        assert client.reply().status == 200


@pytest.mark.parametrize("bare", rows({"bare": True, "launched": False}, "bare"))
def test_what_comes_behind_a_request_in_flight_is_not_read_without_end(
    start_proxy: StartProxy, start_bare: StartBare, bare: bool
) -> None:
    proxy: Process = start_bare() if bare else start_proxy(env={"JWT_FAST_LANE": "off"})
    with scripted(lambda connection: time.sleep(3)) as port, Raw(proxy.port, timeout=1) as client:
        client.send(get(port))
        with pytest.raises(TimeoutError):
            client.send(bytes(32 * MIB))


@contextmanager
def stuck() -> Iterator[tuple[str, threading.Event]]:
    """An upstream that reads heads alone, until it is told to go on; its authority."""
    goes_on = threading.Event()

    def wait(connection: socket.socket) -> None:
        goes_on.wait(60)

    with scripted(wait) as port:
        yield f"127.0.0.1:{port}", goes_on
        goes_on.set()


def begin(two: Http2, method: str, authority: str, path: str = "/", *, size: int = 0, scheme: str = "http") -> int:
    """A request in the clear over an HTTP/2 connection to the proxy itself, of which a body of this size follows."""
    stream = two.h2.get_next_available_stream_id()
    fields = pseudo(method, authority, path)
    fields[1] = (":scheme", scheme)
    two.h2.send_headers(stream, [*fields, ("content-length", str(size))], end_stream=not size)
    two.flush()
    return stream


@pytest.mark.parametrize("bare", rows({"bare": True, "launched": False}, "launched"))
def test_an_upload_that_is_stuck_has_no_other_stream_wait(
    start_proxy: StartProxy, start_bare: StartBare, recorder: Recorder, proxy_ca: Path, bare: bool
) -> None:
    """By HTTP/2 they share a connection: twenty that nobody reads stop no others, and take no more than windows allow.

    They are of four upstreams, as mitmproxy opens no more than five connections to one.
    """
    process: Process = start_bare("--set", "stream_large_bodies=64k") if bare else start_proxy()
    recorder.route("/large", download(4 * MIB))
    size = 16 * MIB
    with ExitStack() as stack:
        upstreams = dict(stack.enter_context(stuck()) for _ in range(4))
        with Raw(process.port, timeout=20) as client:
            two = Http2(client.start_tls(client_context(proxy_ca, "h2")))
            assert two.reply(begin(two, "GET", recorder.authority)).status == 200
            before, fds = process.rss(), process.fds()
            uploads = [begin(two, "POST", authority, size=size) for authority in [*upstreams] * 5]
            left = two.pour(dict.fromkeys(uploads, size), patience=1.5)
            assert set(left) == set(uploads)
            grown = process.rss() - before
            assert len(two.reply(begin(two, "GET", recorder.authority, "/large")).body) == 4 * MIB
            upload = begin(two, "POST", recorder.authority, size=8 * MIB)
            assert two.pour({upload: 8 * MIB}) == {}
            assert two.reply(upload).body == b"ok"
            assert recorder.requests[-1].size == 8 * MIB
            assert grown <= 20 * MIB, f"{grown / MIB:.0f} MiB"
            next(iter(upstreams.values())).set()
            assert two.pour({uploads[0]: left[uploads[0]]}) == {}, "it goes on where its upstream does"
        if not bare:  # where mitmproxy may forget connections that are closed as their client leaves, read or not
            until(lambda: process.fds() <= fds, 5, "nothing of them is kept for upstreams that do not read")


@pytest.mark.parametrize("way", rows({way: way for way in ("reverse", "next proxy", "tls")}, "tls"))
def test_nor_has_one_that_goes_another_way(
    start_proxy: StartProxy, https_recorder: Recorder, proxy_ca: Path, way: str
) -> None:
    heads: list[bytes] = []
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        if b"/stuck" in heads[-1]:
            over.wait(60)
            return
        left = int(re.findall(rb"content-length: (\d+)", heads[-1])[0]) - len(heads[-1].partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= len(connection.recv(1 << 16))
        connection.sendall(OK)

    with scripted(serve, heads) as port:
        modes = {"reverse": f"reverse:http://127.0.0.1:{port}", "next proxy": f"upstream:http://127.0.0.1:{port}"}
        proxy = start_proxy("--mode", modes.get(way, "regular"))
        with Raw(proxy.port, timeout=20) as client:
            two = Http2(client.start_tls(client_context(proxy_ca, "h2")))
            authority = f"127.0.0.1:{proxy.port if way == 'reverse' else port}"
            https_recorder.paused = way == "tls"
            other = https_recorder.authority if way == "tls" else authority
            scheme = "https" if way in ("tls", "reverse") else "http"
            upload = begin(two, "POST", other, "/stuck", size=16 * MIB, scheme=scheme)
            assert two.pour({upload: 16 * MIB}, patience=1.5)
            scheme = "https" if way == "reverse" else "http"
            assert two.reply(begin(two, "GET", authority, scheme=scheme)).status == 200
            upload = begin(two, "POST", authority, size=8 * MIB, scheme=scheme)
            assert two.pour({upload: 8 * MIB}) == {}
            assert two.reply(upload).status == 200
        https_recorder.paused = False
        over.set()
