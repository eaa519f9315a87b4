"""The proxy's own pages: what counts as a request to the proxy itself, what it answers, and what it counts."""

from __future__ import annotations

import datetime
import functools
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from jwtproxy import __version__
from tests.support.clients import Raw, Reply, curl, message
from tests.support.harness import ADDONS, MIB, Proxy, StartBare, StartProxy, rows, thorough, verify
from tests.support.upstreams import Authority, Recorder
from tests.support.verifiers import free_port

NAME = socket.gethostname()
JSON, HTML = "application/json", "text/html; charset=utf-8"


def own_addresses() -> list[str]:
    """The addresses of this machine that are not loopback."""
    found = {str(info[4][0]) for info in socket.getaddrinfo(NAME, None) if ":" not in str(info[4][0])}
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
            try:
                probe.connect((far, 9))
            except OSError:
                continue
            found.add(probe.getsockname()[0])
    return sorted(address for address in found if not address.startswith(("127.", "fe80:", "::1")))


@functools.cache
def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def v6(host: str) -> Any:
    """A parameter that needs IPv6 when it looks like it."""
    return pytest.param(host, marks=needs_ipv6) if ":" in host else host


WARNINGS = r"(jwtproxy: warning: .*\n){2}"
"""That it is open to all, and what they reach."""


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Proxy]:
    """A proxy that listens on every address."""
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    env = {"HTTP_HOST": "*"}
    with Proxy("--set", trust, cwd=tmp_path_factory.mktemp("everywhere"), confdir=confdir, env=env) as process:
        yield process
        process.stop()
        assert "Traceback" not in process.output, process.output
        assert re.fullmatch(WARNINGS, process.stderr)


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[Proxy]:
    """The same, which trusts nobody and is a process of its own: for what is large."""
    folder, env = tmp_path_factory.mktemp("lean"), {"HTTP_HOST": "*"}
    with Proxy(cwd=folder, confdir=confdir, env=env, fresh=True) as process:
        yield process
        process.stop()
        assert "Traceback" not in process.output, process.output
        assert re.fullmatch(WARNINGS, process.stderr)


def status(proxy: Proxy) -> dict[str, Any]:
    """What /status says."""
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", "/status", f"Host: 127.0.0.1:{proxy.port}"))
    assert reply.status == 200, reply
    return dict(json.loads(reply.body))


def count(proxy: Proxy) -> int:
    """How many requests it has forwarded."""
    return int(status(proxy)["proxied_requests"])


def is_status(reply: Reply) -> bool:
    """Whether this is the page as JSON."""
    return (
        reply.status == 200 and reply.values("content-type") == [JSON] and "proxied_requests" in json.loads(reply.body)
    )


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


# --- what the page says


def test_status_tells_the_four_things(everywhere: Proxy) -> None:
    """The page holds the members of the contract, each of its type, and the time runs."""
    first = status(everywhere)
    assert {*("uptime_seconds", "proxied_requests", "started_at", "version", "fast_lane_requests", "limits")} <= set(
        first
    )
    assert isinstance(first["uptime_seconds"], int | float)
    assert type(first["proxied_requests"]) is int
    assert first["version"] == __version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", first["started_at"])
    started = datetime.datetime.fromisoformat(first["started_at"])
    age = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
    assert age == pytest.approx(first["uptime_seconds"], abs=1)
    time.sleep(0.02)
    second = status(everywhere)
    assert second["uptime_seconds"] > first["uptime_seconds"] > 0
    assert second["started_at"] == first["started_at"]


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


