"""Bodies of any size and any pace: constant memory, message by message, signed all the same."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import aiohttp
import grpc
import httpx
import pytest
import websockets.asyncio.client
import websockets.sync.server
from websockets.http11 import Request, Response

from tests.support.clients import Raw, curl, message
from tests.support.harness import MIB, Process, Proxy, StartBare, StartProxy, rows, thorough, verify
from tests.support.upstreams import Authority, Feed, Recorder, Seen, chunked, download, scripted
from tests.support.workers import status, until

GIB = 1 << 30
sizes = pytest.mark.parametrize("size", [GIB // 8, pytest.param(GIB, marks=thorough)], ids=["part", "whole"])


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[Proxy]:
    """A proxy whose memory nothing else has touched."""
    with Proxy(cwd=tmp_path_factory.mktemp("lean"), confdir=confdir, fresh=True) as process:
        yield process


@sizes
@pytest.mark.parametrize("sized", rows({"sized": True, "chunked": False}, "sized"))
def test_an_upload_of_one_gib_takes_no_memory(
    lean: Proxy, recorder: Recorder, tmp_path: Path, sized: bool, size: int
) -> None:
    """An upload of 1 GiB, or an eighth, arrives whole and signed; the peak stays within 50 MiB of the idle size."""
    big = _zeros(tmp_path / "big", size)
    idle = _idle(lean, recorder)
    how = () if sized else ("-H", "Transfer-Encoding: chunked")
    curl("-T", str(big), *how, "-o", "/dev/null", f"{recorder.url}/upload", proxy=lean.url, timeout=60)
    grown = lean.peak() - idle
    seen = recorder.wait(2)[-1]
    assert seen.size == size
    assert seen.values("content-length") == ([str(size)] if sized else [])
    assert verify(seen.token)
    assert grown <= 50 * MIB, f"{grown / MIB:.0f} MiB above idle"


@sizes
@pytest.mark.parametrize("sized", rows({"sized": True, "chunked": False}, "chunked"))
def test_a_download_of_one_gib_takes_no_memory(lean: Proxy, recorder: Recorder, sized: bool, size: int) -> None:
    """An answer of 1 GiB, or an eighth, arrives whole while the proxy's peak stays within 50 MiB of its idle size."""
    idle = _idle(lean, recorder)
    recorder.route("/download", download(size, sized=sized))
    done = curl("-o", "/dev/null", "-w", "%{size_download}", f"{recorder.url}/download", proxy=lean.url, timeout=60)
    grown = lean.peak() - idle
    assert int(done.stdout) == size
    assert grown <= 50 * MIB, f"{grown / MIB:.0f} MiB above idle"


def test_a_slow_reader_takes_no_memory(lean: Proxy, recorder: Recorder) -> None:
    """When the client stops reading, the upstream is made to wait; the proxy does not hoard."""
    idle = _idle(lean, recorder)
    recorder.route("/download", download(GIB))
    with Raw(lean.port) as client:
        client.send(message("GET", f"{recorder.url}/download", f"Host: {recorder.authority}"))
        assert client.head().status == 200
        grown = _settled(lean) - idle
    assert grown <= 50 * MIB, f"{grown / MIB:.0f} MiB above idle"


