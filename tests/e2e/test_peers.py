"""Peers that answer twice, upgrade, stay silent or never end: each gets an answer, and nothing leaves unsigned."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from tests.support.clients import Http2, Raw, client_context, message, pseudo
from tests.support.harness import Proxy, StartBare, StartProxy
from tests.support.upstreams import OK, Recorder, scripted


def _ask(port: int, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    return message(method, f"http://127.0.0.1:{port}/", f"Host: 127.0.0.1:{port}", *fields, body=body)


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints\r\nLink: </a>"])
@pytest.mark.parametrize("together", [True, False])
def test_an_interim_response_is_not_taken_for_the_answer(proxy: Proxy, interim: str, together: bool) -> None:
    """RFC 9110 §15.2: it is passed on, the final response follows, and the connection lives on."""

    def serve(connection: socket.socket) -> None:
        head = f"HTTP/1.1 {interim}\r\n\r\n".encode()
        for piece in [head + head + OK] if together else [head, OK]:
            connection.sendall(piece)

    with scripted(serve) as port, Raw(proxy.port) as client:
        client.send(_ask(port))
        for _ in range(2 if together else 1):
            head = client.head()
            assert head.status == int(interim[:3])
            assert head.values("link") == (["</a>"] if "Link" in interim else [])
        reply = client.reply()
        assert (reply.status, reply.body) == (200, b"hi")
        assert client.request(message("GET", "/status", "Host: x")).status == 200


@pytest.mark.parametrize("size", [5, 2 << 20])
@pytest.mark.parametrize("refused", [True, False])
def test_who_expects_100_is_told_of_a_failure(proxy: Proxy, size: int, refused: bool) -> None:
    """Who asks first is told at once where the body is streamed; else after the 100, which is the proxy's own."""
    with scripted(lambda connection: connection.close()) as port, Raw(proxy.port) as client:
        port = 1 if refused else port
        client.send(_ask(port, f"Content-Length: {size}", "Expect: 100-continue", method="PUT"))
        if size == 5:
            assert client.head().status == 100
            client.send(bytes(size))
        assert client.head().status == 502


def test_after_an_unknown_upgrade_nothing_is_passed_on(start_bare: StartBare, start_proxy: StartProxy) -> None:
    """What follows could not be signed: the connection ends, also where mitmproxy would relay raw TCP."""
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
        seen.append(connection.recv(1 << 16))

    for proxy in (start_bare(rawtcp=True), start_proxy()):
        with scripted(serve) as port, Raw(proxy.port) as client:
            client.send(_ask(port, "Upgrade: foo", "Connection: upgrade"))
            client.send(b"GET /second HTTP/1.1\r\nHost: x\r\nx-my-jwt: evil\r\n\r\n")
            with contextlib.suppress(OSError, EOFError):
                while True:
                    client.head()
    assert b"".join(seen) == b""


def test_an_upgrade_does_not_stop_the_clock(start_proxy: StartProxy) -> None:
    """Only a WebSocket may take its time; an upstream cannot make one of another request, nor crash the proxy so."""
    proxy = start_proxy("--set", "jwt_response_timeout=0.5")
    with scripted(lambda connection: None) as port, Raw(proxy.port) as client:
        assert client.request(_ask(port, "Upgrade: foo", "Connection: upgrade")).status == 504

    def evil(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")

    with scripted(evil) as port, Raw(proxy.port) as client:
        client.send(_ask(port, "Sec-WebSocket-Version: 13"))
        assert client.head().status == 101
        with contextlib.suppress(TimeoutError):
            client.socket.settimeout(1)
            client.socket.recv(1)
    assert proxy.stop() == 0
    assert "Traceback" not in proxy.output
    assert "crashed" not in proxy.output


def test_an_upstream_proxy_that_never_opens_the_tunnel_is_given_up(start_proxy: StartProxy) -> None:
    """It took the TCP connection; that is not enough."""
    with scripted(lambda connection: None) as port:
        proxy = start_proxy("--mode", f"upstream:http://127.0.0.1:{port}", "--set", "jwt_connect_timeout=0.5")
        with Raw(proxy.port) as client:
            assert client.request(message("GET", "https://origin.example/", "Host: origin.example")).status == 502


@pytest.mark.parametrize("tunnelled", [False, True], ids=["absolute", "connect"])
def test_tls_that_stalls_behind_an_upstream_proxy_is_given_up(
    start_proxy: StartProxy, proxy_ca: Path, tunnelled: bool
) -> None:
    """It opened the tunnel; whoever is at the other end says nothing."""
    opened: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        opened.append(connection)

    with scripted(serve) as port:
        proxy = start_proxy("--mode", f"upstream:http://127.0.0.1:{port}", "--set", "jwt_connect_timeout=0.5")
        began = time.monotonic()
        with Raw(proxy.port) as client:
            target, status = "https://origin.example/", 200
            if tunnelled:
                connect = message("CONNECT", "origin.example:443", "Host: origin.example:443")
                if (status := client.request(connect, "CONNECT").status) == 200:
                    client.start_tls(client_context(proxy_ca), "origin.example")
                    target = "/"
            if status == 200:
                status = client.request(message("GET", target, "Host: origin.example")).status
        assert status == 502
        assert opened, "the next proxy was never asked"
        assert 0.4 < time.monotonic() - began < 4


def test_a_head_without_end_is_refused(proxy: Proxy) -> None:
    """431 (RFC 6585 §5), and no memory for it."""
    with Raw(proxy.port) as client:
        client.send(b"GET http://127.0.0.1:1/ HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for _ in range(64):
                client.send(b"X-Filler: " + bytes(8190).replace(b"\0", b"a") + b"\r\n")
        assert client.head().status == 431


def test_a_script_that_halts_the_hooks_lets_no_copy_through_in_trailers(
    start_proxy: StartProxy, h2_recorder: Recorder, proxy_ca: Path, tmp_path: Path
) -> None:
    """Trailers are cleaned where hooks cannot be in the way."""
    script = tmp_path / "halt.py"
    script.write_text("from mitmproxy import exceptions\ndef request(flow):\n    raise exceptions.AddonHalt\n")
    proxy = start_proxy("-s", str(script))
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        trailers = [("x-my-jwt", "evil"), ("x-other", "1")]
        two.reply(two.send(pseudo("POST", h2_recorder.authority, "/"), b"x", trailers))
    (seen,) = h2_recorder.wait(1)
    assert seen.trailers == [(b"x-other", b"1")]
