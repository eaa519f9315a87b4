"""HTTPS through CONNECT: every request in a tunnel is signed, the tunnel is not, and nothing slips past unsigned."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trustme

from tests.support.clients import Http2, Raw, client_context, curl, message, pseudo
from tests.support.frames import END_HEADERS, END_STREAM, HEADERS, Peer, block, frame
from tests.support.harness import Proxy, StartProxy, verify
from tests.support.upstreams import Authority, Exchange, Recorder, raw, respond


def test_each_request_of_an_http1_tunnel_is_signed(proxy: Proxy, https_recorder: Recorder, proxy_ca: Path) -> None:
    """Several requests, uploads among them, in one tunnel: each arrives as sent, with a token of its own."""
    host = f"Host: {https_recorder.authority}"
    with Raw(proxy.port) as client:
        client.secure_tunnel(https_recorder.authority, proxy_ca)
        for number in range(3):
            assert client.request(message("GET", f"/a%2Fb?{number}", host, "X-Case: 1")).body == b"ok"
        assert (
            client.request(message("POST", "/", host, "Content-Length: 3000000", body=bytes(3_000_000))).status == 200
        )
    seen = https_recorder.wait(4)
    assert [request.target for request in seen] == ["/a%2Fb?0", "/a%2Fb?1", "/a%2Fb?2", "/"]
    assert seen[0].without_token() == [(b"Host", https_recorder.authority.encode()), (b"X-Case", b"1")]
    assert seen[3].size == 3_000_000
    assert len({verify(request.token)["jti"] for request in seen}) == 4


def test_each_request_of_an_http2_tunnel_is_signed(proxy: Proxy, h2_recorder: Recorder, proxy_ca: Path) -> None:
    """Concurrent streams of one HTTP/2 connection: each has a token of its own."""
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        streams = [two.send(pseudo("POST", h2_recorder.authority, f"/a%2Fb?{number}"), b"body") for number in range(4)]
        assert [two.reply(stream).body for stream in streams] == [b"ok"] * 4
    seen = h2_recorder.wait(4)
    assert {(request.version, request.method, request.body) for request in seen} == {("2", "POST", b"body")}
    assert {request.target for request in seen} == {f"/a%2Fb?{number}" for number in range(4)}
    assert len({verify(request.token)["jti"] for request in seen}) == 4


@pytest.mark.parametrize("size", [0, 1000, 5_000_000])
def test_an_http2_client_library_is_served(
    proxy: Proxy, h2_recorder: Recorder, proxy_trust: ssl.SSLContext, size: int
) -> None:
    """httpx over HTTP/2, with bodies small and streamed."""
    with httpx.Client(proxy=proxy.url, verify=proxy_trust, http2=True, trust_env=False, timeout=20) as client:
        reply = client.post(h2_recorder.url, content=bytes(size))
    seen = h2_recorder.only()
    assert (reply.http_version, reply.text, seen.version, seen.size) == ("HTTP/2", "ok", "2", size)
    assert verify(seen.token)


def test_curl_gets_all_though_it_does_not_wait_for_the_end(proxy: Proxy, h2_recorder: Recorder, proxy_ca: Path) -> None:
    """It knows the length, and has closed the connection before the upstream says that this was all."""

    async def answer(exchange: Exchange) -> None:
        await exchange.start(200, [("content-length", "2")])
        await exchange.write(b"ok")
        await asyncio.sleep(0.3)
        await exchange.end()

    h2_recorder.default = answer
    assert curl("--http2", "--cacert", str(proxy_ca), f"{h2_recorder.url}/early", proxy=proxy.url).stdout == b"ok"
    assert proxy.wait_for_output(r" GET https://\S+/early (.*)")[1].startswith("200 ")


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_curl_needs_only_the_proxy_and_its_certificate(
    proxy: Proxy, h2_recorder: Recorder, proxy_ca: Path, protocol: str
) -> None:
    """The command of the manual."""
    assert curl(protocol, "--cacert", str(proxy_ca), h2_recorder.url, proxy=proxy.url).stdout == b"ok"
    assert verify(h2_recorder.only().token)


def test_an_http2_client_of_an_http1_upstream_is_served(
    proxy: Proxy, https_recorder: Recorder, proxy_trust: ssl.SSLContext
) -> None:
    """What the client may speak does not depend on the upstream; what arrives is signed."""
    with httpx.Client(proxy=proxy.url, verify=proxy_trust, http2=True, trust_env=False) as client:
        assert client.get(https_recorder.url).text == "ok"
    assert verify(https_recorder.only().token)


def test_an_http2_body_is_no_way_to_smuggle_a_request(
    start_proxy: StartProxy, https_recorder: Recorder, proxy_ca: Path
) -> None:
    """A body without a length, from HTTP/2 to HTTP/1.1: it arrives as a body, not as an unsigned request of its own."""
    proxy = start_proxy("--set", "connection_strategy=lazy")  # the client gets HTTP/2 before the upstream is asked
    hidden = message("GET", "/hidden", f"Host: {https_recorder.authority}")
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(https_recorder.authority, proxy_ca, "h2"))
        assert two.reply(two.send(pseudo("POST", https_recorder.authority, "/"), hidden)).status == 200
        assert two.reply(two.send(pseudo("GET", https_recorder.authority, "/next"))).status == 200
    seen = https_recorder.wait(2)
    assert [(request.target, request.body) for request in seen] == [("/", hidden), ("/next", b"")]
    assert len({verify(request.token)["jti"] for request in seen}) == 2


def test_a_connect_gets_no_token_and_goes_nowhere(proxy: Proxy, https_recorder: Recorder, proxy_ca: Path) -> None:
    """The answer to CONNECT carries nothing of ours, and the upstream sees only what is in the tunnel."""
    with Raw(proxy.port) as client:
        reply = client.tunnel(https_recorder.authority)
        client.start_tls(client_context(proxy_ca))
        client.request(message("GET", "/inside", f"Host: {https_recorder.authority}"))
    assert reply.values("x-my-jwt") == []
    assert [(seen.method, seen.target) for seen in https_recorder.wait(1)] == [("GET", "/inside")]


def test_a_connect_to_an_upstream_proxy_is_not_signed(start_proxy: StartProxy, recorder: Recorder) -> None:
    """Chained to another proxy, our CONNECT there bears no token, while a plain request does."""
    proxy = start_proxy("--mode", f"upstream:{recorder.url}")
    recorder.route("127.0.0.1:9", respond(403))
    with Raw(proxy.port) as client:
        client.send(message("CONNECT", "127.0.0.1:9", "Host: 127.0.0.1:9", "x-my-jwt: evil"))
        client.send(message("GET", "/inside", "Host: 127.0.0.1:9"))
        client.rest()
    with Raw(proxy.port) as client:
        assert client.request(message("GET", "http://127.0.0.1:9/plain", "Host: 127.0.0.1:9")).status == 200
    connects = [seen for seen in recorder.wait(1) if seen.method == "CONNECT"]
    others = [seen for seen in recorder.requests if seen.method != "CONNECT"]
    assert connects
    assert all(seen.values("x-my-jwt") == [] for seen in connects)
    assert [(seen.method, seen.target) for seen in others] == [("GET", "http://127.0.0.1:9/plain")]
    assert verify(others[0].token)


def _unknown_signer(trusted: Authority) -> trustme.LeafCert:
    return trustme.CA().issue_cert("127.0.0.1")


def _another_name(trusted: Authority) -> trustme.LeafCert:
    return trusted.issue("other.example")


def _expired(trusted: Authority) -> trustme.LeafCert:
    return trusted.issue("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
@pytest.mark.parametrize("flawed", [_unknown_signer, _another_name, _expired])
def test_an_upstream_that_cannot_prove_itself_gets_nothing(
    proxy: Proxy, authority: Authority, proxy_ca: Path, flawed: Callable[[Authority], trustme.LeafCert], alpn: str
) -> None:
    """A certificate that does not check out gives 502, and not a byte of the request leaves."""
    protocol = "--http2" if alpn == "h2" else "--http1.1"
    with Recorder(authority=authority, leaf=flawed(authority), alpn=[alpn]) as upstream:
        done = curl(
            protocol, "--cacert", str(proxy_ca), "-w", "%{http_code}", "-d", "body", upstream.url, proxy=proxy.url
        )
        assert (upstream.requests, upstream.bytes_received) == ([], 0)
    assert done.stdout.endswith(b"502")


def test_a_plain_request_sent_one_byte_at_a_time_is_signed(proxy: Proxy, recorder: Recorder) -> None:
    """To the proxy itself, without a tunnel."""
    with Raw(proxy.port) as client:
        client.dribble(message("GET", f"{recorder.url}/slow", f"Host: {recorder.authority}"))
        assert client.reply().body == b"ok"
    assert verify(recorder.only().token)


@pytest.mark.parametrize("line", ["GET /slow HTTP/1.1", "BREW /slow HTTP/1.1", "M-SEARCH /slow HTTP/1.1"])
def test_a_tunnelled_plain_request_sent_one_byte_at_a_time_is_signed(
    proxy: Proxy, recorder: Recorder, line: str
) -> None:
    """Even a first byte that looks like nothing known does not pass as raw TCP."""
    method, target, _ = line.split()
    with Raw(proxy.port) as client:
        client.tunnel(recorder.authority)
        client.dribble(message(method, target, f"Host: {recorder.authority}"))
        assert client.reply().body == b"ok"
        assert client.request(message("GET", "/again", f"Host: {recorder.authority}")).body == b"ok"
    seen = recorder.wait(2)
    assert [(request.method, request.target) for request in seen] == [(method, target), ("GET", "/again")]
    assert len({verify(request.token)["jti"] for request in seen}) == 2


def test_a_pause_after_the_first_byte_in_a_tunnel_is_no_way_out(proxy: Proxy, recorder: Recorder) -> None:
    """A long pause between the first byte and the rest changes nothing."""
    with Raw(proxy.port) as client:
        client.tunnel(recorder.authority)
        client.send(b"G")
        time.sleep(0.5)
        assert recorder.bytes_received == 0
        assert client.request(message("ET", "/slow", f"Host: {recorder.authority}")).body == b"ok"
    assert recorder.only().method == "GET"
    assert verify(recorder.only().token)


def test_a_tls_tunnel_built_one_byte_at_a_time_is_signed(
    proxy: Proxy, https_recorder: Recorder, proxy_ca: Path
) -> None:
    """The whole of it: ClientHello, the rest of the handshake and the request, a byte at a time."""
    with Raw(proxy.port) as client:
        client.tunnel(https_recorder.authority)
        secure = _DribbledTls(client, client_context(proxy_ca))
        secure.send(message("GET", "/slow", f"Host: {https_recorder.authority}"))
        assert secure.until(b"\r\n\r\nok").startswith(b"HTTP/1.1 200 ")
    assert verify(https_recorder.only().token)


class _DribbledTls:
    """TLS whose outgoing bytes are sent one by one."""

    def __init__(self, client: Raw, context: ssl.SSLContext) -> None:
        self._client = client
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._exchange()
            else:
                break
        self._flush()

    def send(self, data: bytes) -> None:
        """Send data, encrypted, byte by byte."""
        self._tls.write(data)
        self._flush()

    def until(self, end: bytes) -> bytes:
        """Read up to and with `end`."""
        data = b""
        while end not in data:
            try:
                data += self._tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self._exchange()
        return data

    def _exchange(self) -> None:
        self._flush()
        received = self._client.socket.recv(1 << 16)
        assert received, "the connection ended"
        self._incoming.write(received)

    def _flush(self) -> None:
        self._client.dribble(self._outgoing.read(), pause=0.001)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03 not HTTP at all\r\n\r\n",
        b"SSH-2.0-client\r\n",
        b"EHLO client.example\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"GET /no-version\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
    ],
    ids=["binary", "ssh", "smtp", "h2c", "http0.9", "bare lf"],
)
def test_what_is_not_http_leaves_no_tunnel_unsigned(proxy: Proxy, recorder: Recorder, data: bytes) -> None:
    """A tunnel is no raw pipe: what arrives upstream is a signed request or nothing."""
    with Raw(proxy.port, timeout=2) as client:
        client.tunnel(recorder.authority)
        client.send(data)
        client.socket.settimeout(0.7)
        with contextlib.suppress(TimeoutError):  # the proxy may as well wait for more
            client.rest()
    assert recorder.bytes_received == sum(len(seen.head) + seen.size for seen in recorder.requests)
    for seen in recorder.requests:
        assert verify(seen.token)


@pytest.mark.parametrize("tls", [False, True])
def test_http2_that_alpn_did_not_agree_on_is_told_so(
    proxy: Proxy, proxy_trust: ssl.SSLContext, recorder: Recorder, https_recorder: Recorder, tls: bool
) -> None:
    """Neither in a tunnel without TLS, nor in TLS that did not offer it (RFC 9113 §3.2)."""
    upstream = https_recorder if tls else recorder
    with Raw(proxy.port, timeout=5) as client:
        client.tunnel(upstream.authority)
        with Peer(client.start_tls(proxy_trust) if tls else client.socket) as peer:
            peer.open()
            peer.send(frame(HEADERS, block(*pseudo("GET", upstream.authority, "/")), 1, END_HEADERS | END_STREAM))
            assert peer.until(lambda: peer.goaway is not None)
            assert (peer.goaway, peer.statuses) == (0xC, {1: 505})
            assert (b"offer h2 in the TLS handshake" in peer.bodies[1]) is tls
            assert peer.until(lambda: peer.closed)
    assert not upstream.requests


def test_a_switch_to_another_protocol_is_no_way_out(proxy: Proxy, recorder: Recorder) -> None:
    """After `101 Switching Protocols` to something else than WebSocket nothing more goes upstream unsigned."""
    recorder.route("/switch", raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n"))
    lines = [f"Host: {recorder.authority}", "Connection: Upgrade", "Upgrade: other"]
    with Raw(proxy.port, timeout=2) as client:
        client.send(message("GET", f"{recorder.url}/switch", *lines))
        recorder.wait(1)
        client.send(message("GET", f"{recorder.url}/hidden", f"Host: {recorder.authority}"))
        client.socket.settimeout(0.7)
        with contextlib.suppress(TimeoutError):  # what the client is told is another matter
            client.rest()
    assert recorder.bytes_received == sum(len(seen.head) for seen in recorder.requests)
    for seen in recorder.requests:
        assert verify(seen.token)
