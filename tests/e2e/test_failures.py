"""Whatever goes wrong, no request leaves unsigned, the client is told, and the proxy lives on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import httpx
import pytest
import websockets.sync.client
import websockets.sync.server

from tests.support import verifiers
from tests.support.clients import Http2, Raw, Reply, client_context, curl, message, pseudo
from tests.support.harness import MIB, Proxy, StartProxy, rows, thorough, verify
from tests.support.upstreams import Answer, Authority, Exchange, Recorder, chunked, raw, reset, respond, silent

CONNECT_TIMEOUT = 0.5
RESPONSE_TIMEOUT = 0.6
IMPATIENT = [
    *("--set", f"jwt_connect_timeout={CONNECT_TIMEOUT}"),
    *("--set", f"jwt_response_timeout={RESPONSE_TIMEOUT}"),
]
SLACK = 3.0
"""Seconds that a busy machine may take on top of a time-out."""

LARGE = 2 * MIB
CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"


def get(url: str, *fields: str) -> bytes:
    """A GET in the form for proxies."""
    return message("GET", url, f"Host: {httpx.URL(url).netloc.decode()}", *fields)


def post(url: str, *fields: str) -> bytes:
    """A small POST."""
    return message("POST", url, f"Host: {httpx.URL(url).netloc.decode()}", "Content-Length: 5", *fields, body=b"small")


def post_sized(url: str, *fields: str) -> bytes:
    """A POST that is long enough to be streamed."""
    return message(
        "POST", url, f"Host: {httpx.URL(url).netloc.decode()}", f"Content-Length: {LARGE}", *fields, body=bytes(LARGE)
    )


def post_chunked(url: str, *fields: str) -> bytes:
    """A POST that is streamed because its length is unknown."""
    body = CHUNK * (LARGE // 0x10000) + b"0\r\n\r\n"
    return message(
        "POST", url, f"Host: {httpx.URL(url).netloc.decode()}", "Transfer-Encoding: chunked", *fields, body=body
    )


REQUESTS = [get, post, post_sized, post_chunked]
each_request = pytest.mark.parametrize("request_for", REQUESTS, ids=lambda make: make.__name__)
without_and_with_body = pytest.mark.parametrize(
    "request_for", rows({make.__name__: make for make in REQUESTS}, "get", "post_chunked")
)
"""For what takes its time: one that leaves as a whole, and one that is streamed."""
MakeRequest = Callable[..., bytes]


def one_each(names: Iterable[str]) -> list[str]:
    """Of names that come four by four, one for each kind of request: one of each four, in turn another."""
    return [name for index, name in enumerate(names) if index % 4 == index // 4 % 4]


def exchange(client: Raw, data: bytes) -> Reply:
    """Send a request while reading: an early answer may come, and the connection end, before all is sent."""

    def send() -> None:
        with contextlib.suppress(OSError):
            client.socket.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return client.reply("HEAD" if data.startswith(b"HEAD") else "GET")
    finally:
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_RDWR)
        sender.join()


def works(proxy: Proxy) -> None:
    """An ordinary request is forwarded and signed."""
    with Recorder() as upstream, Raw(proxy.port) as client:
        assert client.request(get(f"{upstream.url}/")).body == b"ok"
        assert verify(upstream.only().token)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Proxy]:
    """A proxy that waits neither long for a connection nor for an answer."""
    trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.pem}")
    with Proxy(*trust, *IMPATIENT, cwd=tmp_path_factory.mktemp("impatient"), confdir=confdir) as process:
        yield process
        process.stop()
        assert "Traceback" not in process.output, process.output


@pytest.fixture
def impatient(shared: Proxy) -> Iterator[Proxy]:
    """The same, which must still work after the test."""
    yield shared
    works(shared)


# --- a signer that fails


@pytest.fixture(scope="module")
def unable(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Proxy]:
    """A proxy whose signer always fails."""
    folder = tmp_path_factory.mktemp("unable")
    (folder / "broken.py").write_text(
        "from jwtproxy.tokens.signing import Signer\n"
        "def sign(self, claims):\n"
        "    raise RuntimeError(f'told with the key: {self._key.hex()}')\n"
        "Signer.sign = sign\n"
    )
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    with Proxy("--set", trust, "-s", "broken.py", cwd=folder, confdir=confdir) as process:
        yield process
        assert process.running
        process.stop()
        assert "Traceback" not in process.output, process.output
        assert "told with the key" not in process.output, process.output


def refusal(reply: Reply) -> None:
    """The answer that says: not signed, not forwarded; and no more."""
    assert reply.status == 502
    assert reply.body.startswith(b"jwtproxy: ")
    assert reply.body.count(b"\n") <= 1
    assert b"key" not in reply.body
    assert b"RuntimeError" not in reply.body


@each_request
def test_what_cannot_be_signed_does_not_leave(unable: Proxy, recorder: Recorder, request_for: MakeRequest) -> None:
    """502, and not a byte reached the upstream."""
    with Raw(unable.port) as client:
        refusal(exchange(client, request_for(f"{recorder.url}/", "X-My-Jwt: forged")))
    time.sleep(0.05)
    assert (recorder.requests, recorder.bytes_received) == ([], 0)


def test_what_cannot_be_signed_does_not_leave_a_kept_connection(unable: Proxy, recorder: Recorder) -> None:
    """One refusal after another on one connection; own pages in between are served."""
    with Raw(unable.port) as client:
        for _ in range(3):
            refusal(client.request(get(f"{recorder.url}/")))
            assert client.request(message("GET", "/status", "Host: x")).status == 200
    assert recorder.bytes_received == 0


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_curl_sees_the_refusal_of_an_upload(unable: Proxy, recorder: Recorder, tmp_path: Path, framing: str) -> None:
    """A real client that streams gets the 502."""
    (tmp_path / "body").write_bytes(bytes(8 * MIB))
    fields = ["-H", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    assert upload(unable, recorder, tmp_path / "body", *fields) == b"502"
    assert recorder.bytes_received == 0


@each_request
def test_what_cannot_be_signed_does_not_leave_a_tunnel(
    unable: Proxy, https_recorder: Recorder, proxy_ca: Path, request_for: MakeRequest
) -> None:
    """The same inside of CONNECT, over HTTP/1.1."""
    with Raw(unable.port) as client:
        client.secure_tunnel(https_recorder.authority, proxy_ca)
        data = request_for(f"https://{https_recorder.authority}/").replace(
            f"https://{https_recorder.authority}/".encode(), b"/", 1
        )
        if request_for is get or request_for is post:
            refusal(client.request(data))
        else:
            with contextlib.suppress(OSError):  # the answer may come, and the connection end, before all is sent
                client.send(data)
            refusal(client.reply())
    assert (https_recorder.requests, https_recorder.bytes_received) == ([], 0)


def test_what_cannot_be_signed_does_not_leave_over_http_2(unable: Proxy, h2_recorder: Recorder, proxy_ca: Path) -> None:
    """Each stream is refused; the connection goes on."""
    with Raw(unable.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        first = two.send(pseudo("GET", h2_recorder.authority, "/"))
        second = two.send(pseudo("POST", h2_recorder.authority, "/"), body=b"x" * 1000)
        refusal(two.reply(first))
        refusal(two.reply(second))
        refusal(two.reply(two.send(pseudo("GET", h2_recorder.authority, "/"))))
    assert h2_recorder.requests == []


def test_a_websocket_that_cannot_be_signed_does_not_open(unable: Proxy, recorder: Recorder) -> None:
    """The handshake is a request like any other."""
    fields = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    with Raw(unable.port) as client:
        refusal(client.request(get(f"{recorder.url}/", *fields)))
    assert recorder.bytes_received == 0


# --- users' scripts

# Each path is one thing a script may do. The first script leaves bodies streamed, the second has them gathered.
HEADERS_SCRIPT = """
from mitmproxy.exceptions import AddonHalt