# What the header means is shown by the tests of pages; this is one of each answer, and what only connections can bring.
ACCEPTS: dict[str, tuple[list[str], str | None]] = {
    "none": ([], JSON),
    "empty": ([""], JSON),
    "any": (["*/*"], JSON),
    "json": (["application/json"], JSON),
    "application": (["application/*"], JSON),
    "image": (["image/png"], JSON),
    "plain": (["text/plain"], JSON),
    "html": (["text/html"], HTML),
    "upper-case": (["TEXT/HTML"], HTML),
    "parameter": (["text/html;charset=utf-8"], HTML),
    "text": (["text/*"], HTML),
    "browser": ([BROWSER], HTML),
    "little": (["text/html;q=0.1"], HTML),
    "not": (["text/html;q=0"], JSON),
    "both": (["text/html, application/json"], JSON),
    "both-reversed": (["application/json, text/html"], JSON),
    "html-rather": (["text/html, application/json;q=0.9"], HTML),
    "json-rather": (["text/html;q=0.8, application/json;q=0.9"], JSON),
    "html-or-any": (["text/html;q=0.5, */*;q=0.1"], HTML),
    "any-or-html": (["text/html;q=0.5, */*"], JSON),
    "two-lines": (["application/json;q=0", "text/html;q=0.001"], HTML),
    "two-lines-image": (["image/png", "text/html"], HTML),
    "nonsense": ([";;, q=x/y ,,text/html;q=zzz,/"], None),
    "long": (["text/html" + ",a/b" * 5000], HTML),
}


@pytest.mark.parametrize(
    ("accept", "expected"), rows(ACCEPTS, *"none browser json-rather two-lines two-lines-image nonsense long".split())
)
def test_the_form_of_the_page_follows_accept(everywhere: Proxy, accept: list[str], expected: str | None) -> None:
    """JSON unless the client likes HTML better (RFC 9110 §12.5.1); None: nobody minds, but it is one of the two."""
    with Raw(everywhere.port) as client:
        reply = client.request(message("GET", "/status", "Host: x", *(f"Accept: {value}" for value in accept)))
    assert reply.status == 200
    assert reply.values("content-type") in ([[JSON], [HTML]] if expected is None else [[expected]])
    assert "accept" in reply.values("vary")[0].lower()
    if reply.values("content-type") == [HTML]:
        assert reply.body.startswith(b"<!doctype html>")
        for member in (b"uptime_seconds", b"proxied_requests", b"started_at", b"version", __version__.encode()):
            assert member in reply.body
    else:
        assert is_status(reply)


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("path", ["/status", "/nope"])
def test_head_is_get_without_the_body(everywhere: Proxy, path: str, accept: str) -> None:
    """HEAD has the fields of GET, a length too, and the connection goes on."""
    with Raw(everywhere.port) as client:
        get = client.request(message("GET", path, "Host: x", f"Accept: {accept}"))
        head = client.request(message("HEAD", path, "Host: x", f"Accept: {accept}"), "HEAD")
        again = client.request(message("GET", path, "Host: x", f"Accept: {accept}"))
    assert head.status == get.status == again.status
    assert head.values("content-type") == get.values("content-type")
    assert int(head.values("content-length")[0]) == pytest.approx(len(get.body), abs=5)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "BREW"])
def test_status_can_only_be_read(everywhere: Proxy, method: str) -> None:
    """Other methods give 405 and say what is allowed (RFC 9110 §15.5.6)."""
    with Raw(everywhere.port) as client:
        reply = client.request(message(method, "/status", "Host: x", "Content-Length: 0"))
        assert reply.status == 405
        assert {"GET", "HEAD"} <= set(reply.values("allow")[0].split(", "))
        assert is_status(client.request(message("GET", "/status", "Host: x")))


