"""A request names the host it goes to: another Host is replaced, and refused inside a CONNECT tunnel."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import h2.connection
import pytest
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow

from tests.support.clients import Http2, Raw, Reply, client_context, message, pseudo
from tests.support.harness import ADDONS, Proxy, StartBare, StartProxy, rows, thorough, verify
from tests.support.upstreams import Authority, Recorder

FAR = "far.example"


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Proxy]:
    """A proxy to which contradictions over HTTP/2 come through, that mitmproxy would stop."""
    trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.pem}")
    options = (*trust, "--set", "validate_inbound_headers=false")
    with Proxy(*options, cwd=tmp_path_factory.mktemp("unchecked"), confdir=confdir) as process:
        yield process
        process.stop()
        assert "Traceback" not in process.output, process.output


def _hosts(recorder: Recorder) -> list[str]:
    return recorder.only().values("host")


# --- absolute form


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Host: {}"], "Host: {}"),
        (["hOsT: {}"], "hOsT: {}"),
        (["Host: 127.1:{port}"], "Host: 127.1:{port}"),
        (["Host: 127.0.0.1"], "Host: {}"),
        (["Host: localhost:{port}"], "Host: {}"),
        (["Host: other.example"], "Host: {}"),
        (["HOST: other.example"], "HOST: {}"),
        (["Host:"], "Host: {}"),
        (["Host: me@{}"], "Host: {}"),
        (["Host: {}", "Host: {}"], "Host: {}"),
        (["Host: {}", "host: other.example"], "Host: {}"),
        (["host: other.example", "Host: {}"], "host: {}"),
        (["Host: {},other.example"], "Host: {}"),
    ],
)
def test_one_host_arrives_and_it_is_the_targets(
    proxy: Proxy, recorder: Recorder, lines: list[str], expected: str
) -> None:
    """RFC 9112 §3.2.2; what says the same stays as it was written, and so does everything else."""

    def filled(line: str) -> str:
        return line.replace("{}", recorder.authority).replace("{port}", str(recorder.port))

    with Raw(proxy.port) as client:
        for _ in range(2):
            reply = client.request(message("GET", f"{recorder.url}/", *map(filled, lines), "X-Other: Host"))
            assert reply.body == b"ok"
    for seen in recorder.wait(2):
        name, _, value = filled(expected).partition(": ")
        assert sorted(seen.without_token()) == sorted([(name.encode(), value.encode()), (b"X-Other", b"Host")])
        assert verify(seen.token)


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("LocalHost:{}", "127.0.0.1:{}", "LocalHost:{}"),
        ("LocalHost:{}", "localhost.:{}", "localhost.:{}"),
        ("127.1:{}", "other.example", "127.1:{}"),
        ("127.1:{}", "127.0.0.1:{}", "127.0.0.1:{}"),
        ("2130706433:0{}", "other.example", "2130706433:0{}"),
    ],
)
def test_the_host_is_written_as_in_the_target(
    proxy: Proxy, recorder: Recorder, target: str, host: str, expected: str
) -> None:
    """Unless the client's own spelling means the same."""
    target, host, expected = (text.format(recorder.port) for text in (target, host, expected))
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"http://{target}/", f"Host: {host}")).body == b"ok"
    assert _hosts(recorder) == [expected]


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    rows(
        {
            "same": (FAR, FAR, FAR),
            "dot": (f"{FAR}.", FAR, FAR),
            "port given": (FAR, f"{FAR}:80", f"{FAR}:80"),
            "port left out": (f"{FAR}:80", FAR, FAR),
            "empty port": (FAR, f"{FAR}:", f"{FAR}:"),
            "case and dot": (FAR, "FAR.Example.", "FAR.Example."),
            "another port": (FAR, f"{FAR}:443", FAR),
            "idna": ("xn--bcher-kva.example", "XN--Bcher-KVA.example", "XN--Bcher-KVA.example"),
            "another alphabet": ("xn--bcher-kva.example", "b\xfccher.example", "xn--bcher-kva.example"),
            "ipv6": ("[::1]", "[0:0::1]:80", "[0:0::1]:80"),
            "ipv4 in ipv6": ("[::FFFF:127.0.0.9]", "other.example", "[::FFFF:127.0.0.9]"),
            "zone": ("[fd00::1%25lo]", "[fd00::1%25lo]", "[fd00::1]"),
        },
        "port given",
        "idna",
        "zone",
    ),
)
def test_the_next_proxy_gets_the_same_host_as_target(
    start_proxy: StartProxy, recorder: Recorder, target: str, host: str, expected: str
) -> None:
    """Default ports, IDNA, IPv6: seen by a proxy behind ours, so that nobody needs a resolver."""
    proxy = start_proxy("--mode", f"upstream:{recorder.url}")
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"http://{target}/x", f"Host: {host}")).body == b"ok"
    assert _hosts(recorder) == [expected]
    assert recorder.only().target == f"http://{target}/x"


