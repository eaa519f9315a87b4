"""What takes too long is ended, with a status where one can be told; what may take long lives. Both lanes alike."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import frames
from tests.support.clients import Raw, Reply, client_context, message
from tests.support.harness import ADDONS, Proxy, StartBare, thorough
from tests.support.upstreams import Authority, Exchange, Recorder, respond

HEAD, KEEPALIVE, BODY, IDLE, TLS = 0.4, 0.8, 0.5, 2.0, 0.4
LONG = 1.2
"""Seconds: more than all of them but `IDLE`."""
SLACK = 4.0
"""Seconds that a busy machine may take on top of a limit."""
LATE_HEAD = f"jwtproxy: the request's head was not complete within {HEAD} s\n".encode()
LATE_BODY = f"jwtproxy: nothing more of the request's body came within {BODY} s\n".encode()


@dataclass
class Site:
    """A proxy with short limits, and an upstream."""

    proxy: Proxy
    upstream: Recorder
    ca: Path

    def client(self) -> Raw:
        """A connection to the proxy."""
        return Raw(self.proxy.port)

    def tunnel(self) -> Raw:
        """A connection within a tunnel and its TLS."""
        client = self.client()
        client.secure_tunnel(self.upstream.authority, self.ca, "http/1.1")
        return client

    def reached(self, name: str) -> int:
        """How often a limit was reached."""
        with self.client() as client:
            page = client.request(message("GET", "/status", "Host: x", "Connection: close"))
        return int(json.loads(page.body)["limits"][name]["reached"])

    @contextlib.contextmanager
    def counts(self, name: str, times: int = 1) -> Iterator[None]:
        """This limit, and no other, is reached meanwhile."""
        before = {each: self.reached(each) for each in NAMES}
        yield
        after = {each: self.reached(each) for each in NAMES}
        assert after == before | {name: before[name] + times}


NAMES = [f"jwt_{name}_timeout" for name in ("head", "body", "idle", "tls")]
"""Not that of connections without a request: those of other tests may come to it meanwhile."""


async def _late(exchange: Exchange) -> None:
    """An answer of which nothing comes for long, twice."""
    await exchange.start(200, [("content-type", "text/event-stream")])
    await exchange.write(b"one ")
    await asyncio.sleep(LONG)
    await exchange.write(b"two")
    await exchange.end()


async def _later(exchange: Exchange) -> None:
    await asyncio.sleep(LONG)
    await respond(body=b"ok")(exchange)


async def _hangs(exchange: Exchange) -> None:
    await exchange.start(200)
    await exchange.write(b"one")
    await asyncio.Event().wait()


LIMITS = {"head": HEAD, "keepalive": KEEPALIVE, "body": BODY, "idle": IDLE, "tls": TLS}


def _start(
    folder: Path, confdir: Path, authority: Authority, lane: str, values: Mapping[str, float] = LIMITS, *more: str
) -> Proxy:
    sets = [f"jwt_{name}_timeout={value}" for name, value in values.items()]
    sets += [f"jwt_fast_lane={lane}", f"ssl_verify_upstream_trusted_ca={authority.pem}", *more]
    return Proxy(*(part for each in sets for part in ("--set", each)), cwd=folder, confdir=confdir)


@pytest.fixture(scope="module", params=["on", pytest.param("off", marks=thorough)])
def lane(request: pytest.FixtureRequest) -> str:
    """Off, all comes to the layers: their unit tests show the same, and so does stock mitmdump below."""
    return str(request.param)


@contextlib.contextmanager
def _site(folder: Path, confdir: Path, proxy_ca: Path, authority: Authority, lane: str, alpn: str) -> Iterator[Site]:
    with (
        Recorder(authority=authority, alpn=[alpn]) as upstream,
        _start(folder, confdir, authority, lane) as proxy,
    ):
        _route(upstream)
        yield Site(proxy, upstream, proxy_ca)
        proxy.stop()
        assert "Traceback" not in proxy.output, proxy.output


@pytest.fixture(scope="module")
def site(
    lane: str, tmp_path_factory: pytest.TempPathFactory, confdir: Path, proxy_ca: Path, authority: Authority
) -> Iterator[Site]:
    """With an HTTPS upstream."""
    with _site(tmp_path_factory.mktemp("limits"), confdir, proxy_ca, authority, lane, "http/1.1") as found:
        yield found


@pytest.fixture(scope="module")
def multiplexed(
    lane: str, tmp_path_factory: pytest.TempPathFactory, confdir: Path, proxy_ca: Path, authority: Authority
) -> Iterator[Site]:
    """With an upstream that speaks HTTP/2."""
    with _site(tmp_path_factory.mktemp("limits"), confdir, proxy_ca, authority, lane, "h2") as found:
        yield found


@pytest.fixture(scope="module")
def plain(
    lane: str, tmp_path_factory: pytest.TempPathFactory, confdir: Path, proxy_ca: Path, authority: Authority
) -> Iterator[Site]:
    """With a plain upstream."""
    with Recorder() as upstream, _start(tmp_path_factory.mktemp("limits"), confdir, authority, lane) as proxy:
        _route(upstream)
        yield Site(proxy, upstream, proxy_ca)
        proxy.stop()
        assert "Traceback" not in proxy.output, proxy.output


def _route(upstream: Recorder) -> None:
    upstream.route("/", respond(body=b"ok"))
    upstream.route("/late", _late, before_body=True)
    upstream.route("/later", _later)
    upstream.route("/hangs", _hangs, before_body=True)


def _get(site: Site, path: str = "/", *lines: str, method: str = "GET", enclosed: bool = False) -> bytes:
    target = path if enclosed else f"http://{site.upstream.authority}{path}"
    return message(method, target, f"Host: {site.upstream.authority}", *lines)


def _ends(client: Raw, began: float, limit: float) -> bytes:
    """What still comes until the proxy closes the connection, which it does in time."""
    said = client.rest()
    assert limit - 0.15 < time.monotonic() - began < limit + SLACK
    return said


def _is_refused(client: Raw, text: bytes) -> Reply:
    reply = client.reply()
    assert (reply.status, reply.body, reply.values("connection")) == (408, text, ["close"])
    assert client.rest() == b""
    return reply


# --- plain connections


@pytest.mark.parametrize("odd", [False, True], ids=["plain", "odd"])
def test_a_head_that_comes_too_slowly_gets_408(plain: Site, odd: bool) -> None:
    """A byte at a time, each well within the limit; an odd one is mitmproxy's after all."""
    with plain.counts("jwt_head_timeout"), plain.client() as client:
        client.send(_get(plain, "/", *(["Expect: 100-continue"] if odd else []))[:-2])
        began = time.monotonic()
        client.socket.settimeout(0.1)
        said = b""
        while not said and time.monotonic() < began + 2 * HEAD + SLACK:
            with contextlib.suppress(OSError):
                client.send(b"x")
            with contextlib.suppress(TimeoutError):
                said = client.socket.recv(1 << 16)
        assert time.monotonic() > began + HEAD - 0.15
        assert said.startswith(b"HTTP/1.1 408 ")
        assert said.endswith(LATE_HEAD)


