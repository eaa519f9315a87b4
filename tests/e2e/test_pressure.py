"""Who is not read for a while is read again, and what is taken in portions loses nothing, not even its end."""

from __future__ import annotations

import socket
import time

import pytest

from tests.support.clients import Raw, message
from tests.support.harness import MIB, Process, Proxy, StartBare, StartProxy, rows
from tests.support.upstreams import OK, scripted

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
