"""WebSockets: what one peer does is what the other sees, as if there were no proxy between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.exceptions
from mitmproxy import io

from tests.support.clients import Raw, message
from tests.support.harness import MIB, Proxy, StartBare, StartProxy, rows, thorough
from tests.support.upstreams import Authority

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + 22 * "A" + "==",
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # masked, with a mask of zeros; 1000
BOTH = pytest.mark.parametrize("vanishing", ["client", "server"])

# Frames that a proxy has no reason to take apart (RFC 6455 §5), and some that are none.
FRAMES = {
    "text": b"\x81\x85\0\0\0\0hello",
    "fragments": b"\x01\x81\0\0\0\0a" + b"\x89\x81\0\0\0\0p" + b"\x00\x80\0\0\0\0" + b"\x80\x81\0\0\0\0b",
    "reserved bits": b"\xf2\x81\0\0\0\0x",
    "no frame": b"\xff\xff" + os.urandom(500),
}


@dataclass
class Pair:
    """The two ends of a WebSocket whose handshake is done."""

    client: socket.socket
    server: socket.socket

    def ends(self, side: str) -> tuple[socket.socket, socket.socket]:
        """This side's, then the other's."""
        return (self.client, self.server) if side == "client" else (self.server, self.client)


@dataclass
class Ways:
    """How a WebSocket gets through a proxy."""

    authority: Authority
    proxy_ca: Path

    @contextlib.contextmanager
    def open(self, proxy: Proxy | int, way: str) -> Iterator[Pair]:
        """Open one: by a request for a whole URL, in a tunnel, or in TLS in a tunnel."""
        port = proxy if isinstance(proxy, int) else proxy.port
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            futures.ThreadPoolExecutor(1) as pool,
            Raw(port) as client,
        ):
            listener.settimeout(10)
            authority = f"127.0.0.1:{listener.getsockname()[1]}"
            accepting = pool.submit(self._accept, listener, secure=way == "tls")
            if way == "tls":
                client.secure_tunnel(authority, self.proxy_ca, "http/1.1")
            elif way == "tunnel":
                client.tunnel(authority)
            target = f"http://{authority}/" if way == "absolute" else "/"
            client.send(message("GET", target, f"Host: {authority}", *UPGRADE))
            with accepting.result(10) as server:
                assert client.head().status == 101
                yield Pair(client.socket, server)

    def _accept(self, listener: socket.socket, *, secure: bool) -> socket.socket:
        server, _ = listener.accept()
        server.settimeout(10)
        if secure:
            server = self.authority.server_context(["http/1.1"]).wrap_socket(server, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            head += server.recv(1 << 16)
        server.sendall(SWITCH)
        return server


@pytest.fixture
def ways(authority: Authority, proxy_ca: Path) -> Ways:
    return Ways(authority, proxy_ca)


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority
) -> Iterator[tuple[Proxy, Path]]:
    """A proxy with a script that wants the messages, and where it notes them."""
    folder = tmp_path_factory.mktemp("watched")
    script, notes = folder / "script.py", folder / "notes"
    script.write_text(
        "def websocket_message(flow):\n"
        f"    with open({str(notes)!r}, 'ab') as file:\n"
        "        file.write(flow.websocket.messages[-1].content + b'\\n')\n"
    )
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    with Proxy("--set", trust, "-s", str(script), cwd=folder, confdir=confdir) as process:
        yield process, notes
        process.stop()
        assert "Traceback" not in process.output, process.output


def _reset(end: socket.socket) -> None:
    """Close so that the peer gets a reset."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def _rest(end: socket.socket) -> bytes:
    """All that comes until the connection ends, be it by a reset or, in TLS, without a word."""
    received = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while data := end.recv(1 << 16):
            received += data
    return received