def test_one_byte_is_a_head_that_has_begun(plain: Site) -> None:
    with plain.counts("jwt_head_timeout"), plain.client() as client:
        began = time.monotonic()
        client.send(b"G")
        _is_refused(client, LATE_HEAD)
        assert time.monotonic() > began + HEAD - 0.15


def test_a_head_in_time_is_served(plain: Site) -> None:
    with plain.client() as client:
        for _ in range(3):
            whole = _get(plain)
            client.send(whole[:9])
            time.sleep(0.25 * HEAD)
            client.send(whole[9:])
            assert client.reply().body == b"ok"


def test_the_next_head_has_its_time_when_it_is_its_turn(plain: Site) -> None:
    """While another request is under way it is not late, and cuts nothing."""
    with plain.client() as client:
        client.send(_get(plain, "/late") + b"GET")
        assert client.reply().body == b"one two"
        began = time.monotonic()
        _is_refused(client, LATE_HEAD)
        assert time.monotonic() > began + HEAD - 0.15


@pytest.mark.parametrize("first", [b"", b"\r\n"], ids=["nothing", "empty line"])
def test_a_connection_without_a_request_is_closed_silently(plain: Site, first: bytes) -> None:
    before = plain.reached("jwt_keepalive_timeout")
    with plain.client() as client:
        began = time.monotonic()
        client.send(first)
        assert _ends(client, began, KEEPALIVE) == b""
    assert plain.reached("jwt_keepalive_timeout") > before


def test_a_kept_alive_connection_is_closed_when_nothing_more_is_asked(plain: Site) -> None:
    with plain.client() as client:
        for _ in range(4):
            assert client.request(_get(plain)).body == b"ok"
            time.sleep(0.3 * KEEPALIVE)
        assert client.request(_get(plain)).body == b"ok"
        assert _ends(client, time.monotonic(), KEEPALIVE) == b""