@pytest.mark.parametrize("path", ["/status?", "/status?a=1&b", "/status?/nope"])
def test_a_query_changes_nothing(everywhere: Proxy, path: str) -> None:
    """Probes append what they like."""
    with Raw(everywhere.port) as client:
        assert is_status(client.request(message("GET", path, "Host: x")))


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/status/",
        "/Status",
        "/statusx",
        "//status",
        "/status%2F",
        "/%73tatus",
        "/status;a",
        "/favicon.ico",
    ],
)
@pytest.mark.parametrize("method", ["GET", pytest.param("POST", marks=thorough)])
def test_other_paths_are_not_found(everywhere: Proxy, path: str, method: str) -> None:
    """Everything else under the proxy's own address is 404, at once."""
    before = count(everywhere)
    with Raw(everywhere.port) as client:
        assert client.request(message(method, path, "Host: x", "Content-Length: 0")).status == 404
        assert is_status(client.request(message("GET", "/status", "Host: x")))
    assert count(everywhere) == before


@pytest.mark.parametrize("target", ["*", "/status"])
def test_options_tells_the_methods(everywhere: Proxy, target: str) -> None:
    """OPTIONS is answered by the proxy itself, for the page as for the server (RFC 9110 §9.3.7)."""
    with Raw(everywhere.port) as client:
        reply = client.request(message("OPTIONS", target, "Host: x"))
        assert reply.status in (200, 204)
        assert {"GET", "HEAD"} <= set(reply.values("allow")[0].split(", "))
        assert is_status(client.request(message("GET", "/status", "Host: x")))


# --- what a client needs to use the proxy


@pytest.mark.parametrize("kind", ["launcher", "bare"])
def test_the_certificate_and_the_way_to_the_proxy_are_pages(
    start_proxy: StartProxy, start_bare: StartBare, confdir: Path, kind: str
) -> None:
    """No folder has to be found: curl takes the CA from the proxy; no password is asked for, and no key given out."""
    protected = ("--proxyauth", "a:b")
    scripts = ADDONS / "jwt_inject.py", ADDONS / "status.py"
    proxy = start_proxy(*protected) if kind == "launcher" else start_bare(*protected, scripts=scripts)
    pem = (confdir / "mitmproxy-ca-cert.pem").read_bytes()
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    with Raw(proxy.port) as client:
        got = {path: client.request(message("GET", path, "Host: x")) for path in ("/ca.pem", "/ca.cer", "/ca.p12")}
        assert [reply.status for reply in got.values()] == [200, 200, 200]
        assert (got["/ca.pem"].body, got["/ca.cer"].body) == (pem, der)
        key, own, others = pkcs12.load_key_and_certificates(got["/ca.p12"].body, None)
        certificate = own or others[0]
        assert (key, certificate.public_bytes(Encoding.DER)) == (None, der)
        tag = got["/ca.p12"].values("etag")[0]
        again = client.request(message("GET", "/ca.p12", "Host: x", f"If-None-Match: {tag}"))
        assert (again.status, again.body) == (304, b"")
        head = client.request(message("HEAD", "/ca.cer", "Host: x"), "HEAD")
        assert head.values("content-length") == [str(len(der))]
        script = client.request(message("GET", "/proxy.pac", f"Host: localhost:{proxy.port}"))
        assert f'"PROXY localhost:{proxy.port}"'.encode() in script.body
        script = client.request(message("GET", "/proxy.pac", 'Host: ";alert(1);"'))
        assert f'"PROXY 127.0.0.1:{proxy.port}"'.encode() in script.body


@pytest.mark.parametrize("path", ["/ca.pem", "/proxy.pac"])
def test_without_pages_there_is_none_of_them(start_proxy: StartProxy, path: str) -> None:
    """Who switches pages off means all of them."""
    proxy = start_proxy("--set", "jwt_pages=off")
    with Raw(proxy.port) as client:
        assert client.request(message("GET", path, "Host: x")).status == 404


# --- what probes ask


@pytest.mark.parametrize("kind", ["launcher", "bare"])
def test_probes_are_told_whether_it_serves(start_proxy: StartProxy, start_bare: StartBare, kind: str) -> None:
    """They ask every few seconds: nothing is counted, and nothing said on the terminal."""
    proxy = (
        start_proxy() if kind == "launcher" else start_bare(scripts=(ADDONS / "jwt_inject.py", ADDONS / "status.py"))
    )
    with Raw(proxy.port) as client:
        for path in ("/livez", "/readyz"):
            got = client.request(message("GET", path, "Host: x"))
            assert (got.status, got.body, got.values("cache-control")) == (200, b"ok\n", ["no-store"])
            head = client.request(message("HEAD", path, "Host: x"), "HEAD")
            assert (head.status, head.values("content-length")) == (200, ["3"])
        assert json.loads(client.request(message("GET", "/status", "Host: x")).body)["proxied_requests"] == 0
    if kind == "launcher":
        proxy.stop()
        assert "livez" not in proxy.output
        assert "readyz" not in proxy.output


def test_without_a_usable_key_it_serves_and_is_not_ready(start_proxy: StartProxy, tmp_path: Path) -> None:
    """A key whose time is over while the proxy runs."""
    over = time.time() + 2.5
    (tmp_path / "key.json").write_text(json.dumps({"kty": "oct", "k": "A" * 86, "exp": over}))
    proxy = start_proxy("--key", str(tmp_path / "key.json"), env={"JWT_SHARED_SECRET": None})
    assert _readiness(proxy) == (200, b"ok\n")
    time.sleep(max(0.0, over - time.time()))
    assert _readiness(proxy) == (503, b"jwtproxy: not ready: no key may sign now\n")
    with Raw(proxy.port) as client:
        assert client.request(message("GET", "/livez", "Host: x")).status == 200


def _readiness(proxy: Proxy) -> tuple[int, bytes]:
    with Raw(proxy.port) as client:
        got = client.request(message("GET", "/readyz", "Host: x"))
    return got.status, got.body


# --- what is a request to the proxy itself


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", v6("::1"), "127.0.0.2", NAME, *map(v6, own_addresses())])
def test_curl_gets_the_page_at_every_address(everywhere: Proxy, host: str) -> None:
    """As a person asks for it."""
    done = curl("-i", f"http://{bracketed(host)}:{everywhere.port}/status", "--noproxy", "*")
    head, body = done.stdout.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    assert "uptime_seconds" in json.loads(body)


@pytest.mark.parametrize(
    "host",
    [
        "localhost:9090",
        "proxy.svc:80",
        "proxy.svc",
        "10.1.2.3:8080",
        "[::1]:99",
        "other.example",
        "",
        ":",
        ":80",
        "a b",
        "bad host:99999999",
        "[::1",
        "exa_mple..com",
        "x" * 300,
        "caf\xe9",
        "%00",
        "a/b?c#d",
        "user@host",
    ],
)
@pytest.mark.parametrize("path", ["/status", pytest.param("/nope", marks=thorough)])
def test_host_does_not_matter(everywhere: Proxy, host: str, path: str) -> None:
    """Behind a published port, in a pod, by a wrong name: a request in origin form is one to the proxy."""
    before = count(everywhere)
    with Raw(everywhere.port) as client:
        reply = client.request(message("GET", path, f"Host: {host}"))
    assert reply.status == (200 if path == "/status" else 404)
    assert count(everywhere) == before


def test_no_host_in_http_1_0(everywhere: Proxy) -> None:
    """An old probe sends no Host, gets the page, and the end of the connection."""
    with Raw(everywhere.port) as client:
        client.send(message("GET", "/status", version="1.0"))
        assert is_status(client.reply())
        assert client.rest() == b""


def test_no_host_in_http_1_1_is_answered(everywhere: Proxy) -> None:
    """HTTP/1.1 demands a Host: the page or 400, but never silence."""
    with Raw(everywhere.port) as client:
        assert client.request(message("GET", "/status")).status in (200, 400)


def test_two_hosts_are_answered(everywhere: Proxy) -> None:
    """Two Host fields: the page or 400, but no upstream."""
    before = count(everywhere)
    with Raw(everywhere.port) as client:
        assert client.request(message("GET", "/status", "Host: a", "Host: b.example:81")).status in (200, 400)
    assert count(everywhere) == before


@pytest.mark.parametrize("order", ["own-first", "proxied-first"])
def test_one_connection_carries_both(everywhere: Proxy, recorder: Recorder, order: str) -> None:
    """Own and proxied requests alternate on a kept-alive connection, with the same Host, and each is what it is."""
    own = message("GET", "/status", f"Host: {recorder.authority}")
    missing = message("GET", "/nope", f"Host: {recorder.authority}")
    proxied = message("GET", f"{recorder.url}/status", f"Host: {recorder.authority}")
    posted = message("POST", f"{recorder.url}/", f"Host: {recorder.authority}", "Content-Length: 2", body=b"{}")
    steps = [own, proxied, missing, proxied, posted, own, own, proxied]
    with Raw(everywhere.port) as client:
        for step in steps if order == "own-first" else steps[1:]:
            reply = client.request(step)
            if step is own:
                assert is_status(reply)
            else:
                assert (reply.status, reply.body == b"ok") == ((404, False) if step is missing else (200, True))
    assert len({verify(seen.token)["jti"] for seen in recorder.wait(4)}) == 4


def test_own_and_proxied_requests_may_be_pipelined(everywhere: Proxy, recorder: Recorder) -> None:
    """Sent in one go, they are answered in order."""
    own = message("GET", "/status", "Host: x")
    proxied = message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")
    with Raw(everywhere.port) as client:
        client.send(own + proxied + own + proxied)
        replies = [client.reply() for _ in range(4)]
    assert [is_status(reply) if index % 2 == 0 else reply.body == b"ok" for index, reply in enumerate(replies)] == [
        True
    ] * 4


SELVES = [
    "localhost",
    "LOCALHOST",
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "0.0.0.0",
    NAME,
    *map(v6, ["::1", "::", "::ffff:127.0.0.1"]),
    *map(v6, own_addresses()),
]


@pytest.mark.parametrize("host", SELVES)
def test_through_itself_the_proxy_is_still_the_proxy(everywhere: Proxy, host: str) -> None:
    """Asked as a proxy for its own address, it answers itself: no loop, no hang, no count."""
    before = count(everywhere)
    authority = f"{bracketed(host)}:{everywhere.port}"
    with Raw(everywhere.port, timeout=5) as client:
        assert is_status(client.request(message("GET", f"http://{authority}/status", f"Host: {authority}")))
        assert client.request(message("GET", f"http://{authority}/nope", f"Host: {authority}")).status == 404
        body = message("POST", f"http://{authority}/status", f"Host: {authority}", "Content-Length: 1", body=b"x")
        assert client.request(body).status == 405
    assert count(everywhere) == before


def test_through_itself_with_curl(everywhere: Proxy) -> None:
    """As a person checks that the proxy works."""
    done = curl(f"http://localhost:{everywhere.port}/status", proxy=f"http://localhost:{everywhere.port}")
    assert "uptime_seconds" in json.loads(done.stdout)


def test_through_itself_host_is_not_believed(everywhere: Proxy, recorder: Recorder) -> None:
    """The target decides, not Host: neither may a foreign Host reach out nor ours draw a request in."""
    mine = f"127.0.0.1:{everywhere.port}"
    with Raw(everywhere.port) as client:
        assert is_status(client.request(message("GET", f"http://{mine}/status", f"Host: {recorder.authority}")))
        assert client.request(message("GET", f"{recorder.url}/status", f"Host: {mine}")).body == b"ok"
    assert verify(recorder.only().token)


@pytest.mark.parametrize("host", SELVES)
def test_no_tunnel_to_itself(everywhere: Proxy, host: str) -> None:
    """CONNECT to the proxy's own address is 403, at once, and does not count."""
    before = count(everywhere)
    authority = f"{bracketed(host)}:{everywhere.port}"
    with Raw(everywhere.port, timeout=5) as client:
        assert (
            client.request(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode(), "CONNECT").status
            == 403
        )
    assert count(everywhere) == before


@pytest.mark.parametrize("mode", ["reverse", "upstream"])
def test_a_proxy_that_is_its_own_upstream_says_so(start_proxy: StartProxy, mode: str) -> None:
    """A loop by configuration is an error for the client, not a loop."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    proxy = start_proxy("--mode", f"{mode}:http://127.0.0.1:{port}", "--port", str(port))
    with Raw(proxy.port, timeout=5) as client:
        assert client.request(message("GET", "http://127.0.0.9:9/", "Host: 127.0.0.9:9")).status in (403, 404, 502)


def test_status_of_another_server_is_not_ours(everywhere: Proxy, recorder: Recorder) -> None:
    """`http://other/status` goes to the other, signed."""
    assert curl(f"{recorder.url}/status", proxy=everywhere.url).stdout == b"ok"
    with httpx.Client(proxy=everywhere.url, trust_env=False) as client:
        assert client.post(f"{recorder.url}/status", content=b"x").text == "ok"
    for seen in recorder.wait(2):
        assert seen.target == "/status"
        assert verify(seen.token)


# --- refusing what is too large


@pytest.mark.parametrize("framing", ["sized", "chunked", "expect"])
@pytest.mark.parametrize("path", ["/status", pytest.param("/nope", marks=thorough)])
@pytest.mark.parametrize("size", [128 * MIB, pytest.param(1024 * MIB, marks=thorough)])
def test_a_gibibyte_to_an_own_page_is_refused_at_once(lean: Proxy, framing: str, path: str, size: int) -> None:
    """The answer comes within a second, while the body still comes, and memory does not grow."""
    length = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {size}"
    expect = ["Expect: 100-continue"] if framing == "expect" else []
    block = bytes(64 * 1024)
    piece = b"%x\r\n%b\r\n" % (len(block), block) if framing == "chunked" else block
    status(lean)
    lean.reset_peak()
    before = lean.peak()
    with Raw(lean.port) as client, ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        client.send(message("POST", path, "Host: x", length, *expect))
        sending = None if framing == "expect" else pool.submit(_pump, client.socket, piece, size)
        reply = client.reply()
        if reply.status == 100:  # some tell the client to go on, and refuse then
            reply = client.reply()
        assert time.monotonic() - began < 1
        assert reply.status == (405 if path == "/status" else 404)
        if sending:
            sending.result(20)  # a client that only reads when it has sent everything costs no memory either
    assert lean.peak() - before < 20 * MIB


def _pump(sock: socket.socket, piece: bytes, size: int) -> int:
    sent = 0
    try:
        while sent < size:
            sock.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_curl_learns_that_its_gibibyte_is_refused(lean: Proxy, tmp_path: Path, framing: str) -> None:
    """A real client sees the 405 and stops."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1024 * MIB)
    fields = ["-H", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    before = lean.peak()
    began = time.monotonic()
    upload = ["-X", "POST", "-T", "large", "-H", "Expect:", *fields]
    show = ["-w", "%{http_code}", "-o", "answer", "--noproxy", "*", "--max-time", "10"]
    done = subprocess.run(
        ["curl", "-q", "-s", *upload, *show, f"{lean.url}/status"],
        cwd=tmp_path,
        capture_output=True,
        timeout=15,
        check=False,
    )
    assert done.stdout == b"405"
    assert time.monotonic() - began < 1
    assert lean.peak() - before < 20 * MIB


# --- counting


def test_the_count_is_exact(
    start_proxy: StartProxy, recorder: Recorder, https_recorder: Recorder, proxy_ca: Path
) -> None:
    """One for each request that sets out for an upstream, answered or not; nothing for all else."""
    proxy = start_proxy()
    assert count(proxy) == 0
    get = message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")

    def several(number: int) -> None:
        with Raw(proxy.port) as client:
            for _ in range(number):
                assert client.request(get).status == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(several, [25] * 8))
    assert count(proxy) == 200

    with Raw(proxy.port) as client:  # streamed
        fields = [f"Host: {recorder.authority}", "Transfer-Encoding: chunked"]
        client.request(message("POST", f"{recorder.url}/", *fields, body=b"1\r\nx\r\n0\r\n\r\n"))
    assert count(proxy) == 201

    with Raw(proxy.port) as client:  # three in one tunnel; the tunnel itself is none
        client.secure_tunnel(https_recorder.authority, proxy_ca)
        assert count(proxy) == 201
        for _ in range(3):
            assert client.request(message("GET", "/status", f"Host: {https_recorder.authority}")).body == b"ok"
    assert count(proxy) == 204

    with socket.socket() as closed, Raw(proxy.port) as client:  # sets out, and is refused
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert client.request(message("GET", f"http://127.0.0.1:{port}/", f"Host: 127.0.0.1:{port}")).status == 502
    assert count(proxy) == 205

    own = [("GET", "/nope"), ("POST", "/status"), ("OPTIONS", "*"), ("GET", f"http://localhost:{proxy.port}/x")]
    for method, target in own:
        with Raw(proxy.port) as client:
            client.request(message(method, target, "Host: x", "Content-Length: 0"))
    with Raw(proxy.port) as client:
        client.request(message("CONNECT", f"localhost:{proxy.port}", f"Host: localhost:{proxy.port}"), "CONNECT")
    with Raw(proxy.port) as client:
        client.tunnel(recorder.authority)
    with Raw(proxy.port) as client:
        client.send(b"nonsense\r\n\r\n")
        client.rest()
    assert count(proxy) == 205