def test_a_target_that_cannot_be_dialled_is_refused(proxy: Proxy) -> None:
    """400, whatever the resolver thinks of it."""
    for target in ("[::1%a\0b]:9", "[::1%a!b]:9", "a.example:0", "[a.example]:9"):
        for asked in (message("GET", f"http://{target}/", "Host: a"), message("CONNECT", target, "Host: a")):
            with Raw(proxy.port) as client:
                assert client.request(asked).status == 400


def test_http_1_0_without_host_gets_one(proxy: Proxy, recorder: Recorder) -> None:
    """A proxy generates Host whatever it received."""
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", version="1.0")).body == b"ok"
    assert _hosts(recorder) == [recorder.authority]


def test_a_websocket_target_is_judged_alike(proxy: Proxy, recorder: Recorder) -> None:
    """`ws://…`, as some clients ask a proxy."""
    with Raw(proxy.port) as client:
        client.request(message("GET", recorder.url.replace("http:", "ws:") + "/", "Host: other.example"))
    assert _hosts(recorder) == [recorder.authority]


@pytest.mark.parametrize("hosts", [(), ("{}",), ("other.example", "{}"), ("{}", "other.example"), ("other.example",)])
def test_over_http2_the_authority_is_the_target(
    unchecked: Proxy, recorder: Recorder, proxy_ca: Path, hosts: tuple[str, ...]
) -> None:
    """To the proxy itself over TLS, without CONNECT: `host` beside `:authority` has no say (RFC 9113 §8.3.1)."""
    fields = [*pseudo("GET", recorder.authority, "/"), *(("host", host.format(recorder.authority)) for host in hosts)]
    fields[1] = (":scheme", "http")
    with Raw(unchecked.port) as client:
        two = Http2(client.start_tls(client_context(proxy_ca, "h2")))
        assert two.reply(two.send(fields)).body == b"ok"
    assert _hosts(recorder) == [recorder.authority]
    assert verify(recorder.only().token)


# --- inside a tunnel


def _tunnel(client: Raw, recorder: Recorder, proxy_ca: Path, *alpn: str) -> None:
    if recorder.url.startswith("https"):
        client.secure_tunnel(recorder.authority, proxy_ca, *alpn)
    else:
        client.tunnel(recorder.authority)


def _assert_refused(reply: Reply, recorder: Recorder) -> None:
    """The tunnel's destination is named, and the way out; what the client said is not echoed."""
    assert reply.status == 421
    assert reply.body.startswith(b"jwtproxy: ")
    assert recorder.url.encode() in reply.body
    assert b"jwt_host_mismatch=allow" in reply.body
    assert b"other.example" not in reply.head + reply.body


CONTRADICTIONS = {
    "name": ["Host: other.example"],
    "port": ["Host: 127.0.0.1:1"],
    "no port": ["Host: 127.0.0.1"],
    "address": ["Host: 127.0.0.2:{port}"],
    "alias": ["Host: localhost:{port}"],
    "two": ["Host: {}", "Host: other.example"],
    "two, reversed": ["host: other.example", "Host: {}"],
    "list": ["Host: {},other.example"],
    "user": ["Host: me@{}"],
    "path": ["Host: {}/"],
    "empty": ["Host:"],
    "bytes": ["Host: oth\xe9r"],
}


