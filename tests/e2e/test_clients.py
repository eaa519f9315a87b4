"""What clients met with at proxies, each with the client that met it.

In the order of RFC 9112 and RFC 9110: requests, answers, empty lines, interim responses, answers without a body, what
stays on one connection, and what becomes of a message between HTTP/2 and HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tests.support.clients import client_context, curl
from tests.support.harness import MIB, REPO, Proxy, StartProxy, rows, thorough, verify
from tests.support.upstreams import Authority, Exchange, Recorder, raw, reset, respond
from tests.support.verifiers import need

LOGIN = "user:pass"
CREDENTIALS = "Basic " + base64.b64encode(LOGIN.encode()).decode()
UPLOAD = ("-T", "large", "-H", "Expect: 100-continue", "--expect100-timeout", "20", "--max-time", "10")
HOP_BY_HOP = "connection keep-alive proxy-connection proxy-authorization te upgrade http2-settings".split()

# Sends strings in turn, and prints all that comes back, up to so many heads.
_SOCKET = """\
const [pieces, port, replies] = JSON.parse(process.argv[1]);
const socket = require('net').connect(port, '127.0.0.1', async () => {
  for (const piece of pieces) {
    socket.write(piece, 'latin1');
    await new Promise(resolve => setTimeout(resolve, 30));
  }
});
let received = '';
socket.setEncoding('latin1').setTimeout(5000, () => socket.destroy());
socket.on('data', data => {
  received += data;
  if (received.split('HTTP/1.1 ').length > replies) socket.end();
});
socket.on('close', () => process.stdout.write(received));
"""

# Node's own client, which has a strict parser: prints status and fields.
_HTTP = """\
const [url, port] = JSON.parse(process.argv[1]);
const headers = {Host: new URL(url).host};
require('http').request({host: '127.0.0.1', port, path: url, headers}, answer => {
  console.log(JSON.stringify([answer.statusCode, answer.headers]));
  answer.resume();
}).end();
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[Proxy]:
    """A proxy that wants a login."""
    with Proxy("--proxyauth", LOGIN, cwd=tmp_path_factory.mktemp("guarded"), confdir=confdir) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Proxy]:
    """A proxy that speaks one version with a client, and perhaps another with an upstream that it meets later."""
    sets = ("connection_strategy=lazy", f"ssl_verify_upstream_trusted_ca={authority.pem}")
    args = [part for option in sets for part in ("--set", option)]
    with Proxy(*args, cwd=tmp_path_factory.mktemp("lazy"), confdir=confdir) as proxy:
        yield proxy


# --- requests


def test_urllib_sends_a_fragment_with_the_url(proxy: Proxy, recorder: Recorder) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url}))
    with opener.open(f"{recorder.url}/page?q=1#/../part", timeout=10) as reply:
        assert reply.status == 200
    assert recorder.only().target == "/page?q=1"


def test_curl_sends_bytes_that_are_not_ascii(
    proxy: Proxy, proxy_ca: Path, recorder: Recorder, https_recorder: Recorder
) -> None:
    for upstream in (recorder, https_recorder):
        assert curl("--cacert", str(proxy_ca), f"{upstream.url}/?x=€", proxy=proxy.url).stdout == b"ok"
        assert upstream.only().target == "/?x=%E2%82%AC"


def test_curl_asks_for_the_options_of_a_whole_server(proxy: Proxy, recorder: Recorder) -> None:
    curl("-X", "OPTIONS", "--request-target", recorder.url, recorder.url, proxy=proxy.url)
    assert recorder.only().head.startswith(b"OPTIONS * HTTP/1.1\r\n")


def test_node_sends_a_higher_version(proxy: Proxy, recorder: Recorder) -> None:
    received = _node_socket(proxy, f"GET {recorder.url}/ HTTP/1.2\r\nHost: {recorder.authority}\r\n\r\n")
    assert received.startswith("HTTP/1.1 200 ")
    assert recorder.only().version == "1.1"