@pytest.mark.parametrize("coding", ["Content-Length: 9", "Transfer-Encoding: chunked"])
def test_a_body_of_which_nothing_comes_gets_408(plain: Site, coding: str) -> None:
    with plain.counts("jwt_body_timeout"), plain.client() as client:
        client.send(_get(plain, "/", coding, method="POST") + b"5\r\nab")
        began = time.monotonic()
        _is_refused(client, LATE_BODY)
        assert time.monotonic() > began + BODY - 0.15


def test_a_body_that_comes_slowly_is_taken(plain: Site) -> None:
    with plain.client() as client:
        client.send(_get(plain, "/", "Content-Length: 5", method="POST"))
        for _ in range(5):
            time.sleep(0.25 * BODY)
            client.send(b"x")
        assert client.reply().body == b"ok"


@pytest.mark.parametrize(("path", "body"), [("/late", b"one two"), pytest.param("/later", b"ok", marks=thorough)])
def test_an_answer_may_be_as_slow_as_it_likes(plain: Site, path: str, body: bytes) -> None:
    with plain.client() as client:
        assert client.request(_get(plain, path)).body == body
        assert client.request(_get(plain, path, "Content-Length: 1", method="POST") + b"x").body == body


def test_an_answer_is_not_cut_for_a_body_that_is_late(plain: Site) -> None:
    with plain.client() as client:
        client.send(_get(plain, "/late", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n")
        assert client.reply().body == b"one two"
        assert client.rest() == b""


def test_a_request_on_which_nothing_moves_ends(plain: Site) -> None:
    with plain.counts("jwt_idle_timeout"), plain.client() as client:
        client.send(_get(plain, "/hangs"))
        assert client.head().status == 200
        assert client.until(b"one")
        assert not _ends(client, time.monotonic(), IDLE).endswith(b"0\r\n\r\n")


def test_an_upload_that_waits_for_its_upstream_is_not_late(plain: Site) -> None:
    """Nobody reads what it sends."""
    size = 32 << 20
    taken = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            time.sleep(LONG)
            connection.settimeout(10)
            seen = 0
            while (data := connection.recv(1 << 20)) != b"":
                seen += len(data)
                if seen > size:
                    break
            taken.append(seen)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with socket.create_server(("127.0.0.1", 0)) as server, plain.client() as client:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        authority = f"127.0.0.1:{server.getsockname()[1]}"
        client.send(message("PUT", f"http://{authority}/", f"Host: {authority}", f"Content-Length: {size}"))
        client.send(bytes(size))
        assert client.reply().body == b"ok"
        thread.join(5)


def test_a_websocket_may_be_silent(plain: Site) -> None:
    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(10)
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            connection.sendall(connection.recv(1 << 16))
            with contextlib.suppress(OSError):
                connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server, plain.client() as client:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        authority = f"127.0.0.1:{server.getsockname()[1]}"
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: " + 22 * "A" + "=="
        assert client.request(message("GET", f"http://{authority}/", f"Host: {authority}", *upgrade, key)).status == 101
        time.sleep(LONG)
        client.send(b"\x81\x85\0\0\0\0hello")
        assert client.exactly(11)[-5:] == b"hello"
        assert _ends(client, time.monotonic(), IDLE) == b""


# --- tunnels


def test_in_a_tunnel_the_limits_are_the_same(site: Site) -> None:
    def fresh() -> Raw:
        client = site.tunnel()
        assert client.request(_get(site, enclosed=True)).body == b"ok"
        return client

    with site.counts("jwt_head_timeout"), fresh() as client:
        client.send(b"GET / HT")
        assert client.reply().body == LATE_HEAD
    with site.counts("jwt_body_timeout"), fresh() as client:
        client.send(_get(site, "/", "Content-Length: 9", method="POST", enclosed=True) + b"x")
        assert client.reply().body == LATE_BODY
    with fresh() as client:
        began = time.monotonic()
        assert _ends(client, began, KEEPALIVE) == b""
    with site.counts("jwt_idle_timeout", 0), fresh() as client:
        assert client.request(_get(site, "/late", enclosed=True)).body == b"one two"
        assert client.request(_get(site, enclosed=True)).body == b"ok"


def test_a_tunnel_in_which_nothing_comes_is_closed_silently(site: Site) -> None:
    with site.client() as client:
        client.tunnel(site.upstream.authority)
        assert _ends(client, time.monotonic(), KEEPALIVE) == b""
    with site.tunnel() as client:
        assert _ends(client, time.monotonic(), KEEPALIVE) == b""


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=thorough), 60], ids="{}-bytes".format)
@pytest.mark.parametrize("tunnel", [True, False], ids=["tunnel", "secure-proxy"])
def test_tls_that_does_not_come_about_is_ended(plain: Site, site: Site, size: int, tunnel: bool) -> None:
    with site.counts("jwt_tls_timeout"), site.client() as client:
        if tunnel:
            client.tunnel(site.upstream.authority)
        began = time.monotonic()
        client.send((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99))[:size])
        assert _ends(client, began, TLS) == b""