def requestheaders(flow):
    match flow.request.path:
        case "/halt": raise AddonHalt
        case "/raise": raise RuntimeError("by design")
        case "/forge": flow.request.headers["x-my-jwt"] = "forged"
        case "/forge-many":
            flow.request.headers.set_all("X-MY-JWT", ["forged", "forged too"])
            flow.request.headers.add("x_my_jwt", "forged as well")
        case "/stream": flow.request.stream = True
        case "/stream-through": flow.request.stream = lambda piece: piece
        case "/stream-and-halt":
            flow.request.stream = True
            raise AddonHalt
        case "/connection": flow.request.headers["connection"] = "x-my-jwt"
        case "/elsewhere": flow.request.host = "localhost"
"""
REQUEST_SCRIPT = """
from mitmproxy.exceptions import AddonHalt

def request(flow):
    match flow.request.path:
        case "/halt": raise AddonHalt
        case "/raise": raise RuntimeError("by design")
        case "/forge": flow.request.headers["x-my-jwt"] = "forged"
        case "/forge-many":
            flow.request.headers.set_all("X-MY-JWT", ["forged", "forged too"])
            flow.request.headers.add("x_my_jwt", "forged as well")
        case "/remove": flow.request.headers.pop("x-my-jwt", None)
        case "/clear": flow.request.headers.clear()
        case "/replace":
            from mitmproxy.http import Headers
            flow.request.headers = Headers([(b"host", flow.request.headers["host"].encode())])
        case "/elsewhere": flow.request.host = "localhost"
        case "/remove-and-halt":
            flow.request.headers.pop("x-my-jwt", None)
            raise AddonHalt
"""
SCRIPTS = {"requestheaders": HEADERS_SCRIPT, "request": REQUEST_SCRIPT}
PATHS = [(hook, path) for hook, text in SCRIPTS.items() for path in text.split('"') if path.startswith("/")]
KINDS = {f"{hook}-{path}-{kind.__name__}": (hook, path, kind) for hook, path in PATHS for kind in REQUESTS}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[Callable[[str], Proxy]]:
    """A proxy for each of the scripts, started when first asked for."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Proxy] = {}

        def start(hook: str) -> Proxy:
            if hook not in started:
                folder = tmp_path_factory.mktemp(hook)
                (folder / "mine.py").write_text(SCRIPTS[hook])
                started[hook] = stack.enter_context(Proxy("-s", "mine.py", cwd=folder, confdir=confdir))
            return started[hook]

        yield start


@pytest.mark.parametrize(("hook", "path", "request_for"), rows(KINDS, *one_each(KINDS)))
def test_no_script_makes_a_request_leave_unsigned(
    scripted: Callable[[str], Proxy], recorder: Recorder, hook: str, path: str, request_for: MakeRequest
) -> None:
    """Whatever a script does, one valid token arrives, or nothing."""
    with Raw(scripted(hook).port) as client:
        reply = exchange(client, request_for(recorder.url + path, "X-My-Jwt: from the client"))
    for seen in recorder.requests:
        names = [name.decode().lower().replace("_", "-") for name, _ in seen.fields]
        assert names.count("x-my-jwt") == 1, seen.fields
        assert verify(seen.token)
        assert "x-my-jwt" not in "".join(seen.values("connection"))
    assert (reply.status, len(recorder.requests)) in ((200, 1), (502, 0))


# --- upstreams that fail


@pytest.fixture
def closed() -> Iterator[str]:
    """A URL where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def mute() -> Iterator[str]:
    """An authority where connections are accepted by the kernel and nothing more ever happens."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@each_request
def test_a_refused_connection_gives_502(impatient: Proxy, closed: str, request_for: MakeRequest) -> None:
    """Nobody listens there."""
    with Raw(impatient.port) as client:
        assert exchange(client, request_for(f"{closed}/")).status == 502


def test_a_refused_connection_gives_502_to_curl(impatient: Proxy, closed: str) -> None:
    """As a person sees it."""
    assert curl("-o", "/dev/null", "-w", "%{http_code}", closed, proxy=impatient.url).stdout == b"502"


NO_UPSTREAM, NO_NAME = {502}, {400, 502}