NONSENSE = {
    "method": "DELETE\x85 http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n",
    "target": "GET http://{0}/a b HTTP/1.1\r\nHost: {0}\r\n\r\n",
    "no host": "GET http://{0}/ HTTP/1.1\r\n\r\n",
    "underscore": "POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nContent_Length: 2\r\n\r\n{{}}",
    "chunk": "POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


@pytest.mark.parametrize("request_", rows(NONSENSE, "method", "no host", "chunk"))
def test_node_sends_nonsense_and_is_told_so(proxy: Proxy, recorder: Recorder, request_: str) -> None:
    assert _node_socket(proxy, request_.format(recorder.authority)).startswith("HTTP/1.1 400 ")
    assert not [seen for seen in recorder.requests if seen.complete]


# --- answers


UNREADABLE = {"CR": "X-A: a\rb", "NUL": "X-A: a\0b", "name": "X A: b", "length": "Content-Length: +2"}


@pytest.mark.parametrize("line", rows(UNREADABLE, "CR"))
def test_node_gets_no_answer_that_it_could_not_read(proxy: Proxy, recorder: Recorder, line: str) -> None:
    recorder.route("/", raw(f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n".encode()))
    assert _node_http(proxy, f"{recorder.url}/")[0] == 502


def test_node_gets_a_folded_value_on_one_line(proxy: Proxy, recorder: Recorder) -> None:
    recorder.route("/", raw(b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n"))
    status, fields = _node_http(proxy, f"{recorder.url}/")
    assert (status, fields["x-a"]) == (200, "a b")


def test_curl_gets_no_odd_value_by_http_2(lazy: Proxy, proxy_ca: Path, https_recorder: Recorder) -> None:
    https_recorder.route("/", raw(b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n"))
    said = curl("-i", "--http2", "--cacert", str(proxy_ca), f"{https_recorder.url}/", proxy=lazy.url).stdout
    assert re.findall(rb"HTTP/2 (\d+)", said) == [b"502"]


# --- empty lines


def test_node_begins_with_an_empty_line(proxy: Proxy, recorder: Recorder) -> None:
    request = f"GET {recorder.url}/ HTTP/1.1\r\nHost: {recorder.authority}\r\n\r\n"
    assert _node_socket(proxy, f"\r\n{request}").startswith("HTTP/1.1 200 ")
    assert _node_socket(proxy, "\r", "\n\r\n", request).startswith("HTTP/1.1 200 ")


def test_node_ends_a_body_with_an_empty_line(proxy: Proxy, recorder: Recorder) -> None:
    """As browsers of old did (RFC 9112 §2.2)."""
    post = f"POST {recorder.url}/ HTTP/1.1\r\nHost: {recorder.authority}\r\nContent-Length: 3\r\n\r\nabc\r\n"
    get = f"GET {recorder.url}/ HTTP/1.1\r\nHost: {recorder.authority}\r\n\r\n"
    assert _node_socket(proxy, post, get, replies=2).count("HTTP/1.1 200 ") == 2
    assert [(seen.method, seen.body) for seen in recorder.wait(2)] == [("POST", b"abc"), ("GET", b"")]


def test_http_client_gets_an_answer_after_an_empty_line(proxy: Proxy, recorder: Recorder) -> None:
    recorder.route("/", raw(b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    assert _http_client(proxy, "GET", f"{recorder.url}/").read() == b"ok"


# --- interim responses


def test_http_client_gets_no_early_hints_of_http_2(lazy: Proxy, proxy_ca: Path, h2_recorder: Recorder) -> None:
    """It takes a 103 for the final answer; curl, which speaks HTTP/2 itself, gets it."""

    async def hints(exchange: Exchange) -> None:
        await exchange.start(103, [("link", "</style.css>; rel=preload")])
        await respond(200, body=b"page")(exchange)

    h2_recorder.route("/", hints)
    said = curl("-i", "--http2", "--cacert", str(proxy_ca), f"{h2_recorder.url}/", proxy=lazy.url).stdout
    assert re.findall(rb"HTTP/2 (\d+)", said) == [b"103", b"200"]
    connection = http.client.HTTPSConnection(
        "127.0.0.1", lazy.port, timeout=10, context=client_context(proxy_ca, "http/1.1", "h2")
    )
    connection.set_tunnel("127.0.0.1", h2_recorder.port)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"page")
    assert [seen.version for seen in h2_recorder.wait(2)] == ["2", "2"]
    connection.close()


def test_curl_gets_interim_responses_up_to_a_limit(proxy: Proxy, recorder: Recorder) -> None:
    hint, final = b"HTTP/1.1 103 Early Hints\r\nX-Hint: yes\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    recorder.route("/some", raw(hint * 3 + final))
    recorder.route("/many", raw(hint * 1000 + final))
    assert curl("-i", f"{recorder.url}/some", proxy=proxy.url).stdout.count(hint) == 3
    assert hint not in curl("-i", "--http1.0", f"{recorder.url}/some", proxy=proxy.url).stdout
    assert _curl_status(proxy, f"{recorder.url}/many") == 502


def test_curl_uploads_nothing_that_the_upstream_refuses(proxy: Proxy, recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(8 * MIB))
    recorder.route("/refuses", respond(413), before_body=True)
    said = curl(*UPLOAD, recorder.url + "/refuses", "-w", "%{http_code} %{size_upload}", cwd=tmp_path, proxy=proxy.url)
    assert said.stdout == b"413 0"
    assert recorder.requests[0].size == 0


def test_curl_uploads_what_the_upstream_wants(proxy: Proxy, recorder: Recorder, tmp_path: Path) -> None:
    """The upstream's own 100 decides; a second later, with none, the proxy's."""
    (tmp_path / "large").write_bytes(bytes(8 * MIB))
    recorder.route("/says", _continues, before_body=True)
    for path in ("/says", "/says-nothing"):
        assert curl(*UPLOAD, f"{recorder.url}{path}", cwd=tmp_path, proxy=proxy.url).stdout == b"ok"
    assert [seen.size for seen in recorder.wait(2)] == [8 * MIB] * 2


def test_curl_uploads_by_http_1_0(proxy: Proxy, recorder: Recorder, tmp_path: Path) -> None:
    """A 100 would be the whole answer, to such a client."""
    (tmp_path / "large").write_bytes(bytes(8 * MIB))
    said = curl("--http1.0", "-i", *UPLOAD, f"{recorder.url}/", cwd=tmp_path, proxy=proxy.url).stdout
    assert said.startswith(b"HTTP/1.1 200 ")
    assert (recorder.only().size, recorder.only().values("expect")) == (8 * MIB, [])


@pytest.mark.parametrize("size", [3, 8 * MIB], ids=["gathered", "streamed"])
def test_http_client_waits_for_100(proxy: Proxy, recorder: Recorder, size: int) -> None:
    recorder.route("/", respond(413), before_body=True)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.putrequest("PUT", f"{recorder.url}/")
    connection.putheader("Content-Length", str(size))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    first = connection.sock.recv(1 << 16)
    connection.close()
    assert first.startswith(b"HTTP/1.1 100 " if size == 3 else b"HTTP/1.1 413 ")
    assert b"connection: close" in first.lower() or size == 3


# --- answers without a body


def test_http_client_asks_for_a_head_without_login(guarded: Proxy, recorder: Recorder) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
    for login, status in (({}, 407), ({"Proxy-Authorization": CREDENTIALS}, 200), ({}, 407)):
        connection.request("HEAD", f"{recorder.url}/", headers=login)
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.will_close) == (status, b"", False)
    connection.close()


def test_curl_finds_out_how_to_log_in(guarded: Proxy, proxy_ca: Path, recorder: Recorder) -> None:
    said = curl("-I", "--proxy-anyauth", "--proxy-user", LOGIN, f"{recorder.url}/", proxy=guarded.url).stdout
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"407", b"200"]
    assert recorder.only().method == "HEAD"


def test_curl_asks_for_the_head_of_an_error_by_http_2(proxy: Proxy, proxy_ca: Path, h2_recorder: Recorder) -> None:
    h2_recorder.route("/", reset())
    said = curl("-I", "--http2", "--cacert", str(proxy_ca), f"{h2_recorder.url}/", proxy=proxy.url).stdout
    assert re.findall(rb"HTTP/2 (\d+)", said) == [b"502"]


# --- hop by hop


def test_curl_names_its_login_to_the_proxy_alone(
    proxy: Proxy, guarded: Proxy, proxy_ca: Path, recorder: Recorder, https_recorder: Recorder
) -> None:
    login = ("--proxy-user", LOGIN, "--cacert", str(proxy_ca))
    curl(*login, f"{recorder.url}/", proxy=guarded.url)
    curl(*login, f"{recorder.url}/", proxy=proxy.url)  # which has not asked for it
    for upstream in (recorder, https_recorder):
        curl(*login, "-H", f"Proxy-Authorization: {CREDENTIALS}", f"{upstream.url}/", proxy=proxy.url)
    for seen in recorder.wait(3) + https_recorder.wait(1):
        assert not seen.values("proxy-authorization")


def test_curl_keeps_its_connection(proxy: Proxy, recorder: Recorder) -> None:
    """What an upstream says of its connection says nothing of the client's."""
    recorder.route("/closes", respond(200, ("Connection", "close"), ("Keep-Alive", "timeout=1")))
    url = f"{recorder.url}/closes"
    said = curl("-i", "-w", "\\n%{num_connects}\\n", url, url, f"{recorder.url}/", proxy=proxy.url).stdout.lower()
    assert re.findall(rb"^\d$", said, re.MULTILINE) == [b"1", b"0", b"0"]
    assert not re.findall(rb"^(?:connection|keep-alive):", said, re.MULTILINE)


def test_curl_meets_via_on_answers_alone(proxy: Proxy, recorder: Recorder) -> None:
    recorder.route("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    said = curl("-i", f"{recorder.url}/", proxy=proxy.url).stdout.decode()
    assert re.search(r"(?im)^via: 1\.1 jwtproxy-[0-9a-f]{8}\r$", said)
    assert re.search(r"(?im)^date: \w{3}, \d\d \w{3} \d{4} ", said)
    assert not recorder.only().values("via")


def test_curl_shows_the_proxy_its_own_via(proxy: Proxy, recorder: Recorder) -> None:
    found = re.search(rb"(?i)via: (.*)\r\n", curl("-i", f"{recorder.url}/", proxy=proxy.url).stdout)
    assert found
    said = curl("-i", "-H", f"Via: {found[1].decode()}", f"{recorder.url}/", proxy=proxy.url).stdout.lower()
    assert said.startswith(b"http/1.1 502 ")
    assert b"\r\nproxy-status: jwtproxy; error=proxy_loop_detected\r\n" in said
    assert b"\r\nserver: jwtproxy\r\n" in said
    assert len(recorder.requests) == 1


def test_curl_traces(proxy: Proxy, recorder: Recorder) -> None:
    """What comes back would show the token."""
    assert _curl_status(proxy, "-X", "TRACE", f"{recorder.url}/") == 405
    assert not recorder.requests


def test_curl_counts_hops(proxy: Proxy, recorder: Recorder) -> None:
    assert _curl_status(proxy, "-X", "OPTIONS", "-H", "Max-Forwards: 0", f"{recorder.url}/") == 200
    assert not recorder.requests
    assert _curl_status(proxy, "-X", "OPTIONS", "-H", "Max-Forwards: 7", f"{recorder.url}/") == 200
    assert recorder.only().values("max-forwards") == ["6"]


@pytest.mark.parametrize("value", ['"x-my-jwt"', pytest.param("content-length", marks=thorough)])
def test_curl_names_in_connection_what_must_arrive(proxy: Proxy, recorder: Recorder, value: str) -> None:
    assert _curl_status(proxy, "-H", f"Connection: {value}", f"{recorder.url}/") == 400
    assert not recorder.requests


def test_curl_logs_in_at_a_proxy_behind_the_proxy(start_proxy: StartProxy, guarded: Proxy, recorder: Recorder) -> None:
    first = start_proxy("--mode", f"upstream:{guarded.url}")
    login = ("--proxy-anyauth", "--proxy-user", LOGIN)
    said = curl("-i", *login, f"{recorder.url}/", proxy=first.url).stdout.decode()
    assert re.findall(r"HTTP/1.1 (\d+)", said) == ["407", "200"]
    assert len(set(re.findall(r"jwtproxy-\w{8}", said))) == 2
    assert verify(recorder.only().token)
    assert not recorder.only().values("proxy-authorization")
    assert re.fullmatch(r"1\.1 jwtproxy-\w{8}", ", ".join(recorder.only().values("via")))


# --- Java's two clients, which do all this by themselves


@pytest.mark.parametrize("client", ["HttpURLConnection", "HttpClient"])
def test_java(guarded: Proxy, recorder: Recorder, tmp_path: Path, client: str) -> None:
    """A login that is asked for by a 407 to HEAD, a URL without a path, and uploads that wait for a 100."""
    if not shutil.which("javac"):
        pytest.skip("no JDK is installed")
    recorder.route("/too-large", respond(413), before_body=True)
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    argv = ["java", *quick, str(REPO / "tests/support/Reported.java"), client, str(guarded.port), recorder.url]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["/head 200", "?query 200", "/small 200", "/too-large 413"], done.stderr
    assert [(seen.method, seen.target, seen.size) for seen in recorder.requests] == [
        ("HEAD", "/head", 0),
        ("GET", "/?query", 0),
        ("PUT", "/small", 10),
        ("PUT", "/too-large", 0),
    ]
    for seen in recorder.requests:
        assert verify(seen.token)
        assert not [name for name in HOP_BY_HOP if seen.values(name)]


# --- between HTTP/2 and HTTP/1.1


def test_curl_posts_nothing_by_http_2(lazy: Proxy, proxy_ca: Path, https_recorder: Recorder) -> None:
    said = curl(
        "-i", "--http2", "-X", "POST", "--cacert", str(proxy_ca), f"{https_recorder.url}/", proxy=lazy.url
    ).stdout
    assert re.findall(rb"HTTP/2 (\d+)", said) == [b"200"]
    assert (https_recorder.only().version, https_recorder.only().values("content-length")) == ("1.1", ["0"])


def test_httpx_sends_a_long_head_by_http_2(proxy: Proxy, proxy_ca: Path, h2_recorder: Recorder) -> None:
    """The refusal is on its stream: the connection goes on."""
    long = {f"x-{number}": "x" * 1000 for number in range(300)}
    with httpx.Client(http2=True, proxy=proxy.url, trust_env=False, verify=client_context(proxy_ca)) as client:
        answers = [client.get(f"{h2_recorder.url}/", headers=fields) for fields in ({}, long, {})]
        sockets = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers}
    assert [(answer.status_code, answer.http_version) for answer in answers] == [
        (200, "HTTP/2"),
        (431, "HTTP/2"),
        (200, "HTTP/2"),
    ]
    assert len(sockets) == 1


# --- HTTP/2 without TLS

REASON = "jwtproxy: HTTP/2 without TLS (h2c) is not supported: use TLS, or HTTP/1.1"


@pytest.mark.parametrize("way", ["tunnel", "reverse"])
def test_curl_begins_with_http_2(proxy: Proxy, start_proxy: StartProxy, recorder: Recorder, way: str) -> None:
    if b"HTTP2" not in subprocess.run(["curl", "-V"], capture_output=True, timeout=10).stdout:
        pytest.skip("curl has no HTTP/2")
    via = start_proxy("--mode", f"reverse:{recorder.url}") if way == "reverse" else proxy
    where = [via.url] if way == "reverse" else ["--proxytunnel", "--proxy", via.url, recorder.url]
    said = curl("--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", *where, timeout=10)
    assert said.stdout.decode() == f"{REASON}\n2 505"
    via.wait_for_output(re.escape("warning: 127.0.0.1:") + r"\d+: " + re.escape(REASON.removeprefix("jwtproxy: ")))
    assert not recorder.requests


def test_grpc_begins_with_http_2(proxy: Proxy, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an insecure channel, which opens a tunnel all the same. Its program is told why, and does not try again."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with (
        grpc.insecure_channel(recorder.authority, [("grpc.http_proxy", proxy.url)]) as channel,
        pytest.raises(grpc.RpcError) as failure,
    ):
        channel.unary_unary("/tests.Echo/Say")(b"", timeout=10)
    assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, REASON)
    assert recorder.connections <= 1
    assert not recorder.requests


# --- the clients


async def _continues(exchange: Exchange) -> None:
    """Ask for the body, and answer when it is there."""
    exchange.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    while not exchange.seen.complete:
        await asyncio.sleep(0.01)
    await respond(200, body=b"ok")(exchange)


def _curl_status(proxy: Proxy, *args: str) -> int:
    return int(curl("-o", "/dev/null", "-w", "%{http_code}", *args, proxy=proxy.url).stdout)


def _http_client(proxy: Proxy, method: str, url: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.request(method, url, headers={"Connection": "close"})
    return connection.getresponse()


def _node_socket(proxy: Proxy, *pieces: str, replies: int = 1) -> str:
    """What a socket of Node's receives that sends these pieces."""
    return _node(_SOCKET, [pieces, proxy.port, replies]).decode("latin-1")


def _node_http(proxy: Proxy, url: str) -> tuple[int, dict[str, str]]:
    """Status and fields of an answer that Node's own client accepts."""
    status, fields = json.loads(_node(_HTTP, [url, proxy.port]))
    return status, fields


def _node(script: str, arguments: Any) -> bytes:
    program = need(shutil.which("node"), "Node is not installed")
    done = subprocess.run([program, "-e", script, json.dumps(arguments)], capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout
