"""Every failure says why: in the status, in the form that is asked for, in Proxy-Status, and on the terminal.

Each row of the manual's table of failures, by HTTP/1.1, in a tunnel by HTTP/1.1 and HTTP/2, and to CONNECT itself;
each as text, as a problem (RFC 9457), as HTML, and to HEAD, which has no body whatever happens.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Http2, Raw, Reply, client_context, message, pseudo
from tests.support.harness import Proxy, thorough
from tests.support.upstreams import Authority, Recorder, deaf_authority, raw, reset, silent

RULES = """
rules:
  - {name: closed, match: ~u /blocked, block: true}
  - {name: nobody, match: ~u /unsigned, user: proxyauth}
"""
WRONG = "Proxy-Authorization: Basic " + base64.b64encode(b"me:wrong").decode()


@dataclass(frozen=True)
class Row:
    """A failure: how it comes about, and what is told of it.

    ways: http, tunnel, h2, connect, h2c. to: the place that is asked for. line: another request line, which may name
    `{place}` and `{path}`. ends: whether the head does. body: what is announced of one, and never comes. quiet: the
    terminal names the client alone, as nobody knows what was asked for. proxy: which of them. before: how many requests
    that are like it come first.
    """

    name: str
    ways: str
    status: int
    error: str
    detail: str
    path: str = "/"
    method: str = "GET"
    fields: tuple[str, ...] = ()
    to: str = "upstream"
    line: str = ""
    ends: bool = True
    body: int = 0
    quiet: bool = False
    proxy: str = "usual"
    before: int = 0
    slow: bool = False


EVERY = "http tunnel h2"
LINKLOCAL = "is denied, as it is a link-local or metadata address; jwt_allow_destination permits it"
ROWS = (
    Row("cannot be signed", EVERY, 502, "proxy_internal_error",
        "the request could not be signed and was not forwarded", "/unsigned"),
    Row("blocked by a rule", EVERY, 403, "http_request_denied", "blocked by rule 'closed'", "/blocked"),
    Row("TRACE", EVERY, 405, "http_request_denied", "TRACE would show the token; jwt_trace=on permits it",
        method="TRACE"),
    Row("closed at once", "http tunnel", 502, "connection_terminated", "server closed connection", "/closed"),
    Row("closed within the head", "http tunnel", 502, "http_response_incomplete",
        "server closed connection within its answer's head", "/cut"),
    Row("not HTTP", "http tunnel", 502, "http_protocol_error",
        "the server's answer does not begin with a status line of HTTP/1.1", "/nonsense"),
    Row("reset", "h2", 502, "connection_terminated", "server closed connection", "/reset"),
    Row("silent", EVERY, 504, "http_response_timeout", "no answer from http\\S+ within 0.5 s", "/silent", slow=True),
    Row("a head too long", EVERY, 431, "http_request_error", "the request's head is too long",
        fields=("X: " + "a" * 40_000,), quiet=True),
    Row("too many fields", EVERY, 431, "http_request_error", "the request's head has too many fields",
        fields=("X: a",) * 300, quiet=True),
    Row("not a list", EVERY.replace(" h2", ""), 400, "http_request_error", "Connection is not a list of tokens",
        fields=('Connection: "x"',)),
    Row("a control character", EVERY, 400, "http_request_error", "a header value contains a control character.*",
        fields=("X: a\0b",), quiet=True),
    Row("a body that does not come", EVERY, 408, "http_request_error",
        "nothing more of the request's body came within 0.4 s", method="POST", body=5, slow=True),
    Row("another host in a tunnel", "tunnel h2", 421, "http_request_denied", "this tunnel leads to https\\S+, but .*",
        fields=("Host: other.example",)),
    Row("CONNECT in a tunnel", "tunnel", 400, "http_request_error",
        "CONNECT is not served here: within a tunnel, or in this mode", line="CONNECT {place} HTTP/1.1"),
    Row("a head that does not come", "http tunnel", 408, "http_request_error",
        "the request's head was not complete within 0.4 s", ends=False, quiet=True, slow=True),
    Row("another version", "http tunnel", 505, "http_request_error", "this version of HTTP is not supported",
        line="GET {path} HTTP/2.0", quiet=True),
    Row("another coding", "http tunnel", 501, "http_request_error", "no transfer coding but chunked is supported",
        fields=("Transfer-Encoding: gzip, chunked",), quiet=True),
    Row("no method", "http tunnel", 400, "http_request_error", "the request's method is not a token",
        line="G(T {path} HTTP/1.1", quiet=True),
    Row("no target", "http", 400, "http_request_error", "the request's target is neither a URL nor a path",
        line="GET nonsense HTTP/1.1", quiet=True),
    Row("no such port", "http", 400, "http_request_error", "the request's host or port is not valid",
        line="GET http://a.example:99999/ HTTP/1.1", quiet=True),
    Row("denied", "http connect", 403, "destination_ip_prohibited", f"\\S+ {LINKLOCAL}", to="169.254.169.254:80"),
    Row("a denied port", "http connect", 403, "http_request_denied",
        "\\S+ is denied, as its port is not in jwt_allow_port", to="127.0.0.1:9", proxy="narrow"),
    Row("refused", "http connect", 502, "connection_refused",
        "cannot connect to \\S+: connection refused", to="nobody"),
    Row("no such name", "http connect", 502, "dns_error", "cannot connect to \\S+: .*name.*", to="nosuch.invalid:80"),
    Row("deaf", "http connect", 502, "connection_timeout", "cannot connect to \\S+: no connection within 0.5 s",
        to="deaf", slow=True),
    Row("of an unknown CA", EVERY, 502, "tls_certificate_error",
        "cannot connect to https\\S+: certificate verify failed: .*", to="untrusted"),
    Row("no TLS", EVERY, 502, "tls_protocol_error", "cannot connect to https\\S+: .*TLS.*", to="plain"),
    Row("itself", "connect", 403, "destination_ip_prohibited", "no tunnel to the proxy itself", to="self"),
    Row("a circle", "http", 502, "proxy_loop_detected",
        "the request has been here before: two proxies lead to each other", fields=("Via: {via}",)),
    Row("no password", "http connect", 407, "http_request_denied", "the user and password are missing or wrong",
        proxy="guarded"),
    Row("many wrong passwords", "http connect", 429, "http_request_denied", "too many wrong passwords; wait \\d+ s",
        fields=(WRONG,), proxy="guessed", before=2),
    Row("a stranger", "http connect", 403, "http_request_denied",
        "this client may not use the proxy; jwt_allow_client names those who may", proxy="narrow-clients"),
    Row("a large body", "http", 413, "http_request_error", "the request's body exceeds body_size_limit", method="POST",
        body=2000, proxy="small"),
    Row("block_list", "http", 403, "http_request_denied", "block_list blocks this request", "/listed", proxy="small"),
    Row("refused by the next proxy", "http", 502, "connection_refused",
        "cannot connect to http://\\S+: connection refused", proxy="by-next"),
    Row("denied the tunnel", "tunnel h2", 502, "destination_unavailable",
        "cannot connect to http\\S+: the proxy \\S+ refused the tunnel: 403 Forbidden", proxy="by-strict"),
    Row("behind a reverse proxy", "http", 502, "connection_refused",
        "cannot connect to http://\\S+: connection refused", line="GET /x HTTP/1.1", proxy="reverse"),
    Row("CONNECT to a reverse proxy", "connect", 400, "http_request_error",
        "CONNECT is not served here: within a tunnel, or in this mode", proxy="reverse"),
    Row("no such page", "http", 404, "", "this is a proxy; / lists the pages that it has",
        line="GET /nope HTTP/1.1"),
    Row("no method of a page", "http", 405, "", "/status is read-only", line="POST /status HTTP/1.1"),
    Row("HTTP/2 without TLS", "h2c", 505, "http_request_error", "HTTP/2 without TLS \\(h2c\\) is not supported: .*",
        quiet=True),
)  # fmt: skip

FORMS: Mapping[str, tuple[str, str]] = {
    "text": ("", "text/plain; charset=utf-8"),
    "problem": ("application/json", "application/problem+json"),
    "page": ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
    "head": ("", "text/plain; charset=utf-8"),
}


def _cases() -> Iterator[Any]:
    """Every row in two forms by each of its ways, what is slow in one; all others are for `make test-all`."""
    turn = itertools.cycle(("problem", "page", "head"))
    for row in ROWS:
        for way in row.ways.split():
            second = next(turn)
            for form in FORMS:
                if form == "head" and not _may_be_head(row, way):
                    continue
                wanted = form == second and row.ways.startswith(way) if row.slow else form in ("text", second)
                yield pytest.param(row, way, form, id=f"{row.name}-{way}-{form}", marks=() if wanted else thorough)


def _may_be_head(row: Row, way: str) -> bool:
    return way != "connect" and row.method == "GET" and (not row.line or row.line.startswith("GET "))


@dataclass
class Stage:
    """The proxies, and the places where requests fail."""

    proxies: dict[str, Proxy]
    ca: Path
    plain: Recorder
    secure: Recorder
    secure_h2: Recorder
    places: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def place(self, row: Row, way: str) -> str:
        """Host and port that a row asks for."""
        if row.to == "upstream":
            return {"http": self.plain, "h2": self.secure_h2}.get(way, self.secure).authority
        if row.to == "self":
            return f"127.0.0.1:{self.proxies[row.proxy].port}"
        return self.places.get(row.to, row.to)


@contextlib.contextmanager
def _no_tls() -> Iterator[str]:
    """A server that answers a TLS handshake as if it were HTTP; its authority."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with server.accept()[0] as connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Stage]:
    """Few proxies for all rows: most need the usual one."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "rules.yaml").write_text(RULES)
    trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.pem}")
    limits = {
        "connect_timeout": "0.5",
        "response_timeout": "0.5",
        "head_timeout": "0.4",
        "body_timeout": "0.4",
        "max_head": "32768",
    }
    quick = [part for name, value in limits.items() for part in ("--set", f"jwt_{name}={value}")]
    settings: dict[str, list[str]] = {
        "usual": [*quick, "--set", "jwt_rules=rules.yaml"],
        "guarded": ["--proxyauth", "me:pass"],
        "narrow": ["--set", "jwt_allow_port=443"],
        "narrow-clients": ["--set", "jwt_allow_client=192.0.2.1"],
        "small": ["--set", "body_size_limit=1k", "--set", "block_list=|~u /listed|403"],
        "guessed": ["--proxyauth", "me:pass", "--set", "jwt_max_failed_passwords=1"],
    }
    other = Authority(tmp_path_factory.mktemp("other"))
    with contextlib.ExitStack() as stack:

        def start(args: list[str]) -> Proxy:
            return stack.enter_context(Proxy(*trust, *args, cwd=folder, confdir=confdir))

        nobody = stack.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))
        closed = "127.0.0.1:{1}".format(*nobody.getsockname())
        settings |= {
            "by-next": ["--mode", f"upstream:http://{closed}"],
            "reverse": ["--mode", f"reverse:http://{closed}"],
        }
        proxies = {name: start(args) for name, args in settings.items()}
        proxies["by-strict"] = start(["--mode", f"upstream:{proxies['narrow-clients'].url}"])
        plain, secure = stack.enter_context(Recorder()), stack.enter_context(Recorder(authority=authority))
        secure_h2 = stack.enter_context(Recorder(authority=authority, alpn=("h2",)))
        untrusted = stack.enter_context(Recorder(authority=other))
        secure_h2.route("/reset", reset())
        secure_h2.route("/silent", silent())
        for upstream in (plain, secure):
            upstream.route("/closed", raw(b""))
            upstream.route("/cut", raw(b"HTTP/1.1 200 OK\r\nContent-Le"))
            upstream.route("/nonsense", raw(b"nonsense\r\n\r\n"))
            upstream.route("/silent", silent())
        found = Stage(proxies, confdir / "mitmproxy-ca-cert.pem", plain, secure, secure_h2)
        found.places = {
            "nobody": closed, "deaf": stack.enter_context(deaf_authority()),
            "untrusted": untrusted.authority, "plain": stack.enter_context(_no_tls()),
        }  # fmt: skip
        yield found
        for process in proxies.values():
            assert process.running
            process.stop()
            assert "Traceback" not in process.output, process.output


@pytest.mark.parametrize(("row", "way", "form"), list(_cases()))
def test_each_failure_says_why(stage: Stage, row: Row, way: str, form: str) -> None:
    stage.number += 1
    path = f"{row.path}?{stage.number}"
    accept, content_type = FORMS[form]
    method = "HEAD" if form == "head" else row.method
    fields = [f"Accept: {accept}"] if accept else []
    asked = "CONNECT \\S+" if way == "connect" else "\\w+ \\S+" if row.line else rf"{method} \S+\?…"
    said = rf"\d\d:\d\d:\d\d {asked} ({row.status} )?{row.detail} [\d.]+[a-z]+( \(\w+\))?\n"
    proxy = stage.proxies[row.proxy]
    told = len([*re.finditer(said, proxy.stdout)])
    for _ in range(row.before):
        WAYS[way](stage, row, method, path, fields)
    reply = WAYS[way](stage, row, method, path, fields)
    _check(reply, row, content_type, method)
    if row.quiet:
        proxy.wait_for_output(rf"jwtproxy: warning: 127\.0\.0\.1:\d+: {row.detail}\n")
    else:
        proxy.wait_for_output(rf"(?:{said}(?s:.)*?){{{told + 1}}}")


def _check(reply: Reply, row: Row, content_type: str, method: str) -> None:
    assert reply.status == row.status, reply
    assert reply.values("server") == ["jwtproxy"]
    assert len(reply.values("date")) == 1
    assert reply.values("vary") == ["Accept"]
    assert reply.values("proxy-status") == ([f"jwtproxy; error={row.error}"] if row.error else [])
    assert reply.values("content-type") == [content_type]
    everything = b"".join(name + value for name, value in reply.fields) + reply.body
    assert b"mitmproxy" not in everything.lower()
    assert b"eyJ" not in everything
    if method == "HEAD":
        assert reply.body == b""
    elif content_type.startswith("text/plain"):
        assert re.fullmatch(rf"jwtproxy: {row.detail}\n", reply.body.decode()), reply.body
    elif content_type.startswith("text/html"):
        assert reply.body.startswith(b"<!doctype html>\n")
        assert f"<h1>{row.status} ".encode() in reply.body
    else:
        problem = json.loads(reply.body)
        assert (problem.pop("type"), problem.pop("status")) == ("about:blank", row.status)
        assert re.fullmatch(row.detail, problem.pop("detail"))
        assert problem.keys() == {"title"}


# --- the ways


def _http(stage: Stage, row: Row, method: str, path: str, fields: list[str]) -> Reply:
    place = stage.place(row, "http")
    scheme = "https" if row.to in ("untrusted", "plain") else "http"
    with Raw(stage.proxies[row.proxy].port) as client:
        return _ask(stage, client, row, method, place, f"{scheme}://{place}{path}", fields)


def _tunnel(stage: Stage, row: Row, method: str, path: str, fields: list[str]) -> Reply:
    place = stage.place(row, "tunnel")
    with Raw(stage.proxies[row.proxy].port) as client:
        client.secure_tunnel(place, stage.ca)
        return _ask(stage, client, row, method, place, path, fields)


def _ask(stage: Stage, client: Raw, row: Row, method: str, place: str, target: str, fields: list[str]) -> Reply:
    """Ask by HTTP/1.1; what follows the answer is no part of it."""
    if "Via: {via}" in row.fields:
        (via,) = client.request(message("GET", target, f"Host: {place}")).values("via")
        fields = [*fields, f"Via: {via}"]
    own = [each for each in row.fields if each != "Via: {via}"]
    host = [] if any(each.startswith("Host:") for each in own) else [f"Host: {place}"]
    body = [f"Content-Length: {row.body}"] if row.body else []
    data = message(method, target, *host, *fields, *own, *body)
    if row.line:
        line = row.line.format(place=place, path=target).replace("GET", method)
        data = line.encode() + data[data.index(b"\r\n") :]
    client.send(data if row.ends else data[:-2])
    reply = client.reply(method)
    if "close" in reply.values("connection"):
        assert client.rest() == b""
    else:
        assert client.request(message("GET", "/fence", f"Host: {place}")).status > 0
    return reply


def _connect(stage: Stage, row: Row, method: str, path: str, fields: list[str]) -> Reply:
    place = stage.place(row, "connect")
    with Raw(stage.proxies[row.proxy].port) as client:
        return client.request(message("CONNECT", place, f"Host: {place}", *row.fields, *fields))


def _h2(stage: Stage, row: Row, method: str, path: str, fields: list[str]) -> Reply:
    place = stage.place(row, "h2")
    with Raw(stage.proxies[row.proxy].port) as client:
        two = Http2(client.secure_tunnel(place, stage.ca, "h2"))
        return _ask_h2(two, row, pseudo(method, place, path), fields)


def _h2c(stage: Stage, row: Row, method: str, path: str, fields: list[str]) -> Reply:
    with Raw(stage.proxies[row.proxy].port) as client:
        return _ask_h2(Http2(client.socket), row, pseudo(method, "a.example", path), fields)


def _ask_h2(two: Http2, row: Row, head: list[tuple[str, str]], fields: list[str]) -> Reply:
    pairs = [each.split(": ", 1) for each in (*row.fields, *fields)]
    if row.body:
        pairs.append(["content-length", str(row.body)])
    stream = two.h2.get_next_available_stream_id()
    two.h2.send_headers(stream, [*head, *((name.lower(), value) for name, value in pairs)], end_stream=not row.body)
    two.flush()
    try:
        reply = two.reply(stream)
    except ConnectionResetError:  # after all has been said
        reply = two._replies[stream]
    assert reply.values("connection") == []
    return reply


WAYS: Mapping[str, Callable[[Stage, Row, str, str, list[str]], Reply]] = {
    "http": _http, "tunnel": _tunnel, "h2": _h2, "connect": _connect, "h2c": _h2c,
}  # fmt: skip


# --- what is not answered by HTTP


def test_a_client_that_rejects_the_ca_is_told_of_on_the_terminal(stage: Stage, authority: Authority) -> None:
    """Once with a hint where the CA is."""
    proxy, place = stage.proxies["usual"], stage.secure.authority
    for _ in range(2):
        with Raw(proxy.port) as client:
            client.tunnel(place)
            with pytest.raises(OSError, match="certificate verify failed"):
                client.start_tls(client_context(authority.pem))
        proxy.wait_for_output(rf"\d TLS {re.escape(place)} the client does not trust the proxy's CA\n")
    proxy.wait_for_output(rf"jwtproxy: hint: have clients trust {re.escape(str(stage.ca))}; see: ")
    assert proxy.output.count("hint: have clients trust") == 1
    assert "Client TLS handshake failed" not in proxy.output


@pytest.mark.parametrize(
    ("says", "hears"), [(b"\x05\x01\x00", b"\x05\xff"), (b"\x04\x01\0P\x7f\0\0\1\0", b"\0[" + bytes(6))]
)
def test_a_socks_client_is_told_and_hung_up_on(stage: Stage, says: bytes, hears: bytes) -> None:
    proxy = stage.proxies["usual"]
    with Raw(proxy.port, timeout=5) as client:
        client.send(says)
        assert client.rest() == hears
    proxy.wait_for_output("jwtproxy: warning: 127.0.0.1:\\d+ was refused as it speaks SOCKS: this is an HTTP proxy\n")
    assert proxy.output.count("SOCKS") == 1