def _send_for(seconds: float, end: socket.socket) -> None:
    """Send a frame again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        end.sendall(FRAMES["text"])
        time.sleep(0.01)


def _exactly(end: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = end.recv(size - len(received))
        assert data, received
        received += data
    return received


# --- bytes


@pytest.mark.parametrize("way", ["absolute", "tunnel", "tls"])
def test_what_is_sent_arrives_byte_by_byte(proxy: Proxy, ways: Ways, way: str) -> None:
    """Fragments, pings between them, what an extension has made of it: all of it is between the peers."""
    with ways.open(proxy, way) as pair:
        for sent in FRAMES.values():
            for one, other in (pair.ends("client"), pair.ends("server")):
                one.sendall(sent)
                assert _exactly(other, len(sent)) == sent


@pytest.mark.parametrize("way", ["absolute", "tunnel"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_who_has_said_all_still_gets_the_rest(proxy: Proxy, ways: Ways, first: str, way: str) -> None:
    """A half-close is passed on as one."""
    with ways.open(proxy, way) as pair:
        one, other = pair.ends(first)
        one.sendall(CLOSE)
        one.shutdown(socket.SHUT_WR)
        assert _rest(other) == CLOSE
        for piece in (b"x" * 300_000, CLOSE):
            other.sendall(piece)
            assert _exactly(one, len(piece)) == piece
        other.close()
        assert _rest(one) == b""


# --- peers that vanish


@BOTH
@pytest.mark.parametrize("way", ["absolute", "tunnel", "tls"])
@pytest.mark.parametrize("how", [_reset, socket.socket.close])
def test_who_vanishes_is_not_said_to_have_closed(
    proxy: Proxy, ways: Ways, vanishing: str, way: str, how: Callable[[socket.socket], None]
) -> None:
    """The other side sees the connection end, and no Close frame (RFC 6455 §7.1.5)."""
    with ways.open(proxy, way) as pair:
        one, other = pair.ends(vanishing)
        one.sendall(FRAMES["text"])
        assert _exactly(other, len(FRAMES["text"])) == FRAMES["text"]
        how(one)
        assert _rest(other) == b""


@pytest.mark.parametrize("reading", ["nobody", "script"])
def test_who_vanishes_in_tls_is_let_go(proxy: Proxy, watched: tuple[Proxy, Path], ways: Ways, reading: str) -> None:
    """OpenSSL answers an end without a close_notify by an alert, before it closes."""
    with ways.open(watched[0] if reading == "script" else proxy, "tls") as pair:
        pair.client.shutdown(socket.SHUT_WR)
        assert _rest(pair.server) == b""
        pair.server.close()
        _rest(pair.client)


@BOTH
@pytest.mark.parametrize("way", ["absolute", "tls"])
@pytest.mark.parametrize("how", [_reset, socket.socket.close])
def test_who_vanishes_while_a_script_reads_is_not_said_to_have_closed(
    watched: tuple[Proxy, Path], ways: Ways, vanishing: str, way: str, how: Callable[[socket.socket], None]
) -> None:
    """The same where mitmproxy takes the messages apart."""
    with ways.open(watched[0], way) as pair:
        one, other = pair.ends(vanishing)
        how(one)
        assert _rest(other) == b""


@BOTH
def test_who_vanishes_from_bare_mitmdump_is_not_said_to_have_closed(
    start_bare: StartBare, ways: Ways, vanishing: str
) -> None:
    """Bare mitmdump prints the messages, and so takes them apart."""
    with ways.open(start_bare().port, "absolute") as pair:
        one, other = pair.ends(vanishing)
        _reset(one)
        assert _rest(other) == b""


def test_a_client_that_does_not_listen_learns_that_its_server_has_gone(proxy: Proxy, ways: Ways) -> None:
    """One that only sends notices it as it would without a proxy: it can send no more."""
    with ways.open(proxy, "absolute") as pair:
        _reset(pair.server)
        with pytest.raises(ConnectionError):
            _send_for(10, pair.client)


# --- closing


@dataclass
class Closings:
    """A server that closes as its path says, or lets the client, and how each connection ended for it."""

    ended: list[tuple[int | None, str | None]] = field(default_factory=list)

    async def serve(self, peer: websockets.asyncio.server.ServerConnection) -> None:
        """Serve one connection."""
        assert peer.request
        code = peer.request.path.strip("/")
        if code:
            await peer.close(int(code), f"reason {code} €")
        await peer.wait_closed()
        self.ended.append((peer.close_code, peer.close_reason))


CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("closing", ["client", "server"])
def test_close_codes_and_reasons_pass(proxy: Proxy, closing: str) -> None:
    """Those of RFC 6455 §7.4 and its registry that may be sent, by either side."""

    async def run() -> None:
        closings = Closings()
        async with websockets.asyncio.server.serve(closings.serve, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            for code in CODES:
                path = f"{code}" if closing == "server" else ""
                async with websockets.asyncio.client.connect(url + path, proxy=proxy.url) as client:
                    if closing == "client":
                        await client.close(code, f"reason {code} €")
                    await asyncio.wait_for(client.wait_closed(), 5)
                    assert (client.close_code, client.close_reason) == (code, f"reason {code} €")
        assert closings.ended == [(code, f"reason {code} €") for code in CODES]

    asyncio.run(run())


def test_a_bomb_explodes_where_it_was_sent(start_proxy: StartProxy) -> None:
    """A small message that inflates to a big one is the client's to refuse, whose 1009 the server gets."""
    proxy, closings = start_proxy(fresh=True), Closings()

    async def bomb(peer: websockets.asyncio.server.ServerConnection) -> None:
        for _ in range(2):
            await peer.send(bytes(128 * MIB))
        await peer.wait_closed()
        closings.ended.append((peer.close_code, None))

    async def run() -> int:
        async with websockets.asyncio.server.serve(bomb, "127.0.0.1", 0, compression="deflate") as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            async with websockets.asyncio.client.connect(url + "warm-up", proxy=proxy.url, max_size=MIB) as client:
                proxy.reset_peak()
                idle = proxy.rss()
                with pytest.raises(websockets.exceptions.ConnectionClosed):
                    await asyncio.wait_for(client.recv(), 20)
        return proxy.peak() - idle

    grown = asyncio.run(run())
    assert [code for code, _ in closings.ended] == [1009]
    assert grown <= 20 * MIB, f"{grown / MIB:.0f} MiB above idle"