def test_what_a_hook_answered_does_not_count(start_proxy: StartProxy, recorder: Recorder, tmp_path: Path) -> None:
    """A local file, a refusal by a user's script, a missing password: none set out for an upstream."""
    (tmp_path / "local").write_text("from a file")
    (tmp_path / "mine.py").write_text(
        "from mitmproxy import http\n"
        "def request(flow):\n"
        "    if flow.request.path == '/scripted':\n"
        "        flow.response = http.Response.make(418)\n"
    )
    proxy = start_proxy(
        "-s", "mine.py", "--map-local", f"|/local|{tmp_path / 'local'}", "--proxyauth", "me:pass", cwd=tmp_path
    )
    given = "Proxy-Authorization: Basic bWU6cGFzcw=="
    for path, fields, code, counted in [
        ("/local", [given], 200, 0),
        ("/scripted", [given], 418, 0),
        ("/", [], 407, 0),
        ("/", [given], 200, 1),
    ]:
        with Raw(proxy.port) as client:
            reply = client.request(message("GET", recorder.url + path, f"Host: {recorder.authority}", *fields))
        assert (reply.status, count(proxy)) == (code, counted), path
    assert len(recorder.requests) == 1


# --- where the pages are


@pytest.mark.parametrize(
    ("mode", "pages", "served"),
    [
        pytest.param("regular", "auto", True, marks=thorough),
        pytest.param("regular", "on", True, marks=thorough),
        ("regular", "off", False),
        ("reverse", "auto", False),
        ("reverse", "on", True),
        pytest.param("reverse", "off", False, marks=thorough),
    ],
)
def test_jwt_pages_says_where_the_page_is(
    start_proxy: StartProxy, recorder: Recorder, mode: str, pages: str, served: bool
) -> None:
    """On where the proxy has a name of its own, off where it stands for another server, or as the user says."""
    args = ["--mode", f"reverse:{recorder.url}"] if mode == "reverse" else []
    proxy = start_proxy("--set", f"jwt_pages={pages}", *args)
    with Raw(proxy.port) as client:
        page = client.request(message("GET", "/status", f"Host: 127.0.0.1:{proxy.port}"))
        other = client.request(message("GET", "/other", f"Host: 127.0.0.1:{proxy.port}"))
        post = client.request(message("POST", "/status", f"Host: 127.0.0.1:{proxy.port}", "Content-Length: 0"))
    if mode == "regular":
        assert (page.status, other.status, post.status) == ((200, 404, 405) if served else (404, 404, 404))
        assert is_status(page) == served
        assert recorder.requests == []
    else:
        assert other.body == b"ok"
        assert is_status(page) if served else page.body == b"ok"
        assert post.status == (405 if served else 200)
        assert [seen.target for seen in recorder.wait(1)] == (
            ["/other"] if served else ["/status", "/other", "/status"]
        )
        assert all(verify(seen.token) for seen in recorder.requests)


