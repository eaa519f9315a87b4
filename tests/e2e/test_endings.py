"""Connections that end while requests are under way, on either side: nobody gets to see it.

What is sent once more is counted once and signed anew, and nothing is sent twice that may not be.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import pytest

from tests.support import verifiers
from tests.support.clients import Raw, client_context, curl, message
from tests.support.frames import END_HEADERS, HEADERS, Peer, block, data, frame
from tests.support.harness import Process, Proxy, StartProxy, clean_env, rows, verify
from tests.support.upstreams import OK, Answer, Authority, Exchange, Recorder, respond, scripted
from tests.support.workers import status

REFUSED_STREAM = 7
GRACE = ("--grace", "6")


@pytest.fixture(scope="module", params=["on", "off"], ids=["in the fast lane", "past the fast lane"])
def laned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority
) -> Iterator[Proxy]:
    """A proxy with the fast lane, and one without."""
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    folder, env = tmp_path_factory.mktemp("endings"), {"JWT_FAST_LANE": str(request.param)}
    with Proxy("--set", trust, cwd=folder, confdir=confdir, env=env) as process:
        yield process
        assert process.running, process.output
        process.stop()
        assert "Traceback" not in process.output, process.output


@contextmanager
def counted(proxy: Proxy, requests: int) -> Iterator[None]:
    """The proxy counts so many meanwhile, whatever it has sent twice."""
    before = status(proxy.port)["proxied_requests"]
    yield
    assert status(proxy.port)["proxied_requests"] - before == requests


def all_fresh(tokens: list[str]) -> bool:
    """Whether each is a token, and no two are the same."""
    return len({verify(token)["jti"] for token in tokens}) == len(tokens)


# --- an upstream that says GOAWAY


@pytest.fixture
def nginx(tmp_path: Path, authority: Authority) -> Iterator[tuple[str, Path]]:
    """nginx, which ends each connection after twenty requests: its URL, and a file with the token of each request."""
    port, tokens = verifiers.free_port(), tmp_path / "tokens.log"
    (tmp_path / "chain.pem").write_bytes(authority.chain_pem)
    (tmp_path / "key.pem").write_bytes(authority.key_pem)
    folders = " ".join(f"{kind}_temp_path tmp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}
        http {{
            {folders}
            log_format token '$http_x_my_jwt';
            server {{
                listen 127.0.0.1:{port} ssl http2;
                ssl_certificate chain.pem;
                ssl_certificate_key key.pem;
                keepalive_requests 20;
                access_log tokens.log token;
                location / {{ return 200 "ok"; }}
            }}
        }}"""
    )
    argv = [verifiers.nginx(), "-e", "stderr", "-p", str(tmp_path), "-c", "nginx.conf"]
    with Process(argv, env=clean_env(tmp_path), cwd=tmp_path, ready=None) as process:
        verifiers.await_port(process, port)
        yield f"https://127.0.0.1:{port}", tokens


LOADS = {
    "60 in turn": (60, ()),
    "20 times 5 at once": (100, ("--parallel", "--parallel-max", "5")),
    "1100 in turn": (1100, ()),
    "60 times 20 at once": (1200, ("--parallel", "--parallel-max", "20")),
}


@pytest.mark.parametrize(("requests", "how"), rows(LOADS, "60 in turn", "20 times 5 at once"))
def test_nginx_ends_its_connections_and_curl_sees_nothing_of_it(
    proxy: Proxy, proxy_ca: Path, nginx: tuple[str, Path], requests: int, how: tuple[str, ...]
) -> None:
    url, log = nginx
    fixed = ("--http2", "--cacert", str(proxy_ca), "-o", "/dev/null", "-w", "%{http_version} %{http_code}\\n")
    with counted(proxy, requests):
        said = curl(*fixed, *how, f"{url}/[1-{requests}]", proxy=proxy.url, timeout=60).stdout.decode()
    assert Counter(said.splitlines()) == {"2 200": requests}
    tokens = lines_of(log, requests)
    assert all_fresh(tokens)