def test_tls_that_stops_in_the_middle_is_ended(site: Site) -> None:
    """The client has said what it wants, and takes no notice of the answer."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context(site.ca).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    with site.counts("jwt_tls_timeout"), site.client() as client:
        client.tunnel(site.upstream.authority)
        client.send(outgoing.read())
        began = time.monotonic()
        assert client.rest()[:1] == b"\x16"
        assert TLS - 0.2 < time.monotonic() - began < TLS + SLACK


# --- HTTP/2


def _h2(site: Site) -> frames.Peer:
    client = site.client()
    peer = frames.Peer(client.secure_tunnel(site.upstream.authority, site.ca, "h2"))
    peer.open()
    return peer


def _head(site: Site, path: str, method: str = "GET") -> bytes:
    fields = ((":method", method), (":scheme", "https"), (":authority", site.upstream.authority), (":path", path))
    return frames.block(*fields)


def test_by_http2_a_late_body_ends_its_stream_alone(multiplexed: Site) -> None:
    with multiplexed.counts("jwt_body_timeout"), _h2(multiplexed) as peer:
        peer.send(
            frames.frame(frames.HEADERS, _head(multiplexed, "/", "POST"), 1, frames.END_HEADERS),
            frames.data(1, b"x", 0),
        )
        peer.send(frames.frame(frames.HEADERS, _head(multiplexed, "/later"), 3, frames.END_HEADERS | frames.END_STREAM))
        assert peer.until(lambda: 1 in peer.ended, SLACK)
        assert (peer.statuses[1], peer.bodies[1]) == (408, LATE_BODY)
        assert peer.until(lambda: 3 in peer.ended, SLACK)
        assert (peer.statuses[3], peer.bodies[3], peer.goaway) == (200, b"ok", None)
        assert peer.until(lambda: 1 in peer.resets, 0.5)


def test_by_http2_a_body_whose_answer_has_begun_may_be_silent(multiplexed: Site) -> None:
    """As in gRPC."""
    with multiplexed.counts("jwt_body_timeout", 0), _h2(multiplexed) as peer:
        peer.send(frames.frame(frames.HEADERS, _head(multiplexed, "/late", "POST"), 1, frames.END_HEADERS))
        peer.send(frames.data(1, b"x", 0))
        assert peer.until(lambda: 1 in peer.statuses, SLACK)
        time.sleep(0.8 * LONG)
        peer.send(frames.data(1, b"y"))
        assert peer.until(lambda: 1 in peer.ended, SLACK)
        assert (peer.statuses[1], peer.bodies[1]) == (200, b"one two")


@pytest.mark.parametrize("cut", [2, pytest.param(9, marks=thorough), 12, None], ids="{}-bytes".format)
def test_by_http2_a_late_head_ends_the_connection(multiplexed: Site, cut: int | None) -> None:
    with multiplexed.counts("jwt_head_timeout"), _h2(multiplexed) as peer:
        began = time.monotonic()
        peer.send(frames.frame(frames.HEADERS, _head(multiplexed, "/"), 1, frames.END_STREAM)[:cut])
        assert peer.until(lambda: peer.closed, HEAD + SLACK)
        assert time.monotonic() > began + HEAD - 0.15
        assert peer.goaway is not None
        if cut is None or cut >= 9:
            assert (peer.statuses[1], peer.bodies[1]) == (408, LATE_HEAD)


def test_by_http2_a_late_head_cuts_no_answer(multiplexed: Site) -> None:
    with _h2(multiplexed) as peer:
        peer.send(frames.frame(frames.HEADERS, _head(multiplexed, "/late"), 1, frames.END_HEADERS | frames.END_STREAM))
        peer.send(frames.frame(frames.HEADERS, _head(multiplexed, "/"), 3, frames.END_STREAM))
        assert peer.until(lambda: peer.closed, LONG + HEAD + SLACK)
        assert (peer.statuses[1], peer.bodies[1]) == (200, b"one two")
        assert peer.statuses[3] == 408


def test_by_http2_a_connection_without_a_request_is_closed(multiplexed: Site) -> None:
    """Pings are none."""
    with _h2(multiplexed) as peer:
        peer.send(frames.frame(frames.HEADERS, _head(multiplexed, "/"), 1, frames.END_HEADERS | frames.END_STREAM))
        assert peer.until(lambda: 1 in peer.ended, SLACK)
        began = time.monotonic()
        while not peer.closed and time.monotonic() < began + KEEPALIVE + SLACK:
            peer.send(frames.frame(frames.PING, bytes(8)))
            peer.until(lambda: peer.closed, 0.2)
        assert peer.closed
        assert time.monotonic() > began + KEEPALIVE - 0.15


# --- other ways in


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "stuck"])
def test_a_reverse_proxy_that_speaks_tls_is_not_held_open(
    lane: str, tmp_path: Path, confdir: Path, https_recorder: Recorder, authority: Authority, first: bytes
) -> None:
    with (
        _start(tmp_path, confdir, authority, lane, LIMITS, f"mode=reverse:{https_recorder.url}") as proxy,
        Raw(proxy.port) as client,
    ):
        began = time.monotonic()
        client.send(first)
        assert _ends(client, began, TLS if first else KEEPALIVE) == b""


def test_stock_mitmdump_has_the_same_limits(start_bare: StartBare, recorder: Recorder) -> None:
    sets = (part for name, value in LIMITS.items() for part in ("--set", f"jwt_{name}_timeout={value}"))
    bare = start_bare(*sets, scripts=(ADDONS / "jwt_inject.py", ADDONS / "status.py"))
    with contextlib.ExitStack() as stack:
        silent, head, body, kept, tls = (stack.enter_context(Raw(bare.port)) for _ in range(5))
        whole = message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")
        assert kept.request(whole).status == 200
        tls.tunnel(recorder.authority)
        began = time.monotonic()
        head.send(whole[:9])
        body.send(message("POST", f"{recorder.url}/", f"Host: {recorder.authority}", "Content-Length: 2") + b"x")
        tls.send(b"\x16\x03\x01\x02\x00\x01")
        assert [client.reply().body for client in (head, body)] == [LATE_HEAD, LATE_BODY]
        assert [client.rest() for client in (tls, silent, kept)] == [b"", b"", b""]
        assert time.monotonic() - began < KEEPALIVE + SLACK
        page = stack.enter_context(Raw(bare.port)).request(message("GET", "/status", "Host: x"))
    reached = {name: row["reached"] for name, row in json.loads(page.body)["limits"].items()}
    assert [reached[f"jwt_{name}_timeout"] for name in LIMITS] == [1, 2, 1, 0, 1]


# --- limits that are off


def test_all_limits_can_be_off(
    lane: str, tmp_path: Path, confdir: Path, recorder: Recorder, authority: Authority
) -> None:
    off = dict.fromkeys(LIMITS, 0.0)
    with _start(tmp_path, confdir, authority, lane, off) as proxy, contextlib.ExitStack() as stack:
        began = time.monotonic()
        silent, head, body, tls = (stack.enter_context(Raw(proxy.port)) for _ in range(4))
        whole = message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")
        head.send(whole[:9])
        body.send(message("POST", f"{recorder.url}/", f"Host: {recorder.authority}", "Content-Length: 2") + b"x")
        tls.send(b"\x16\x03\x01")
        time.sleep(max(0.0, began + LONG - time.monotonic()))
        assert silent.request(whole).status == 200
        head.send(whole[9:])
        body.send(b"x")
        assert [client.reply().status for client in (head, body)] == [200, 200]
        tls.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            tls.socket.recv(1)


def test_of_two_limits_of_silence_the_shorter_one_counts(
    lane: str, tmp_path: Path, confdir: Path, recorder: Recorder, authority: Authority
) -> None:
    """Of ours and mitmproxy's, if that is set."""
    recorder.route("/hangs", _hangs, before_body=True)
    with (
        _start(tmp_path, confdir, authority, lane, LIMITS | {"idle": 60}, "tcp_timeout=1") as proxy,
        Raw(proxy.port) as client,
    ):
        client.send(message("GET", f"{recorder.url}/hangs", f"Host: {recorder.authority}"))
        assert client.head().status == 200
        assert client.until(b"one")
        _ends(client, time.monotonic(), 1)