@pytest.mark.parametrize("protocol", ["--http1.1", pytest.param("--http2", marks=thorough)])
def test_a_slow_upstream_takes_no_memory(
    start_proxy: StartProxy, h2_recorder: Recorder, proxy_ca: Path, tmp_path: Path, protocol: str
) -> None:
    """When the upstream stops reading, the client is made to wait; the proxy does not hoard."""
    proxy, big = start_proxy(), _zeros(tmp_path / "big")
    idle = _idle(proxy, h2_recorder, "--cacert", str(proxy_ca))
    h2_recorder.paused = True
    upload = ["-T", str(big), f"{h2_recorder.url}/upload"]
    with subprocess.Popen(
        ["curl", "-q", "-s", "-x", proxy.url, "--cacert", str(proxy_ca), protocol, *upload]
    ) as client:
        h2_recorder.until(lambda: h2_recorder.connections == 2)
        grown = _settled(proxy) - idle
        client.kill()
    assert grown <= 50 * MIB, f"{grown / MIB:.0f} MiB above idle"


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/x-ndjson", "text/plain"])
@pytest.mark.parametrize("kind", ["recorder", "https_recorder", "h2_recorder"])
def test_an_answer_arrives_message_by_message(
    proxy: Proxy, proxy_trust: ssl.SSLContext, request: pytest.FixtureRequest, kind: str, content_type: str
) -> None:
    """The upstream sends each message only when the client has the one before: the proxy holds nothing back."""
    upstream: Recorder = request.getfixturevalue(kind)
    feed = Feed(content_type)
    upstream.route("/events", feed)
    messages = [b"data: one\n\n", b'{"n": 2}\n', b"data: three\n\n"]
    two = kind == "h2_recorder"
    with (
        httpx.Client(proxy=proxy.url, verify=proxy_trust, http2=two, trust_env=False, timeout=5) as client,
        client.stream("GET", f"{upstream.url}/events") as reply,
    ):
        assert reply.headers["content-type"] == content_type
        arriving = reply.iter_raw()
        for piece in messages:
            feed.push(piece)
            assert next(arriving) == piece
        feed.close()
        assert list(arriving) == []
    assert reply.http_version == ("HTTP/2" if two else "HTTP/1.1")
    assert verify(upstream.only().token)


def test_an_upload_arrives_message_by_message(proxy: Proxy, recorder: Recorder) -> None:
    """A chunk is upstream before the next one is sent, and the answer may begin before the upload ends."""
    recorder.route("/up", chunked(b"early"), before_body=True)
    with Raw(proxy.port) as client:
        client.send(message("POST", f"{recorder.url}/up", f"Host: {recorder.authority}", "Transfer-Encoding: chunked"))
        seen = recorder.wait_head(1)[0]
        assert verify(seen.token)
        for count in (1, 2, 3):
            client.send(b"3\r\nabc\r\n")
            recorder.until(functools.partial(_has_size, seen, 3 * count))
        assert client.head().status == 200
        client.send(b"0\r\n\r\n")
        recorder.wait(1)
    assert seen.body == b"abcabcabc"


@pytest.mark.parametrize("gathers", ["modify_body", "script"])
def test_an_upload_that_is_gathered_has_one_length(
    start_proxy: StartProxy, start_bare: StartBare, recorder: Recorder, gathers: str
) -> None:
    """Whether an option changes bodies, or nobody streams them: who receives two framings may see two requests."""
    proxy: Process = start_proxy("--set", "modify_body=/~q/a/bb") if gathers == "modify_body" else start_bare()
    with Raw(proxy.port) as client:
        for _ in range(2):
            head = [f"Host: {recorder.authority}", "Transfer-Encoding: chunked"]
            body = b"1\r\na\r\n3\r\ncba\r\n0\r\n\r\n"
            assert client.request(message("POST", f"{recorder.url}/", *head, body=body)).body == b"ok"
    for seen in recorder.wait(2):
        assert seen.body == (b"bbcbbb" if gathers == "modify_body" else b"acba")
        assert len(seen.values("transfer-encoding") + seen.values("content-length")) == 1, seen.fields
        assert verify(seen.token)