@pytest.mark.parametrize("kind", ["launcher", "bare"])
def test_the_pages_may_be_elsewhere(
    start_proxy: StartProxy, start_bare: StartBare, recorder: Recorder, kind: str
) -> None:
    """At an address where nothing else is served; there are none at the proxy's own then. All workers are there."""
    port = free_port()
    pages = "--set", f"jwt_pages=127.0.0.1:{port}"
    scripts = ADDONS / "jwt_inject.py", ADDONS / "status.py"
    proxy = start_proxy(*pages, "--workers", "2") if kind == "launcher" else start_bare(*pages, scripts=scripts)
    with Raw(proxy.port) as client:
        assert client.request(message("GET", "/status", "Host: x")).status == 404
        assert client.request(message("GET", recorder.url, f"Host: {recorder.authority}")).body == b"ok"
    for _ in range(8):
        with Raw(port) as client:
            assert client.request(message("GET", "/readyz", "Host: x")).body == b"ok\n"
            status = json.loads(client.request(message("GET", "/status", "Host: x")).body)
            assert status["proxied_requests"] == 1
            assert (
                f"--proxy http://127.0.0.1:{proxy.port} ".encode()
                in client.request(message("GET", "/", "Host: x")).body
            )
            passes = client.request(message("GET", f"{recorder.url}/through", f"Host: {recorder.authority}"))
            assert passes.status == 404
        with Raw(port) as client:
            assert client.request(message("CONNECT", recorder.authority, f"Host: {recorder.authority}")).status == 403
    assert len(recorder.requests) == 1


def test_upstream_mode_has_the_page_too(start_proxy: StartProxy, recorder: Recorder) -> None:
    """A proxy behind a proxy answers for itself; all else goes to the next one, signed."""
    proxy = start_proxy("--mode", f"upstream:{recorder.url}")
    with Raw(proxy.port) as client:
        assert is_status(client.request(message("GET", "/status", "Host: x")))
        assert client.request(message("GET", "http://far.example/status", "Host: far.example")).body == b"ok"
    assert recorder.only().target == "http://far.example/status"
    assert verify(recorder.only().token)


def test_the_page_stays_open_when_a_password_is_asked(start_proxy: StartProxy, recorder: Recorder) -> None:
    """Probes have no password; only forwarding needs it."""
    proxy = start_proxy("--proxyauth", "me:pass")
    with Raw(proxy.port) as client:
        assert is_status(client.request(message("GET", "/status", f"Host: 127.0.0.1:{proxy.port}")))
        assert client.request(message("HEAD", "/status", "Host: x"), "HEAD").status == 200
        assert client.request(message("POST", "/status", "Host: x", "Content-Length: 0")).status == 405
        assert client.request(message("GET", "/nope", "Host: x")).status == 404
        assert client.request(message("GET", "/readyz", "Host: x", "Authorization: Bearer x")).body == b"ok\n"
        assert b"--proxy http://me.example:81 " in client.request(message("GET", "/", "Host: me.example:81")).body
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}/status", f"Host: {recorder.authority}")).status == 407
    assert recorder.requests == []