# --- memory


def _pump(end: socket.socket, size: int) -> None:
    """Send that many bytes of frames of 1 MiB each."""
    frame = b"\x82\x7f" + struct.pack("!Q", MIB) + bytes(MIB)
    for _ in range(size // MIB):
        end.sendall(frame)


@pytest.mark.parametrize("size", [64, pytest.param(300, marks=thorough)])
@pytest.mark.parametrize("sending", rows({"client": "client", "server": "server"}, "server"))
@pytest.mark.parametrize("way", rows({"absolute": "absolute", "tls": "tls"}, "absolute"))
def test_messages_take_no_memory(start_proxy: StartProxy, ways: Ways, way: str, sending: str, size: int) -> None:
    """As many MiB of messages arrive whole, the first of them late, while the proxy hoards nothing."""
    proxy = start_proxy(fresh=True)
    with ways.open(proxy, way) as pair, futures.ThreadPoolExecutor(1) as pool:
        one, other = pair.ends(sending)
        proxy.reset_peak()
        idle = proxy.rss()
        pumping = pool.submit(_pump, one, size * MIB)
        time.sleep(1)  # a slow reader
        left = size * (MIB + 10)
        while left:
            left -= len(other.recv(min(left, 1 << 20)))
        pumping.result(5)
        grown = proxy.peak() - idle
    assert grown <= 20 * MIB, f"{grown / MIB:.0f} MiB above idle"


# --- who wants messages gets them


def test_a_script_gets_the_messages(watched: tuple[Proxy, Path], ways: Ways) -> None:
    proxy, notes = watched
    with ways.open(proxy, "absolute") as pair:
        pair.client.sendall(b"\x81\x88\0\0\0\0for me: " + FRAMES["text"])
        _exactly(pair.server, 2)
        pair.client.sendall(CLOSE)
        assert _rest(pair.server)[-2:] != b""
    assert b"for me: \nhello\n" in notes.read_bytes()


def test_a_recording_holds_the_messages(start_proxy: StartProxy, ways: Ways, tmp_path: Path) -> None:
    proxy = start_proxy("-w", str(tmp_path / "flows"))
    with ways.open(proxy, "absolute") as pair:
        pair.client.sendall(FRAMES["text"] + CLOSE)
        _rest(pair.server)
    assert proxy.stop() == 0
    with (tmp_path / "flows").open("rb") as file:
        (flow,) = io.FlowReader(file).stream()
    assert [each.content for each in flow.websocket.messages] == [b"hello"]  # type: ignore[attr-defined]
    assert flow.websocket.close_code == 1000  # type: ignore[attr-defined]


def test_a_websocket_is_one_line(start_proxy: StartProxy, ways: Ways) -> None:
    """Like any other request: its messages and its end are not printed."""
    proxy = start_proxy()
    with ways.open(proxy, "absolute") as pair:
        pair.client.sendall(FRAMES["text"] + CLOSE)
        _exactly(pair.server, len(FRAMES["text"] + CLOSE))
        pair.client.close()
        assert _rest(pair.server) == b""
    assert proxy.stop() == 0
    assert [line for line in proxy.stdout.splitlines() if " GET " in line or "WebSocket" in line][1:] == []
    assert " 101 " in proxy.stdout


# --- both at once


def test_who_does_not_read_may_still_send(proxy: Proxy, ways: Ways) -> None:
    """Each direction goes by itself: a client that is busy with sending need not read what comes meanwhile."""
    size = 24 * MIB
    with ways.open(proxy, "absolute") as pair, futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_pump, pair.server, size)
        time.sleep(0.3)
        sending = threading.Thread(target=_pump, args=(pair.client, size), daemon=True)
        sending.start()
        left = size // MIB * (MIB + 10)
        while left:
            left -= len(pair.server.recv(min(left, 1 << 20)))
        sending.join(5)
        left = size // MIB * (MIB + 10)
        while left:
            left -= len(pair.client.recv(min(left, 1 << 20)))
        coming.result(5)