@pytest.fixture(params=[pytest.param("http", marks=thorough), "https"])
def upstream(request: pytest.FixtureRequest, recorder: Recorder, https_recorder: Recorder) -> Recorder:
    """An upstream of an HTTP/1.1 tunnel, plain or in TLS."""
    return recorder if request.param == "http" else https_recorder


@pytest.mark.parametrize("lines", [pytest.param(lines, id=name) for name, lines in CONTRADICTIONS.items()])
def test_a_contradiction_in_a_tunnel_is_refused(
    proxy: Proxy, upstream: Recorder, proxy_ca: Path, lines: list[str]
) -> None:
    """421, nothing goes upstream, and the tunnel serves the next request."""
    lines = [line.replace("{}", upstream.authority).replace("{port}", str(upstream.port)) for line in lines]
    with Raw(proxy.port) as client:
        _tunnel(client, upstream, proxy_ca)
        _assert_refused(client.request(message("GET", "/bad", *lines)), upstream)
        assert client.request(message("GET", "/good", f"Host: {upstream.authority}")).body == b"ok"
    assert upstream.only().target == "/good"


@pytest.mark.parametrize("target", ["http://other.example/", "https://other.example/", "ws://other.example:80/"])
def test_a_target_that_contradicts_the_tunnel_is_refused(
    proxy: Proxy, upstream: Recorder, proxy_ca: Path, target: str
) -> None:
    """Absolute form inside a tunnel is a claim, too, though the Host is right."""
    with Raw(proxy.port) as client:
        _tunnel(client, upstream, proxy_ca)
        _assert_refused(client.request(message("GET", target, f"Host: {upstream.authority}")), upstream)
        assert client.request(message("GET", f"{upstream.url}/good", f"Host: {upstream.authority}")).body == b"ok"
    assert upstream.only().target.endswith("/good")


@pytest.mark.parametrize(
    ("lines", "arrives"),
    [
        (["Host: {}"], ["{}"]),
        (["Host: 127.1:0{port}"], ["127.1:0{port}"]),
        (["hOsT: {}", "Host: 127.1:{port}"], ["{}"]),
        ([], ["{}"]),  # a request of HTTP/1.0, which goes on as one of HTTP/1.1
    ],
)
def test_what_agrees_with_the_tunnel_passes(
    proxy: Proxy, upstream: Recorder, proxy_ca: Path, lines: list[str], arrives: list[str]
) -> None:
    """As it was written; of several, one remains."""

    def filled(texts: list[str]) -> list[str]:
        return [text.replace("{}", upstream.authority).replace("{port}", str(upstream.port)) for text in texts]

    with Raw(proxy.port) as client:
        _tunnel(client, upstream, proxy_ca)
        version = "1.1" if lines else "1.0"
        assert client.request(message("GET", "/", *filled(lines), version=version)).body == b"ok"
    assert _hosts(upstream) == filled(arrives)
    assert verify(upstream.only().token)


def test_a_connects_own_host_does_not_matter(proxy: Proxy, recorder: Recorder) -> None:
    """It goes nowhere."""
    with Raw(proxy.port) as client:
        assert client.request(message("CONNECT", recorder.authority, "Host: other.example"), "CONNECT").status == 200
        assert client.request(message("GET", "/", f"Host: {recorder.authority}")).body == b"ok"