def test_a_body_that_is_held_whole_goes_to_a_server_that_answers_before_it_reads_on(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    """Each waits for the other to read; what is not read by either is far more than sockets hold."""
    (tmp_path / "script.py").write_text("def request(flow): pass\n")

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // MIB):
            assert connection.recv(MIB)
            connection.sendall(bytes(MIB))

    size = 24 * MIB
    with scripted(answer) as port, start_proxy("-s", "script.py", cwd=tmp_path) as proxy, Raw(proxy.port) as client:
        host = f"127.0.0.1:{port}"
        lines = [f"Host: {host}", f"Content-Length: {size}"]
        reply = client.request(message("POST", f"http://{host}/", *lines, body=bytes(size)))
        assert (reply.status, len(reply.body)) == (200, size)


def test_what_is_held_whole_is_bounded(start_proxy: StartProxy, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("def request(flow): pass\ndef response(flow): pass\n")
    flags = ["-s", "script.py", "--set", "jwt_max_body=100k", "--set", "jwt_max_bodies=250k"]

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\nConnection: close\r\n\r\n" + bytes(90_000))

    def upload(port: int, size: int, sent: int) -> Raw:
        lines = [f"Host: 127.0.0.1:{port}", f"Content-Length: {size}"]
        client = Raw(proxy.port)
        client.send(message("POST", f"http://127.0.0.1:{port}/", *lines) + bytes(sent))
        return client

    with scripted(answer) as port, start_proxy(*flags, cwd=tmp_path) as proxy:
        with upload(port, 200_000, 200_000) as large:
            assert large.reply().status == 413
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(upload(port, 90_000, 89_000)) for _ in range(3)]
            refused, _, _ = select.select([client.socket for client in clients], [], [], 10)
            assert {client.reply().status for client in clients if client.socket in refused} == {503}
        until(lambda: _status(upload(port, 90_000, 90_000)) == 200, 5, "what has ended is not held any more")
        limits = status(proxy.port)["limits"]
        assert limits["jwt_max_body"]["reached"] == 1
        assert limits["jwt_max_bodies"]["reached"] >= 1


def _status(client: Raw) -> int:
    with client:
        return client.reply().status


def test_a_grpc_stream_goes_both_ways(
    proxy: Proxy, proxy_ca: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bidirectional gRPC stream over HTTPS: each message is answered before the next is sent; it is signed."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        monkeypatch.delenv(name, raising=False)
    tokens: list[str] = []

    def reverse(request: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        tokens.extend(str(value) for name, value in context.invocation_metadata() if name == "x-my-jwt")
        return (piece[::-1] for piece in request)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.stream_stream_rpc_method_handler(reverse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Echo", {"Talk": handler}),))
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(authority.key_pem, authority.chain_pem)])
    )
    server.start()
    try:
        trust = grpc.ssl_channel_credentials(proxy_ca.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{port}", trust, [("grpc.http_proxy", proxy.url)]) as channel:
            sending: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            answers = channel.stream_stream("/tests.Echo/Talk")(iter(sending.get, None), timeout=10)
            for number in range(5):
                sending.put(f"message {number}".encode())
                assert next(answers) == f"message {number}"[::-1].encode()
            sending.put(None)
            assert list(answers) == []
            assert answers.code() is grpc.StatusCode.OK
    finally:
        server.stop(None).wait(5)
    assert len(tokens) == 1
    assert verify(tokens[0])


class _Echo:
    """A WebSocket server that echoes, and keeps the tokens of the handshakes."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.tokens: list[list[str]] = []
        self.server = websockets.sync.server.serve(self._echo, "127.0.0.1", 0, ssl=context, process_request=self._note)
        self.url = f"{'wss' if context else 'ws'}://127.0.0.1:{self.server.socket.getsockname()[1]}/chat"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def _note(self, connection: websockets.sync.server.ServerConnection, request: Request) -> Response | None:
        self.tokens.append(request.headers.get_all("x-my-jwt"))
        return None

    def _echo(self, connection: websockets.sync.server.ServerConnection) -> None:
        for received in connection:
            connection.send(received)


@pytest.fixture
def echo(request: pytest.FixtureRequest, authority: Authority) -> Iterator[_Echo]:
    """An echoing WebSocket server, over TLS when the test is parametrized so."""
    server = _Echo(authority.server_context() if request.param == "wss" else None)
    yield server
    server.server.shutdown()
    server.thread.join(5)


@pytest.mark.parametrize("echo", ["ws", "wss"], indirect=True)
def test_a_websocket_in_a_tunnel_echoes_and_its_handshake_is_signed(
    proxy: Proxy, echo: _Echo, proxy_trust: ssl.SSLContext
) -> None:
    """With the websockets library, which opens a tunnel for either scheme (not .sync, see tests/clients/rows.py)."""
    context = proxy_trust if echo.url.startswith("wss") else None

    async def talk() -> None:
        async with websockets.asyncio.client.connect(
            echo.url, proxy=proxy.url, ssl=context, additional_headers={"X-My-JWT": "evil"}, open_timeout=5
        ) as client:
            for sent in ("text €", b"\x00binary", "x" * 300_000):
                await client.send(sent)
                assert await client.recv() == sent
            await (await client.ping())
            await client.close(4001, "done")
            assert client.close_code == 4001

    asyncio.run(asyncio.wait_for(talk(), 20))
    assert [len(tokens) for tokens in echo.tokens] == [1]
    assert verify(echo.tokens[0][0])


@pytest.mark.parametrize(("echo", "scheme"), [("ws", "ws"), ("ws", "http"), ("wss", "wss")], indirect=["echo"])
def test_a_websocket_of_aiohttp_echoes_and_its_handshake_is_signed(
    proxy: Proxy, echo: _Echo, scheme: str, proxy_trust: ssl.SSLContext
) -> None:
    """With aiohttp, which without TLS opens no tunnel but sends `GET ws://…` or, when told so, `GET http://…`."""
    url = echo.url.replace("ws", scheme, 1) if scheme == "http" else echo.url

    async def talk() -> str:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
            session.ws_connect(url, proxy=proxy.url, ssl=proxy_trust) as client,
        ):
            await client.send_str("hello €")
            answer = await client.receive_str(timeout=5)
        await asyncio.sleep(0.2)  # aiohttp does not wait until TLS is closed
        return answer

    assert asyncio.run(talk()) == "hello €"
    assert [len(tokens) for tokens in echo.tokens] == [1]
    assert verify(echo.tokens[0][0])


@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
def test_a_client_that_waits_for_100_continue_is_told_to_go_on(proxy: Proxy, recorder: Recorder, framing: str) -> None:
    """`100 Continue` comes before the body is sent; the request arrives whole and signed."""
    lines = [f"Host: {recorder.authority}", "Expect: 100-continue", framing]
    body = bytes(2_000_000)
    with Raw(proxy.port) as client:
        client.send(message("PUT", f"{recorder.url}/", *lines))
        assert client.head().status == 100
        client.send(body if "Length" in framing else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert client.reply().body == b"ok"
    assert recorder.only().size == len(body)
    assert verify(recorder.only().token)


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_curl_that_waits_for_100_continue_is_told_to_go_on(proxy: Proxy, recorder: Recorder, size: int) -> None:
    """curl would wait twenty seconds for the word."""
    upload = ("-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", "@-")
    with subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        done = curl(*upload, f"{recorder.url}/", proxy=proxy.url, timeout=10, stdin=source.stdout.fileno())
    assert done.stdout == b"ok"
    assert recorder.only().size == size
    assert verify(recorder.only().token)


def test_other_uploads_go_on_while_one_is_slow(proxy: Proxy, recorder: Recorder) -> None:
    """An unfinished upload holds up nobody else."""
    host = f"Host: {recorder.authority}"
    with Raw(proxy.port) as slow, Raw(proxy.port) as quick:
        slow.send(message("PUT", f"{recorder.url}/slow", host, "Content-Length: 2000000", body=b"begun"))
        recorder.wait_head(1)
        assert quick.request(message("GET", f"{recorder.url}/quick", host)).body == b"ok"


def _idle(proxy: Proxy, upstream: Recorder, *args: str) -> int:
    """The proxy's size after one request, the peak set back to it."""
    curl(*args, f"{upstream.url}/warm-up", proxy=proxy.url)
    proxy.reset_peak()
    return proxy.rss()


def _settled(proxy: Proxy) -> int:
    """The proxy's peak once it has not risen for a second, or by 50 MiB."""
    first = peak = proxy.peak()
    since = time.monotonic()
    while time.monotonic() < since + 1 and peak <= first + 50 * MIB:
        time.sleep(0.05)
        if (now := proxy.peak()) > peak:
            peak, since = now, time.monotonic()
    return peak


def _zeros(path: Path, size: int = GIB) -> Path:
    """A file that is sparse: it takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _has_size(seen: Seen, size: int) -> bool:
    return seen.size == size