@pytest.mark.parametrize(
    ("host", "statuses"),
    [
        ("nonexistent.invalid", NO_UPSTREAM),
        ("256.256.256.256", NO_UPSTREAM),
        ("-.invalid", NO_UPSTREAM),
        ("a..b", NO_NAME),
        ("x" * 64 + ".invalid", NO_NAME),
        ("xn--.invalid", NO_NAME),
        ("[::ffff]", NO_NAME),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(impatient: Proxy, host: str, statuses: set[int]) -> None:
    """In bounded time, whatever the resolver thinks of the name."""
    began = time.monotonic()
    with Raw(impatient.port) as client:
        assert client.request(message("GET", f"http://{host}/", f"Host: {host}")).status in statuses
    assert time.monotonic() - began < CONNECT_TIMEOUT + SLACK


NONSENSE = {
    "reset": reset(),
    "reset-in-head": reset(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "closed": raw(b""),
    "closed-in-head": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "greeting": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "binary": raw(b"\x00\xff\x16\x03" * 100 + b"\r\n\r\n"),
    "bad-length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    "bad-field": raw(b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n"),
}
BROKEN = {f"{name}-{kind.__name__}": (answer, kind) for name, answer in NONSENSE.items() for kind in REQUESTS}
# Each kind of request once with a reset, and each answer with some kind.
FEW = {*list(BROKEN)[:4], *one_each(BROKEN)}


@pytest.mark.parametrize(("answer", "request_for"), rows(BROKEN, *FEW))
def test_an_upstream_that_breaks_off_or_talks_nonsense_gives_502(
    impatient: Proxy, recorder: Recorder, answer: Answer, request_for: MakeRequest
) -> None:
    """No whole answer head: 502."""
    recorder.route("/", answer)
    with Raw(impatient.port) as client:
        assert exchange(client, request_for(f"{recorder.url}/")).status == 502
    assert verify(recorder.only().token)


@pytest.mark.parametrize("request_for", [post_sized, post_chunked], ids=["sized", "chunked"])
def test_an_upstream_that_resets_in_the_middle_of_an_upload_gives_502(
    impatient: Proxy, recorder: Recorder, request_for: MakeRequest
) -> None:
    """The client learns of it although it is still sending."""
    recorder.route("/", reset(), before_body=True)
    with Raw(impatient.port) as client:
        assert exchange(client, request_for(f"{recorder.url}/")).status == 502


@pytest.mark.parametrize(
    "answer",
    [
        reset(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        reset(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"),
    ],
    ids="reset-sized closed-sized reset-chunked closed-chunked bad-chunk".split(),
)
def test_half_an_answer_does_not_look_whole(impatient: Proxy, recorder: Recorder, answer: Answer) -> None:
    """When the upstream breaks off after the head the client's connection breaks off too."""
    recorder.route("/", answer)
    with Raw(impatient.port) as client:
        client.send(get(f"{recorder.url}/"))
        assert client.head().status in (200, 502)
        rest = client.rest()
    assert len(rest) < 10 or not rest.endswith(b"0\r\n\r\n")


def test_only_who_cannot_be_reached_is_said_to_be_so(start_proxy: StartProxy, recorder: Recorder, closed: str) -> None:
    """At the terminal, and to the client; not of who takes the connection and breaks off, in its head or later."""
    recorder.route("/head", reset(b"HTTP/1.1 200 OK\r\nContent-Le"))
    recorder.route("/body", reset(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
    proxy, words = start_proxy(*IMPATIENT), "cannot connect to "
    for url, unreachable in ((f"{closed}/", True), (f"{recorder.url}/head", False), (f"{recorder.url}/body", False)):
        with Raw(proxy.port) as client:
            client.send(get(url))
            answer = client.rest()
        line = proxy.wait_for_output(rf"GET {url} (.+)")[1]
        assert (words in line) == unreachable, line
        assert (words.encode() in answer) == unreachable, answer


def test_a_client_that_goes_away_leaves_nothing_behind(impatient: Proxy, recorder: Recorder) -> None:
    """In the middle of an upload, while waiting, and in the middle of a download."""
    recorder.route("/silent", silent())
    recorder.route("/endless", chunked(*[bytes(65536)] * 10_000))
    before = impatient.fds()
    for data in (post_sized(f"{recorder.url}/")[:MIB], get(f"{recorder.url}/silent"), get(f"{recorder.url}/endless")):
        with Raw(impatient.port) as client:
            client.send(data)
            recorder.wait_head(len(recorder.requests) or 1)
    settle(impatient, before)


def settle(proxy: Proxy, before: int, timeout: float = 10) -> None:
    """Wait until the proxy has no more open files than before."""
    deadline = time.monotonic() + timeout
    while (now := proxy.fds()) > before:
        assert time.monotonic() < deadline, f"{now} descriptors, {before} before"
        time.sleep(0.05)


# --- upstreams that say nothing


def in_time(began: float, limit: float) -> None:
    """The answer came after the time-out, and soon after."""
    assert limit - 0.1 < time.monotonic() - began < limit + SLACK


@without_and_with_body
def test_a_silent_upstream_gives_504(impatient: Proxy, recorder: Recorder, request_for: MakeRequest) -> None:
    """No answer within jwt_response_timeout of the last byte of the request."""
    recorder.route("/", silent())
    with Raw(impatient.port) as client:
        data = request_for(f"{recorder.url}/")
        client.send(data)
        began = time.monotonic()
        reply = client.reply()
        in_time(began, RESPONSE_TIMEOUT)
    assert (reply.status, reply.body[:10]) == (504, b"jwtproxy: ")
    assert recorder.only().size == len(data.partition(b"\r\n\r\n")[2]) or request_for is post_chunked


def test_a_silent_upstream_gives_504_to_a_later_request(impatient: Proxy, recorder: Recorder) -> None:
    """The clock is each request's own, on a kept connection too, which goes on afterwards."""
    recorder.route("/silent", silent())
    with Raw(impatient.port) as client:
        for pause in (RESPONSE_TIMEOUT / 3, 0):
            for _ in range(2):
                assert client.request(get(f"{recorder.url}/")).status == 200
                time.sleep(pause)
            began = time.monotonic()
            assert client.request(get(f"{recorder.url}/silent")).status == 504
            in_time(began, RESPONSE_TIMEOUT)
        assert client.request(get(f"{recorder.url}/")).body == b"ok"


def test_an_idle_connection_is_not_timed(impatient: Proxy, recorder: Recorder) -> None:
    """Between requests nobody waits for an answer."""
    with Raw(impatient.port) as client:
        assert client.request(get(f"{recorder.url}/")).body == b"ok"
        time.sleep(RESPONSE_TIMEOUT + 0.5)
        assert client.request(get(f"{recorder.url}/")).body == b"ok"


def test_a_slow_upload_is_not_timed(impatient: Proxy, recorder: Recorder) -> None:
    """The clock starts with the last byte of the request."""
    with Raw(impatient.port) as client:
        client.send(message("POST", f"{recorder.url}/", f"Host: {recorder.authority}", "Transfer-Encoding: chunked"))
        for _ in range(4):
            client.send(CHUNK)
            time.sleep(RESPONSE_TIMEOUT / 2.5)
        client.send(b"0\r\n\r\n")
        assert client.reply().body == b"ok"


def test_a_slow_answer_is_not_timed(impatient: Proxy, recorder: Recorder) -> None:
    """The clock stops with the head of the answer."""

    async def slow(exchange: Exchange) -> None:
        await exchange.start(200)
        for _ in range(4):
            await exchange.write(b"tick ")
            await asyncio.sleep(RESPONSE_TIMEOUT / 2.5)
        await exchange.end()

    recorder.route("/", slow)
    with Raw(impatient.port) as client:
        assert client.request(get(f"{recorder.url}/")).body == b"tick " * 4


def test_a_websocket_is_not_timed(impatient: Proxy) -> None:
    """An idle WebSocket stays open."""

    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        for text in connection:
            connection.send(text)

    with websockets.sync.server.serve(echo, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/", proxy=impatient.url) as client:
            for text in ("before", "after"):
                client.send(text)
                assert client.recv(5) == text
                time.sleep(RESPONSE_TIMEOUT + 0.3 if text == "before" else 0)


def test_a_silent_https_upstream_gives_504(impatient: Proxy, https_recorder: Recorder, proxy_ca: Path) -> None:
    """The same in a tunnel, for the second request too."""
    https_recorder.route("/silent", silent())
    with Raw(impatient.port) as client:
        client.secure_tunnel(https_recorder.authority, proxy_ca)
        host = f"Host: {https_recorder.authority}"
        assert client.request(message("GET", "/", host)).body == b"ok"
        began = time.monotonic()
        assert client.request(message("POST", "/silent", host, "Content-Length: 1", body=b"x")).status == 504
        in_time(began, RESPONSE_TIMEOUT)
        assert client.request(message("GET", "/", host)).body == b"ok"


class Alarmed:
    """An upstream's side of a connection in TLS, which it ends with a fatal alert at a request, if not before."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._came, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._came, self._leaving, server_side=True)

    def serve(self) -> None:
        """Do all that there is to be done."""
        with self._connection, contextlib.suppress(OSError):
            self._connection.settimeout(10)
            with contextlib.suppress(ssl.SSLError):
                self._await(self._session.do_handshake)
                self._await(self._session.read)
                self._came.write(b"\x17\x03\x03\0\x20" + bytes(32))  # encrypted by nobody
                self._await(self._session.read)
            self._connection.sendall(self._leaving.read())
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(1 << 16):
                pass  # what is left unread would make the end a reset

    def _await(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
                return
            except ssl.SSLWantReadError:
                self._connection.sendall(self._leaving.read())
                self._came.write(self._connection.recv(1 << 16))


@contextlib.contextmanager
def alarming(authority: Authority, *, at_once: bool) -> Iterator[str]:
    """Such an upstream's authority. `at_once`: it wants a client's certificate, and there is none.

    Of that a client hears in TLS 1.3 when it is through with the handshake (RFC 8446 §4.4.2.4).
    """
    context = authority.server_context()
    if at_once:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(str(authority.pem))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=Alarmed(server.accept()[0], context).serve, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("at_once", [True, pytest.param(False, marks=thorough)], ids=["at-once", "with-an-answer-due"])
@pytest.mark.parametrize("way", ["absolute", "tunnel"])
def test_an_upstream_that_ends_tls_with_an_alert_gives_502(
    impatient: Proxy, authority: Authority, proxy_ca: Path, way: str, at_once: bool
) -> None:
    """Nobody waits for an answer that cannot come."""
    with alarming(authority, at_once=at_once) as host, Raw(impatient.port) as client:
        if way == "tunnel":
            client.secure_tunnel(host, proxy_ca)
        target = "/" if way == "tunnel" else f"https://{host}/"
        assert client.request(message("GET", target, f"Host: {host}")).status == 502


def test_a_silent_http_2_stream_gives_504_and_its_siblings_live(
    impatient: Proxy, h2_recorder: Recorder, proxy_ca: Path
) -> None:
    """Two silent streams end; one that began before, and one that begins after, are served on the same connections."""

    async def slow(exchange: Exchange) -> None:
        await exchange.start(200)
        await exchange.write(b"begin ")
        await asyncio.sleep(RESPONSE_TIMEOUT * 1.5)
        await exchange.write(b"end")
        await exchange.end()

    h2_recorder.route("/silent", silent())
    h2_recorder.route("/slow", slow)
    name = h2_recorder.authority
    with Raw(impatient.port) as client:
        two = Http2(client.secure_tunnel(name, proxy_ca, "h2"))
        began = time.monotonic()
        slow_stream = two.send(pseudo("GET", name, "/slow"))
        first = two.send(pseudo("GET", name, "/silent"))
        second = two.send(pseudo("POST", name, "/silent"), body=b"body")
        assert two.reply(first).status == 504
        in_time(began, RESPONSE_TIMEOUT)
        assert two.reply(second).status == 504
        assert two.reply(two.send(pseudo("GET", name, "/"))).body == b"ok"
        assert two.reply(slow_stream).body == b"begin end"
    assert {seen.connection for seen in h2_recorder.requests} == {1}


@without_and_with_body
def test_no_connection_in_time_gives_502(impatient: Proxy, deaf: str, request_for: MakeRequest) -> None:
    """The upstream's host does not answer the attempt to connect."""
    began = time.monotonic()
    with Raw(impatient.port) as client:
        assert exchange(client, request_for(f"{deaf}/")).status == 502
    in_time(began, CONNECT_TIMEOUT)


def test_many_attempts_to_connect_all_end_in_time(impatient: Proxy, deaf: str) -> None:
    """Those that wait for their turn end as well."""
    clients = [Raw(impatient.port) for _ in range(10)]
    for client in clients:
        client.send(get(f"{deaf}/"))
    assert [client.reply().status for client in clients] == [502] * 10
    for client in clients:
        client.close()


def test_a_tunnel_that_cannot_be_is_refused_in_our_words(proxy: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = "127.0.0.1:{1}".format(*closed.getsockname())
    with Raw(proxy.port) as client:
        reply = client.request(message("CONNECT", place, f"Host: {place}"), "GET")  # its answer has a body
    assert (reply.status, reply.values("server"), len(reply.values("date"))) == (502, ["jwtproxy"], 1)
    assert reply.body == f"jwtproxy: cannot connect to {place}: connection refused\n".encode()


def test_a_tunnel_to_a_deaf_upstream_ends_in_time(impatient: Proxy, deaf: str) -> None:
    """CONNECT is answered within the time-out, with 502 or with a tunnel whose requests get 502."""
    authority = deaf.removeprefix("http://")
    began = time.monotonic()
    with Raw(impatient.port) as client:
        assert client.request(message("CONNECT", authority, f"Host: {authority}"), "CONNECT").status in (200, 502)
    assert time.monotonic() - began < CONNECT_TIMEOUT + SLACK


def test_a_handshake_that_never_ends_gives_502(impatient: Proxy, mute: str) -> None:
    """TCP is there, TLS is not: asked in absolute form."""
    began = time.monotonic()
    with Raw(impatient.port) as client:
        assert client.request(get(f"https://{mute}/")).status == 502
    assert time.monotonic() - began < 2 * CONNECT_TIMEOUT + SLACK


def test_a_handshake_that_never_ends_gives_502_in_a_tunnel(impatient: Proxy, mute: str, proxy_ca: Path) -> None:
    """TCP is there, TLS is not: asked through CONNECT, the client gets its TLS and then 502, or 502 at once."""
    began = time.monotonic()
    with Raw(impatient.port) as client:
        reply = client.request(message("CONNECT", mute, f"Host: {mute}"), "CONNECT")
        if reply.status == 200:
            client.start_tls(ssl.create_default_context(cafile=str(proxy_ca)))
            reply = client.request(message("GET", "/", f"Host: {mute}"))
    assert reply.status == 502
    assert time.monotonic() - began < 2 * CONNECT_TIMEOUT + SLACK


@pytest.mark.parametrize("kind", ["closed", "mute", pytest.param("reset", marks=thorough)])
def test_a_reverse_proxy_says_502_and_504(
    start_proxy: StartProxy, closed: str, mute: str, recorder: Recorder, kind: str
) -> None:
    """In front of one server the failures are the same."""
    recorder.route("/", reset())
    upstream = {"closed": closed, "mute": f"http://{mute}", "reset": recorder.url}[kind]
    timeouts = ["--set", "jwt_response_timeout=0.5", "--set", "jwt_connect_timeout=0.5"]
    proxy = start_proxy("--mode", f"reverse:{upstream}", *timeouts)
    with Raw(proxy.port, timeout=5) as client:
        assert client.request(message("GET", "/", "Host: x")).status == (504 if kind == "mute" else 502)


@pytest.mark.parametrize("strategy", ["lazy", "eager"])
@pytest.mark.parametrize("mode", ["tunnel", "reverse"])
def test_an_upstream_that_was_down_is_tried_again_over_http_2(
    start_proxy: StartProxy, proxy_ca: Path, authority: Authority, mode: str, strategy: str
) -> None:
    """A client may keep its connection for days."""
    port = verifiers.free_port()
    name = f"127.0.0.1:{port}"
    modes = ("--mode", f"reverse:https://{name}") if mode == "reverse" else ()
    proxy = start_proxy("--set", f"connection_strategy={strategy}", *modes)

    def upstream() -> Recorder:
        return Recorder(authority=authority, alpn=("h2",), port=port)

    with Raw(proxy.port, timeout=5) as client:
        with upstream() if strategy == "eager" else contextlib.nullcontext():
            if mode == "tunnel":
                client.tunnel(name)
            two = Http2(client.start_tls(client_context(proxy_ca, "h2")))
        for _ in range(2):
            assert two.reply(two.send(pseudo("GET", name, "/"))).status == 502
        with upstream() as recorder:
            assert two.reply(two.send(pseudo("GET", name, "/"))).status == 200
            assert two.reply(two.send(pseudo("POST", name, "/"), body=b"body")).status == 200
        assert {seen.connection for seen in recorder.requests} == {1}


# --- refused uploads


def upload(proxy: Proxy, recorder: Recorder, body: Path, *fields: str) -> bytes:
    """PUT a file with curl; the status it sees, whatever else it thinks of the end of the connection."""
    args = [
        "-q",
        "-s",
        "-T",
        str(body),
        "-H",
        "Expect:",
        *fields,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--max-time",
        "10",
    ]
    command = ["curl", *args, "--proxy", proxy.url, f"{recorder.url}/"]
    return subprocess.run(command, stdout=subprocess.PIPE, timeout=15, check=False).stdout


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[Proxy]:
    """A proxy that wants a password."""
    folder = tmp_path_factory.mktemp("guarded")
    with Proxy("--proxyauth", "me:pass", cwd=folder, confdir=confdir) as process:
        yield process
        assert process.running
        process.stop()
        assert "Traceback" not in process.output, process.output


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_an_upload_without_a_password_gives_407(
    guarded: Proxy, recorder: Recorder, tmp_path: Path, framing: str
) -> None:
    """8 MiB are refused at once; with the password they pass, signed, and the password stays here."""
    (tmp_path / "body").write_bytes(bytes(8 * MIB))
    fields = ["-H", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    assert upload(guarded, recorder, tmp_path / "body", *fields) == b"407"
    assert recorder.bytes_received == 0
    assert upload(guarded, recorder, tmp_path / "body", *fields, "--proxy-user", "me:pass") == b"200"
    assert recorder.only().size == 8 * MIB
    assert verify(recorder.only().token)
    assert recorder.only().values("proxy-authorization") == []


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_an_upload_without_a_password_gives_407_to_a_client_that_reads_late(
    guarded: Proxy, recorder: Recorder, framing: str
) -> None:
    """Many clients read only when they have sent all; their connection is not torn down meanwhile."""
    length = f"Content-Length: {8 * MIB}" if framing == "sized" else "Transfer-Encoding: chunked"
    body = bytes(8 * MIB) if framing == "sized" else CHUNK * 128 + b"0\r\n\r\n"
    with Raw(guarded.port) as client:
        client.send(message("PUT", f"{recorder.url}/", f"Host: {recorder.authority}", length))
        client.send(body)
        assert client.reply().status == 407
    assert recorder.bytes_received == 0


def test_a_password_opens_tunnels_only_to_those_who_have_it(guarded: Proxy, recorder: Recorder) -> None:
    """CONNECT asks for it as well."""
    fields = [f"Host: {recorder.authority}", f"Proxy-Authorization: Basic {base64.b64encode(b'me:wrong').decode()}"]
    with Raw(guarded.port) as client:
        assert client.request(message("CONNECT", recorder.authority, *fields), "CONNECT").status == 407
    assert recorder.connections == 0


# --- many


@pytest.mark.parametrize("number", [400, pytest.param(2000, marks=thorough)])
def test_many_failures_leave_nothing_behind(
    start_proxy: StartProxy, recorder: Recorder, closed: str, number: int
) -> None:
    """Refusals, resets, nonsense, silence and clients that leave: afterwards no descriptor more is open than before."""
    impatient = start_proxy(*IMPATIENT)
    recorder.route("/reset", reset())
    recorder.route("/half", reset(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
    recorder.route("/nonsense", raw(b"nonsense\r\n\r\n"))
    recorder.route("/silent", silent())
    own = f"http://127.0.0.1:{impatient.port}"
    kinds: list[tuple[str, bytes, int, set[int]]] = [
        ("refused", get(f"{closed}/"), 500, {502}),
        ("reset", post(f"{recorder.url}/reset"), 400, {502}),
        ("nonsense", get(f"{recorder.url}/nonsense"), 200, {502}),
        ("half", get(f"{recorder.url}/half"), 200, {200, 502}),
        ("unresolvable", get("http://nonexistent.invalid/"), 100, {502}),
        ("silent", get(f"{recorder.url}/silent"), 100, {504}),
        ("own", message("POST", "/status", "Host: x", f"Content-Length: {MIB}"), 200, {405}),
        ("self", message("CONNECT", own[7:], f"Host: {own[7:]}"), 100, {403}),
        ("unfinished", post_sized(f"{recorder.url}/")[:100_000], 100, set()),
        ("garbage", b"\x00nonsense\r\n\r\n", 100, {400}),
    ]
    kinds = [(name, data, share * number // 2000, codes) for name, data, share, codes in kinds]
    assert sum(share for _, _, share, _ in kinds) == number
    works(impatient)
    before = impatient.fds()
    statuses: dict[str, Counter[int]] = {name: Counter() for name, *_ in kinds}

    async def fail(name: str, data: bytes, expected: set[int], limit: asyncio.Semaphore) -> None:
        async with limit, asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                if expected:
                    line = await reader.readline()
                    statuses[name][int(line.split()[1])] += 1
            writer.transport.abort()

    async def all_of_them() -> None:
        limit, patience = asyncio.Semaphore(30), asyncio.Semaphore(50)
        await asyncio.gather(
            *(
                fail(name, data, codes, patience if name == "silent" else limit)
                for name, data, share, codes in kinds
                for _ in range(share)
            )
        )

    asyncio.run(all_of_them())
    for name, _, share, codes in kinds:
        assert set(statuses[name]) <= codes, statuses
        assert statuses[name].total() == (share if codes else 0), statuses
    settle(impatient, before)
    for seen in recorder.requests:
        assert seen.token
    works(impatient)
    impatient.stop()
    assert "Traceback" not in impatient.output, impatient.output


def test_an_answer_in_pieces_is_no_failure(impatient: Proxy, recorder: Recorder) -> None:
    """An upstream that takes its time, within the limits, is fine."""

    async def dribble(exchange: Exchange) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
            exchange.writer.write(bytes([byte]))
            await exchange.writer.drain()
            await asyncio.sleep(0.005)

    recorder.route("/", dribble)
    recorder.route("/ok", respond(200, body=b"fine"))
    with Raw(impatient.port) as client:
        assert client.request(get(f"{recorder.url}/")).body == b"ok"
        assert client.request(get(f"{recorder.url}/ok")).body == b"fine"