def lines_of(log: Path, count: int, timeout: float = 3.0) -> list[str]:
    """The lines of a log in which these are about to be."""
    deadline = time.monotonic() + timeout
    while len(lines := log.read_text().splitlines()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(lines) == count
    return lines


@contextmanager
def grpc_server(authority: Authority, *options: tuple[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """A gRPC server that says back what it hears, or counts for five seconds; its address and the tokens it got."""
    tokens: list[str] = []

    def note(context: grpc.ServicerContext) -> None:
        tokens.extend(str(value) for name, value in context.invocation_metadata() if name == "x-my-jwt")

    def say(request: bytes, context: grpc.ServicerContext) -> bytes:
        note(context)
        time.sleep(0.02)
        return request

    def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        note(context)
        for number in range(50):
            yield b"%d" % number
            time.sleep(0.06)

    methods = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Endings", methods),))
    trust = grpc.ssl_server_credentials([(authority.key_pem, authority.chain_pem)])
    port = server.add_secure_port("127.0.0.1:0", trust)
    server.start()
    try:
        yield f"127.0.0.1:{port}", tokens
    finally:
        server.stop(None).wait(5)


@contextmanager
def grpc_channel(monkeypatch: pytest.MonkeyPatch, address: str, proxy: str, proxy_ca: Path) -> Iterator[grpc.Channel]:
    """A channel through the proxy."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        monkeypatch.delenv(name, raising=False)
    trust = grpc.ssl_channel_credentials(proxy_ca.read_bytes())
    with grpc.secure_channel(address, trust, [("grpc.http_proxy", proxy)]) as channel:
        yield channel


def call_until(channel: grpc.Channel, stop: threading.Event) -> list[str]:
    """Call again and again; how each call ended."""
    say, ended = channel.unary_unary("/tests.Endings/Say"), []
    while not stop.is_set():
        try:
            ended.append(say(b"ok", timeout=10).decode())
        except grpc.RpcError as error:
            ended.append(f"{error.code()}: {error.details()}")
        stop.wait(0.01)
    return ended


def test_a_grpc_server_ends_its_connections_and_no_call_fails(
    proxy: Proxy, proxy_ca: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that takes longer than a connection may last, and many short calls beside it."""
    limits = (("grpc.max_connection_age_ms", 1200), ("grpc.max_connection_age_grace_ms", 10_000))
    before = status(proxy.port)["proxied_requests"]
    with (
        grpc_server(authority, *limits) as (address, tokens),
        grpc_channel(monkeypatch, address, proxy.url, proxy_ca) as channel,
        futures.ThreadPoolExecutor(4) as pool,
    ):
        stop = threading.Event()
        calls = [pool.submit(call_until, channel, stop) for _ in range(4)]
        try:
            counted_to = list(channel.unary_stream("/tests.Endings/Count")(b"", timeout=20))
        finally:
            stop.set()
        ended = [how for one in calls for how in one.result(15)]
    assert counted_to == [b"%d" % number for number in range(50)]
    assert Counter(ended) == {"ok": len(ended)}
    assert len(ended) > 100
    assert len(tokens) == len(ended) + 1
    assert all_fresh(tokens)
    assert status(proxy.port)["proxied_requests"] - before == len(ended) + 1


# --- a client that says GOAWAY

NODE = """\
const [port, authority, ca, limit] = JSON.parse(process.argv[1]);
const http = require('http'), http2 = require('http2'), tls = require('tls'), fs = require('fs');
const open = () => new Promise((resolve, reject) => {
  const asked = http.request({host: '127.0.0.1', port, method: 'CONNECT', path: authority, headers: {Host: authority}});
  asked.on('error', reject).on('connect', (answer, socket) => {
    const trust = {ca: fs.readFileSync(ca), host: '127.0.0.1', ALPNProtocols: ['h2'], socket};
    const secure = tls.connect(trust, () => {
      const session = http2.connect(`https://${authority}`, {createConnection: () => secure});
      session.on('error', error => console.error(String(error)));
      resolve(session);
    }).on('error', reject);
  }).end();
});
const get = (session, path) => new Promise(resolve => {
  let status = 0, size = 0;
  const stream = session.request({':path': path});
  stream.on('response', fields => { status = fields[':status']; });
  stream.on('data', data => { size += data.length; });
  stream.on('end', () => resolve(`${status} ${size}`));
  stream.on('error', error => resolve(String(error)));
  stream.on('close', () => resolve(`closed after ${status} ${size}`));
});
"""

CLOSE = """\
(async () => {
  const session = await open(), answers = [get(session, '/slow'), get(session, '/slow')];
  session.close();
  console.log(JSON.stringify(await Promise.all(answers)));
})();
"""

GO_ON = """\
(async () => {
  let session = await open(), sessions = 1;
  const answers = [], end = Date.now() + limit;
  while (Date.now() < end) {
    if (session.closed || session.destroyed) {
      session = await open();
      sessions += 1;
    }
    answers.push(get(session, '/soon'));
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  console.log(JSON.stringify([sessions, await Promise.all(answers)]));
  session.close();
})();
"""


def node(script: str, port: int, authority: str, ca: Path, limit: int = 0) -> Any:
    """What a script for Node prints."""
    program = verifiers.need(shutil.which("node"), "Node is not installed")
    arguments = json.dumps([port, authority, str(ca), limit])
    done = subprocess.run([program, "-e", NODE + script, arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def later(seconds: float, size: int = 2) -> Answer:
    """An answer that begins after a while, and is whole a while after that."""

    async def answer(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await exchange.start(200)
        await exchange.write(bytes(size // 2))
        await asyncio.sleep(seconds)
        await exchange.write(bytes(size - size // 2))
        await exchange.end()

    return answer


def test_node_closes_its_session_and_gets_its_answers(proxy: Proxy, proxy_ca: Path, h2_recorder: Recorder) -> None:
    size = 300_000
    h2_recorder.route("/slow", later(0.15, size))
    with counted(proxy, 2):
        answers = node(CLOSE, proxy.port, h2_recorder.authority, proxy_ca)
    assert answers == [f"200 {size}"] * 2
    assert all_fresh([seen.token for seen in h2_recorder.wait(2)])


# --- the proxy itself, when it is told to end


class Balancer:
    """What stands before several proxies: new connections go to `target`, old ones stay; a context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._server.accept()[0]
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def two(start_proxy: StartProxy) -> tuple[Proxy, Proxy]:
    """A proxy, and one that takes its place."""
    return start_proxy(*GRACE), start_proxy(*GRACE)


@contextmanager
def replaced(two: tuple[Proxy, Proxy], ready: Callable[[], bool]) -> Iterator[Balancer]:
    """Have the second proxy get new connections, and tell the first to end, once it is time to.

    The first ends well, before its grace is over.
    """
    failed: list[str] = []

    def replace() -> None:
        deadline = time.monotonic() + 10
        while not ready():
            if time.monotonic() > deadline:
                failed.append("nothing was under way")
                return
            time.sleep(0.005)
        balancer.target = two[1].port
        two[0].send_signal(signal.SIGTERM)

    with Balancer(two[0].port) as balancer:
        thread = threading.Thread(target=replace, daemon=True)
        thread.start()
        yield balancer
        thread.join(10)
    assert not failed
    began = time.monotonic()
    assert (two[0].wait(), two[0].stderr) == (0, ""), two[0].output
    assert time.monotonic() - began < 4, "it waited for nobody"


def all_counted(recorder: Recorder, count: int) -> None:
    """Each of these requests has arrived once, with a token of its own."""
    assert len(recorder.wait(count)) == count
    assert all_fresh([seen.token for seen in recorder.requests])


def test_curl_goes_on_while_a_proxy_ends(two: tuple[Proxy, Proxy], proxy_ca: Path, h2_recorder: Recorder) -> None:
    """Four of them: one with --parallel (7.88) fails by itself where it needs a second connection through a proxy."""
    count = 25
    h2_recorder.default = later(0.02)
    fixed = ("--http2", "--cacert", str(proxy_ca), "-o", "/dev/null", "-w", "%{http_version} %{http_code}\\n")
    with replaced(two, lambda: len(h2_recorder.requests) > count) as balancer, futures.ThreadPoolExecutor(4) as pool:
        args = (*fixed, f"{h2_recorder.url}/[1-{count}]")
        asking = [pool.submit(curl, *args, proxy=balancer.url, timeout=20) for _ in range(4)]
        said = b"".join(one.result().stdout for one in asking).decode()
    assert Counter(said.splitlines()) == {"2 200": 4 * count}
    all_counted(h2_recorder, 4 * count)


def test_node_goes_on_while_a_proxy_ends(two: tuple[Proxy, Proxy], proxy_ca: Path, h2_recorder: Recorder) -> None:
    h2_recorder.route("/soon", later(0.03))
    with replaced(two, lambda: len(h2_recorder.requests) > 20) as balancer:
        sessions, answers = node(GO_ON, balancer.port, h2_recorder.authority, proxy_ca, 1500)
    assert Counter(answers) == {"200 2": len(answers)}
    assert sessions == 2
    all_counted(h2_recorder, len(answers))


def test_grpc_goes_on_while_a_proxy_ends(
    two: tuple[Proxy, Proxy], proxy_ca: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        grpc_server(authority) as (address, tokens),
        replaced(two, lambda: len(tokens) > 40) as balancer,
        grpc_channel(monkeypatch, address, balancer.url, proxy_ca) as channel,
        futures.ThreadPoolExecutor(4) as pool,
    ):
        stop = threading.Event()
        calls = [pool.submit(call_until, channel, stop) for _ in range(4)]
        time.sleep(1.5)
        stop.set()
        ended = [how for one in calls for how in one.result(15)]
    assert Counter(ended) == {"ok": len(ended)}
    assert len(tokens) == len(ended)
    assert all_fresh(tokens)


def test_what_a_client_sends_before_it_has_heard_is_answered(
    start_proxy: StartProxy, proxy_ca: Path, h2_recorder: Recorder
) -> None:
    """GOAWAY comes soon where it goes on sending, and names no stream as the last yet (RFC 9113 §6.8)."""
    h2_recorder.route("/slow", later(1.0))
    proxy = start_proxy(*GRACE)
    with Raw(proxy.port) as client, tunnelled(client, h2_recorder, proxy_ca) as peer:
        peer.send(request(h2_recorder, "GET", "/slow", 1, end=True))
        h2_recorder.wait(1)
        proxy.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        early = peer.goaway
        peer.send(request(h2_recorder, "GET", "/soon", 3, end=True))
        assert peer.until(lambda: peer.goaway is not None)
        assert (early, peer.goaway) == (None, 0), "not at once: some drop what is under way when they are told"
        peer.send(request(h2_recorder, "GET", "/soon", 5, end=True))
        assert peer.until(lambda: {1, 3, 5} <= peer.ended)
        assert peer.statuses == {1: 200, 3: 200, 5: 200}
        assert peer.until(lambda: peer.closed)
    assert (proxy.wait(), proxy.stderr) == (0, "")


# --- streams that an upstream refuses


@contextmanager
def tunnelled(client: Raw, upstream: Recorder, proxy_ca: Path) -> Iterator[Peer]:
    """An HTTP/2 connection in a tunnel."""
    client.tunnel(upstream.authority)
    with Peer(client.start_tls(client_context(proxy_ca, "h2"))) as peer:
        peer.open()
        yield peer


def request(upstream: Recorder, method: str, path: str, stream: int, *, end: bool) -> bytes:
    """The head of a request, which may be all of it."""
    pseudo = [(":method", method), (":scheme", "https"), (":authority", upstream.authority), (":path", path)]
    return frame(HEADERS, block(*pseudo), stream, END_HEADERS | int(end))


def refuse(times: int, *, once_some_came: bool = False) -> Answer:
    """Refuse the first streams, and answer later ones."""
    left = itertools.count(times, -1)

    async def answer(exchange: Exchange) -> None:
        while once_some_came and not exchange.seen.size:
            await asyncio.sleep(0.005)
        if next(left) > 0:
            await exchange.give_up(REFUSED_STREAM)
            return
        while not exchange.seen.complete:
            await asyncio.sleep(0.005)
        await respond(200, body=b"ok")(exchange)

    return answer


METHODS = {"GET": b"", "DELETE": b"", "POST": b"held", "PATCH": b"held"}


@pytest.mark.parametrize("when", rows({"at its head": True, "as a whole": False}, "at its head"))
@pytest.mark.parametrize("method", rows({name: (name,) for name in METHODS}, "GET", "POST"))
def test_a_refused_stream_is_tried_once_more(
    proxy: Proxy, proxy_ca: Path, h2_recorder: Recorder, method: str, when: bool
) -> None:
    """Whatever its method, as nothing has been done (RFC 9113 §8.7)."""
    h2_recorder.route("/", refuse(1), before_body=when)
    body = METHODS[method]
    with counted(proxy, 1), Raw(proxy.port) as client, tunnelled(client, h2_recorder, proxy_ca) as peer:
        length = (("content-length", str(len(body))),) if body else ()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", h2_recorder.authority), (":path", "/")]
        head = frame(HEADERS, block(*pseudo, *length), 1, END_HEADERS | int(not body))
        peer.send(head, data(1, body) if body else b"")
        assert peer.until(lambda: 1 in peer.ended)
        assert (peer.statuses, peer.bodies[1]) == ({1: 200}, b"ok")
    first, second = h2_recorder.requests
    assert second.body == body
    assert all_fresh([first.token, second.token])


def test_a_body_that_has_not_left_is_no_hindrance(proxy: Proxy, proxy_ca: Path, h2_recorder: Recorder) -> None:
    """It is streamed, and its client sends it after the stream was refused."""
    h2_recorder.route("/", refuse(1), before_body=True)
    with counted(proxy, 1), Raw(proxy.port) as client, tunnelled(client, h2_recorder, proxy_ca) as peer:
        peer.send(request(h2_recorder, "POST", "/", 1, end=False))
        h2_recorder.wait_head(2)
        peer.send(data(1, b"first ", 0), data(1, b"last"))
        assert peer.until(lambda: 1 in peer.ended)
        assert (peer.statuses, peer.bodies[1]) == ({1: 200}, b"ok")
    assert [seen.body for seen in h2_recorder.requests] == [b"", b"first last"]
    assert all_fresh([seen.token for seen in h2_recorder.requests])


def test_a_stream_that_is_refused_twice_is_given_up(proxy: Proxy, proxy_ca: Path, h2_recorder: Recorder) -> None:
    h2_recorder.route("/", refuse(2))
    with counted(proxy, 1), Raw(proxy.port) as client, tunnelled(client, h2_recorder, proxy_ca) as peer:
        peer.send(request(h2_recorder, "GET", "/", 1, end=True))
        assert peer.until(lambda: 1 in peer.ended)
        assert peer.statuses == {1: 502}
        says_who(peer.bodies[1])
    assert len(h2_recorder.requests) == 2


def test_a_body_of_which_some_has_left_is_not_sent_again(proxy: Proxy, proxy_ca: Path, h2_recorder: Recorder) -> None:
    h2_recorder.route("/", refuse(1, once_some_came=True), before_body=True)
    with counted(proxy, 1), Raw(proxy.port) as client, tunnelled(client, h2_recorder, proxy_ca) as peer:
        peer.send(request(h2_recorder, "POST", "/", 1, end=False), data(1, b"first ", 0))
        assert peer.until(lambda: 1 in peer.ended)
        assert peer.statuses == {1: 502}
        says_who(peer.bodies[1])
    assert len(h2_recorder.requests) == 1


def says_who(page: bytes) -> None:
    """Whether a page tells that it was the server who reset the stream, and why."""
    assert page.startswith(b"jwtproxy: ")
    assert b"server" in page
    assert b"REFUSED_STREAM" in page


# --- connections that are closed just when they are used again


class Closes:
    """A server that closes each connection after its first answer, now at once, now some milliseconds later.

    What has come meanwhile it reads on every other connection, without a word; else the close becomes a reset. `tokens`
    are those of the requests that it has read, by their paths.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.tokens: dict[str, list[str]] = {}
        self._context = context
        self._ways = itertools.cycle(itertools.product((0, 0, 0.001, 0.002, 0.003, 0.004, 0.005), (True, False)))
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.authority = "127.0.0.1:{1}".format(*self._server.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, way = self._server.accept()[0], next(self._ways)
                threading.Thread(target=self._serve, args=(connection, *way), daemon=True).start()

    def _serve(self, plain: socket.socket, delay: float, reads: bool) -> None:
        plain.settimeout(10)
        with contextlib.suppress(OSError), self._secured(plain) as connection:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := connection.recv(1 << 16)):
                    return
                head += piece
            self._note(head)
            connection.sendall(OK)
            time.sleep(delay)
            connection.settimeout(0)
            if reads:
                with contextlib.suppress(OSError):  # as a rule there is nothing
                    self._note(connection.recv(1 << 16))
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()  # says that it closes, and does not wait for the other side to say so

    def _secured(self, plain: socket.socket) -> socket.socket:
        return self._context.wrap_socket(plain, server_side=True) if self._context else plain

    def _note(self, head: bytes) -> None:
        line, *fields = head.decode("latin-1").removeprefix("a=").split("\r\n")  # the body of a POST may come later
        if not line:
            return
        found = [field.partition(":")[2].strip() for field in fields if field.lower().startswith("x-my-jwt:")]
        self.tokens.setdefault(line.split(" ")[1], []).extend(found or ["none"])


RACES = {
    "200 by HTTP": ("http", 200),
    "100 by HTTPS": ("https", 100),
    "2000 by HTTP": ("http", 2000),
    "1000 by HTTPS": ("https", 1000),
}


@pytest.mark.parametrize(("scheme", "requests"), rows(RACES, "100 by HTTPS"))
def test_connections_that_close_fail_no_request_that_may_be_repeated(
    laned: Proxy, proxy_ca: Path, authority: Authority, scheme: str, requests: int
) -> None:
    """RFC 9110 §9.2.2: a GET is sent again, and a POST never is."""
    context, answers = authority.server_context() if scheme == "https" else None, Counter[tuple[str, int]]()
    with Closes(context) as server, counted(laned, requests), contextlib.ExitStack() as clients:

        def connect() -> Raw:
            client = clients.enter_context(Raw(laned.port))
            if scheme == "https":
                client.secure_tunnel(server.authority, proxy_ca, "http/1.1")
            return client

        client, prefix = connect(), f"http://{server.authority}" if scheme == "http" else ""
        for number in range(requests):
            method = "POST" if number % 4 == 3 else "GET"
            lines = (f"Host: {server.authority}", *(("Content-Length: 2",) if method == "POST" else ()))
            reply = client.request(message(method, f"{prefix}/{number}", *lines, body=b"a=" * (method == "POST")))
            answers[method, reply.status] += 1
            if reply.values("connection") == ["close"]:  # as after each error
                client.close()
                client = connect()
            time.sleep(number % 5 / 1000)
    assert answers["GET", 200] == requests - requests // 4, answers
    assert answers["POST", 200] + answers["POST", 502] == requests // 4, answers
    posts = [tokens for path, tokens in server.tokens.items() if int(path[1:]) % 4 == 3]
    assert max(map(len, posts)) == 1, "a POST was sent twice"
    assert all_fresh([token for tokens in server.tokens.values() for token in tokens])


# --- clients that say no more

LAST = {
    "HTTP/1.0": ("1.0", ()),
    "Connection: close": ("1.1", ("Connection: close",)),
}


@pytest.mark.parametrize("delay", [0, 0.2], ids=["quick", "slow"])
@pytest.mark.parametrize(("version", "lines"), rows(LAST, *LAST))
def test_who_half_closes_after_its_last_request_gets_its_answer(
    laned: Proxy, recorder: Recorder, version: str, lines: tuple[str, ...], delay: float
) -> None:
    """As netcat does at the end of its input."""
    recorder.default = later(delay) if delay else respond(200, body=b"ok")
    with counted(laned, 1), Raw(laned.port) as client:
        host = f"Host: {recorder.authority}"
        client.send(message("GET", f"{recorder.url}/", host, *lines, version=version))
        client.socket.shutdown(socket.SHUT_WR)
        reply = client.reply()
        assert (reply.status, len(reply.body)) == (200, 2)
        assert client.rest() == b""
    assert verify(recorder.only().token)


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"


@contextmanager
def held(first: bytes = b"", delay: float = 0.0) -> Iterator[tuple[str, threading.Event]]:
    """An upstream that says this, and then nothing: its address, and what tells that it was let go."""
    gone = threading.Event()

    def serve(connection: socket.socket) -> None:
        time.sleep(delay)
        connection.sendall(first)
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
        gone.set()

    with scripted(serve) as port:
        yield f"127.0.0.1:{port}", gone


GONE = {
    "half-closes a kept connection": ((), b"", 0.0, False),
    "half-closes after events began": (("Connection: close",), EVENTS, 0.0, True),
    "half-closes before events began": (("Connection: close",), EVENTS, 0.2, False),
    "half-closes a kept connection after events began": ((), EVENTS, 0.0, True),
}


@pytest.mark.parametrize(("lines", "said", "delay", "waits"), rows(GONE, *GONE))
def test_who_half_closes_otherwise_is_gone(
    laned: Proxy, lines: tuple[str, ...], said: bytes, delay: float, waits: bool
) -> None:
    """Nothing else tells of that, and a stream of events has no end of its own."""
    with held(said, delay) as (authority, gone), Raw(laned.port) as client:
        client.send(message("GET", f"http://{authority}/", f"Host: {authority}", *lines))
        if waits:
            client.until(b"data: 1\n\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert gone.wait(3), "the upstream is still held"


@pytest.mark.parametrize("reset", rows({"closes": False, "resets": True}, "closes"))
def test_who_leaves_a_stream_of_events_lets_its_upstream_go(laned: Proxy, reset: bool) -> None:
    with held(EVENTS) as (authority, gone):
        with Raw(laned.port) as client:
            client.send(message("GET", f"http://{authority}/", f"Host: {authority}", "Accept: text/event-stream"))
            client.until(b"data: 1\n\n")
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert gone.wait(3), "the upstream is still held"