def test_the_default_port_is_that_of_the_tunnels_scheme(start_proxy: StartProxy, proxy_ca: Path) -> None:
    """Nobody listens at these addresses: 502 is what passed."""
    proxy = start_proxy("--set", "connection_strategy=lazy")
    table = [
        ("127.0.0.9:443", True, {"127.0.0.9": 502, "127.0.0.9:443": 502, "127.0.0.9:80": 421, "127.0.0.9.:": 502}),
        ("127.0.0.9:80", True, {"127.0.0.9": 421, "127.0.0.9:443": 421, "127.0.0.9:80": 502}),
        ("127.0.0.9:80", False, {"127.0.0.9": 502, "127.0.0.9:443": 421, "127.0.0.9:80": 502}),
        ("127.0.0.9:443", False, {"127.0.0.9": 421, "127.0.0.9:443": 502}),
    ]
    for authority, secure, expected in table:
        for host, status in expected.items():
            with Raw(proxy.port) as client:
                client.tunnel(authority)
                if secure:
                    client.start_tls(client_context(proxy_ca), "127.0.0.9")
                reply = client.request(message("GET", "/", f"Host: {host}"))
                assert reply.status == status, (authority, secure, host)


H2_CLAIMS = {
    "authority": ("other.example", []),
    "host": ("{}", ["other.example"]),
    "two hosts": ("{}", ["{}", "other.example"]),
    "both": ("other.example", ["other.example"]),
    "host alone": ("", ["other.example"]),
    "no port": ("127.0.0.1", []),
}


@pytest.mark.parametrize(("named", "hosts"), [pytest.param(*claim, id=name) for name, claim in H2_CLAIMS.items()])
def test_a_contradiction_over_http2_is_refused(
    unchecked: Proxy, h2_recorder: Recorder, proxy_ca: Path, named: str, hosts: list[str]
) -> None:
    """`:authority` and every `host`; the other streams of the connection go on."""
    right = h2_recorder.authority
    fields = [pair for pair in pseudo("GET", named.format(right), "/bad") if pair[1]]
    with Raw(unchecked.port) as client:
        two = Http2(client.secure_tunnel(right, proxy_ca, "h2"))
        good = two.send(pseudo("GET", right, "/good"))
        bad = two.send([*fields, *(("host", host.format(right)) for host in hosts)])
        again = two.send([*pseudo("GET", right.replace("127.0.0.1", "127.1"), "/good"), ("host", right)])
        _assert_refused(two.reply(bad), h2_recorder)
        assert (two.reply(good).body, two.reply(again).body) == (b"ok", b"ok")
    assert [seen.target for seen in h2_recorder.wait(2)] == ["/good"] * 2


@pytest.mark.parametrize(("named", "hosts"), [pytest.param(*claim, id=name) for name, claim in H2_CLAIMS.items()])
def test_no_contradiction_over_http2_arrives(
    proxy: Proxy, h2_recorder: Recorder, proxy_ca: Path, named: str, hosts: list[str]
) -> None:
    """Some of them mitmproxy itself takes for an error of the connection."""
    right = h2_recorder.authority
    fields = [pair for pair in pseudo("GET", named.format(right), "/bad") if pair[1]]
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(right, proxy_ca, "h2"))
        with contextlib.suppress(ConnectionError, EOFError):
            reply = two.reply(two.send([*fields, *(("host", host.format(right)) for host in hosts)]))
            _assert_refused(reply, h2_recorder)
    assert h2_recorder.requests == []


def test_tunnels_that_share_an_http2_connection_are_kept_apart(
    start_proxy: StartProxy, recorder: Recorder, proxy_ca: Path
) -> None:
    """mitmproxy takes CONNECT over HTTP/2, several at a time: each request is held against its own."""
    proxy = start_proxy()
    with Recorder() as other, Raw(proxy.port) as client:
        two = Http2(client.start_tls(client_context(proxy_ca, "h2")))
        for stream, authority in (1, recorder.authority), (3, other.authority):
            two.h2.send_headers(stream, [(":method", "CONNECT"), (":authority", authority)])
        inner = h2.connection.H2Connection()
        inner.initiate_connection()
        inner.send_headers(1, pseudo("GET", other.authority, "/"), end_stream=True)
        two.h2.send_data(1, inner.data_to_send())
        two.flush()
        proxy.wait_for_output(r"GET .* 421")
        assert recorder.requests == other.requests == []


PATHS = ["http://127.0.0.1:9/admin", "admin", ".evil/x", "?x", "/a#/../admin"]


@pytest.mark.parametrize("path", PATHS)
def test_a_target_over_http2_that_is_no_path_is_refused(
    proxy: Proxy, h2_recorder: Recorder, proxy_ca: Path, path: str
) -> None:
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        bad = two.send(pseudo("GET", h2_recorder.authority, path))
        assert two.reply(bad).status == 400
        assert b"neither a URL nor a path" in two.reply(bad).body
        assert two.reply(two.send(pseudo("GET", h2_recorder.authority, "/good"))).status == 200
    assert [seen.target for seen in h2_recorder.wait(1)] == ["/good"]


@pytest.mark.parametrize("mode", [[], ["--mode", "reverse"]])
def test_nor_does_one_pass_in_any_other_mode(
    start_proxy: StartProxy, recorder: Recorder, proxy_ca: Path, mode: list[str]
) -> None:
    process = start_proxy(*(["--mode", f"reverse:{recorder.url}"] if mode else []))
    with Raw(process.port) as client:
        two = Http2(client.start_tls(client_context(proxy_ca, "h2")))
        scheme = "http"
        for path in PATHS:
            fields = [(name, scheme if name == ":scheme" else value) for name, value in pseudo("GET", "a", path)]
            fields = [(name, recorder.authority if name == ":authority" else value) for name, value in fields]
            assert two.reply(two.send(fields)).status == 400, path
    assert not recorder.requests


@pytest.mark.parametrize("framing", [f"Content-Length: {1 << 30}", "Transfer-Encoding: chunked"])
def test_a_large_upload_is_refused_at_once(proxy: Proxy, upstream: Recorder, proxy_ca: Path, framing: str) -> None:
    """Before its body is there."""
    with Raw(proxy.port) as client:
        _tunnel(client, upstream, proxy_ca)
        received, began = upstream.bytes_received, time.monotonic()
        reply = client.request(message("PUT", "/", "Host: other.example", framing))
        assert time.monotonic() - began < 2
        _assert_refused(reply, upstream)
        assert reply.values("connection") == ["close"]
        with contextlib.suppress(OSError):  # what is still sent goes nowhere
            client.send(bytes(1 << 20))
    assert (upstream.requests, upstream.bytes_received) == ([], received)


INTERFERENCE = """
from mitmproxy import exceptions

def requestheaders(flow):
    {}

def request(flow):
    {}
"""


@pytest.mark.parametrize(
    ("act", "size"),
    [
        ("raise exceptions.AddonHalt", 1 << 30),
        ("flow.response = None", 1 << 30),
        ("flow.response = None; flow.request.stream = False", 4),
    ],
)
def test_no_script_lets_a_contradiction_through(
    start_proxy: StartProxy, recorder: Recorder, tmp_path: Path, act: str, size: int
) -> None:
    """Neither one that halts the hooks nor one that takes the refusal back: the last look is not a hook."""
    script = tmp_path / "script.py"
    script.write_text(INTERFERENCE.format(act, act))
    proxy = start_proxy("-s", str(script))
    for lines in [], ["Content-Length: 4"], [f"Content-Length: {size}"]:
        with Raw(proxy.port) as client:
            client.tunnel(recorder.authority)
            request = message("POST", "/", "Host: other.example", *lines, body=b"body" if lines else b"")
            _assert_refused(client.request(request), recorder)
    assert recorder.requests == []


def test_it_holds_without_the_signing_script(start_bare: StartBare, recorder: Recorder) -> None:
    """The status page's script alone brings it along."""
    process = start_bare(scripts=(ADDONS / "status.py",))
    with Raw(process.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", "Host: other.example")).body == b"ok"
    with Raw(process.port) as client:
        client.tunnel(recorder.authority)
        _assert_refused(client.request(message("GET", "/", "Host: other.example")), recorder)
    assert _hosts(recorder) == [recorder.authority]


def test_it_can_be_allowed(start_proxy: StartProxy, upstream: Recorder, proxy_ca: Path) -> None:
    """For clients that dial one name and ask for another, such as `curl --connect-to`."""
    proxy = start_proxy("--set", "jwt_host_mismatch=allow")
    with Raw(proxy.port) as client:
        _tunnel(client, upstream, proxy_ca)
        assert client.request(message("GET", "/", "Host: other.example")).body == b"ok"
    assert _hosts(upstream) == ["other.example"]
    assert verify(upstream.only().token)


# --- what is the user's wish


REDIRECT = """
def http_connect(flow):
    flow.request.host, flow.request.port = "127.0.0.1", {port}
"""


def test_a_redirected_tunnel_keeps_its_name(start_proxy: StartProxy, recorder: Recorder, tmp_path: Path) -> None:
    """A script may send a tunnel elsewhere; the client's Host is measured by what the client asked for."""
    script = tmp_path / "redirect.py"
    script.write_text(REDIRECT.format(port=recorder.port))
    proxy = start_proxy("-s", str(script))
    with Raw(proxy.port) as client:
        client.tunnel(f"{FAR}:80")
        assert client.request(message("GET", "/", f"Host: {recorder.authority}")).status == 421
        assert client.request(message("GET", "/", f"Host: {FAR}")).body == b"ok"
    assert _hosts(recorder) == [FAR]


@pytest.mark.parametrize("tunnel", [False, True])
def test_a_remapped_request_goes_where_the_map_says(start_proxy: StartProxy, recorder: Recorder, tunnel: bool) -> None:
    """The client's Host was right when the client sent it."""
    remap = f"|//{FAR}/|//{recorder.authority}/"
    proxy = start_proxy("--set", "connection_strategy=lazy", "--map-remote", remap)
    with Raw(proxy.port) as client:
        if tunnel:
            client.tunnel(f"{FAR}:80")
        target = "/x" if tunnel else f"http://{FAR}/x"
        assert client.request(message("GET", target, f"Host: {FAR}")).body == b"ok"
    assert _hosts(recorder) == [recorder.authority]


@pytest.mark.parametrize("tunnel", [False, True])
def test_a_host_set_by_an_option_passes(start_proxy: StartProxy, recorder: Recorder, tunnel: bool) -> None:
    """Only the client is held to its words."""
    proxy = start_proxy("--modify-headers", "/~q/Host/virtual.example")
    with Raw(proxy.port) as client:
        if tunnel:
            client.tunnel(recorder.authority)
        target = "/x" if tunnel else f"{recorder.url}/x"
        assert client.request(message("GET", target, f"Host: {recorder.authority}")).body == b"ok"
    assert _hosts(recorder) == ["virtual.example"]


@pytest.mark.parametrize("mode", ["regular", "upstream"])
def test_a_replayed_request_is_sent_as_recorded(
    start_proxy: StartProxy, recorder: Recorder, tmp_path: Path, mode: str
) -> None:
    """Who replays a request may have edited it."""
    flow = tflow.tflow()
    flow.request.host, flow.request.port = "127.0.0.1", recorder.port
    flow.request.authority = ""
    flow.request.headers["host"] = "other.example"
    with (tmp_path / "flows").open("wb") as file:
        FlowWriter(file).add(flow)
    start_proxy("-C", str(tmp_path / "flows"), *(["--mode", f"upstream:{recorder.url}"] if mode == "upstream" else []))
    assert _hosts(recorder) == ["other.example"]


def test_a_reverse_proxy_does_as_mitmproxy_does(start_proxy: StartProxy, recorder: Recorder) -> None:
    """Its clients name the proxy, or a virtual host of the upstream's."""
    for options, expected in ((), recorder.authority), (("--set", "keep_host_header"), "virtual.example"):
        proxy = start_proxy("--mode", f"reverse:{recorder.url}", *options)
        with Raw(proxy.port) as client:
            assert client.request(message("GET", "/", "Host: virtual.example")).body == b"ok"
        assert recorder.requests.pop().values("host") == [expected]
