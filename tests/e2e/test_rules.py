"""Which rule decides: a table of requests, asked of `explain` and sent through the real proxy, which must agree."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jwtproxy.launcher.commands import explain
from tests.support.clients import Http2, Raw, Reply, message, pseudo
from tests.support.harness import SECRET, Proxy, StartProxy, run_launcher, thorough, verify
from tests.support.upstreams import Authority, Recorder

RULES = """\
default: block
rules:
  - name: admin
    match: ~u ^https?://[^/]+/admin
    block: true
  - name: deletes
    match: ~m ^DELETE$
    block: true
  - name: bank's writes
    match: ~d ^bank\\.example$ & ~m '^(POST|PUT)$'
    block: true
  - name: bank
    match: ~d ^bank\\.example$
    block: true
  - name: books
    match: ~d ^xn--bcher-kva\\.example$
    block: true
  - name: metadata
    match: ~d ^169\\.254\\.169\\.254$
    block: true
  - name: internal
    match: ~d \\.internal\\.example$
    block: true
  - name: odd port
    match: ~u ^https?://[^/]+:8443/
    block: true
  - name: not secure
    match: ~d ^secure\\.example$ & ~u ^http:/
    block: true
  - name: secure
    match: ~d ^secure\\.example$
    block: true
  - name: six
    match: ~d ^::1$
    claims: {rule: six}
  - name: open
    match: ~u ^http://127\\.0\\.0\\.1:[0-9]+/open
    sign: false
  - name: tenant
    match: ~u '[?&]tenant=7(&|$)'
    audience: tenant
    claims: {rule: tenant}
  - name: tagged
    match: "~hq '^x-env: test$'"
    header: x-other
    claims: {rule: tagged}
  - name: uploads
    match: ~m ^PUT$ & ~tq ^application/json
    ttl: 60
    claims: {rule: uploads}
  - name: posts
    match: ~d ^127\\.0\\.0\\.1$ & ~m ^POST$
    claims: {rule: posts}
  - name: tls
    match: '~u ^https://127\\.0\\.0\\.1:'
    audience: origin
    claims: {rule: tls}
  - match: ~d ^127\\.0\\.0\\.1$
    audience: origin
    claims: {rule: rule 18}
  - name: by name
    match: ~d ^localhost$
    audience: origin
    claims: {rule: by name}
  - name: neighbours
    match: ~d ^127\\. & !~m ^TRACE$
    claims: {rule: neighbours}
"""

LOOPBACK = "rule 18"
"""That one has no name."""
REFUSED = "none: 421"
"""In place of a rule: none applies."""
BLOCK = {
    *"admin deletes bank books metadata internal secure default".split(),
    "bank's writes",
    "odd port",
    "not secure",
}
PASS = {"open"}


class Case(NamedTuple):
    """A request. In URLs and fields {plain}, {six}, {tls} and {two} are the ports of the upstreams."""

    rule: str
    method: str
    url: str
    fields: tuple[str, ...] = ()
    """Beside Host, or with Hosts of their own."""
    via: str = ""
    """How it is sent: `tunnel` (plain HTTP in CONNECT), `two` (HTTP/2 in TLS in CONNECT); else as its scheme has it."""
    typed: str = ""
    """What explain is asked for, where a client sends something else than a person types."""


CASES = [
    # methods
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/"),
    Case(LOOPBACK, "HEAD", "http://127.0.0.1:{plain}/"),
    Case(LOOPBACK, "OPTIONS", "http://127.0.0.1:{plain}/"),
    Case(LOOPBACK, "PROPFIND", "http://127.0.0.1:{plain}/"),
    Case("posts", "POST", "http://127.0.0.1:{plain}/"),
    Case(LOOPBACK, "POSTS", "http://127.0.0.1:{plain}/"),
    Case("deletes", "DELETE", "http://127.0.0.1:{plain}/"),
    Case("deletes", "delete", "http://127.0.0.1:{plain}/"),
    Case(LOOPBACK, "UNDELETE", "http://127.0.0.1:{plain}/"),
    Case("bank's writes", "POST", "http://bank.example/"),
    Case("bank's writes", "PUT", "https://bank.example/"),
    Case("deletes", "DELETE", "http://bank.example/"),
    # fields
    Case("uploads", "PUT", "http://127.0.0.1:{plain}/", ("Content-Type: application/json",)),
    Case(LOOPBACK, "PUT", "http://127.0.0.1:{plain}/", ("Content-Type: text/plain",)),
    Case("tagged", "GET", "http://127.0.0.1:{plain}/", ("X-Env: test",)),
    Case("tagged", "GET", "http://127.0.0.1:{plain}/", ("x-ENV:test",)),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/", ("X-Env: testing",)),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/", ("Y-X-Env: test",)),
    # hosts
    Case("bank", "GET", "http://bank.example/"),
    Case("bank", "GET", "http://BANK.Example/"),
    Case("bank", "GET", "http://bank.example./"),
    Case("bank", "GET", "http://bank.example:80/"),
    Case("bank", "GET", "http://bank.example:8080/"),
    Case("bank", "GET", "http://bank.example/", typed="http://bank。example/"),
    Case("bank", "GET", "http://bank.example/", typed="http://ｂａｎｋ.example/"),
    Case("default", "GET", "http://thebank.example/"),
    Case("default", "GET", "http://bank.example.evil.example/"),
    Case("default", "GET", "http://bankxexample/"),
    Case("internal", "GET", "http://a.b.internal.example/"),
    Case("internal", "GET", "http://A.INTERNAL.EXAMPLE./"),
    Case("default", "GET", "http://internal.example/"),
    Case("books", "GET", "http://xn--bcher-kva.example/"),
    Case("books", "GET", "http://XN--BCHER-KVA.Example./"),
    Case("books", "GET", "http://xn--bcher-kva.example/", typed="http://bücher.example/"),
    Case("books", "GET", "https://xn--bcher-kva.example/", typed="https://BÜCHER.example/"),
    Case("default", "GET", "http://bucher.example/"),
    Case("metadata", "GET", "http://169.254.169.254/latest/"),
    Case("metadata", "GET", "http://2852039166/latest/"),
    Case("metadata", "GET", "http://0xa9fea9fe/latest/"),
    Case("metadata", "GET", "http://0251.0376.0251.0376/latest/"),
    Case("metadata", "GET", "http://169.254.43518/latest/"),
    Case("metadata", "GET", "http://[::ffff:169.254.169.254]/latest/"),
    Case("metadata", "GET", "http://[::ffff:a9fe:a9fe]/latest/"),
    Case("metadata", "GET", "https://2852039166/latest/"),
    Case(LOOPBACK, "GET", "http://127.1:{plain}/"),
    Case(LOOPBACK, "GET", "http://0x7f000001:{plain}/"),
    Case(LOOPBACK, "GET", "http://2130706433:{plain}/"),
    Case(LOOPBACK, "GET", "http://0177.0.0.1:{plain}/"),
    Case(LOOPBACK, "GET", "http://[::ffff:127.0.0.1]:{plain}/"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/", typed="http://１２７.0.0.1:{plain}/"),
    Case("neighbours", "GET", "http://127.0.0.2:{plain}/"),
    Case(REFUSED, "TRACE", "http://127.0.0.2:{plain}/"),
    Case("by name", "GET", "http://localhost:{plain}/"),
    Case("by name", "GET", "http://LOCALHOST:{plain}/"),
    Case("six", "GET", "http://[::1]:{six}/"),
    Case("six", "GET", "http://[0:0:0:0:0:0:0:1]:{six}/"),
    # ports and schemes
    Case("odd port", "GET", "http://any.example:8443/"),
    Case("odd port", "GET", "https://any.example:8443/"),
    Case("default", "GET", "http://any.example:18443/"),
    Case("default", "GET", "https://any.example:443/"),
    Case("not secure", "GET", "http://secure.example/"),
    Case("not secure", "GET", "http://secure.example:443/", via="tunnel"),
    Case("secure", "GET", "https://secure.example/"),
    Case("secure", "GET", "https://secure.example/", via="two"),
    Case("tls", "GET", "https://127.0.0.1:{tls}/"),
    Case("tls", "GET", "https://127.1:{tls}/"),
    Case("by name", "GET", "https://localhost:{tls}/"),
    Case("by name", "GET", "http://LOCALHOST:{plain}/", via="tunnel"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/", via="tunnel"),
    Case(LOOPBACK, "GET", "ws://127.0.0.1:{plain}/"),
    Case(LOOPBACK, "GET", "HTTP://127.0.0.1:{plain}/"),
    # paths
    Case("admin", "GET", "http://127.0.0.1:{plain}/admin"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/ADMIN/users?x=1"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/%61dmin"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/%61%64%6D%69%6e"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/x/../admin"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/x/%2E%2e/admin"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/./%2e/admin"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/../../admin"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/admin%2Fx"),
    Case("admin", "GET", "http://127.0.0.1:{plain}/%61dmin", via="tunnel"),
    Case("admin", "GET", "https://127.0.0.1:{tls}/%61dmin"),
    Case("admin", "GET", "https://127.0.0.1:{two}/x/../admin", via="two"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/x/admin"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/%2561dmin"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/x?y=/../admin"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/admi%6"),
    Case("open", "GET", "http://127.0.0.1:{plain}/open"),
    Case("open", "GET", "http://127.1:{plain}/%6Fpen?x=1"),
    Case("open", "GET", "http://127.0.0.1:{plain}/open", via="tunnel"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/open/../closed"),
    Case("tls", "GET", "https://127.0.0.1:{tls}/open"),
    Case("tenant", "GET", "http://127.0.0.1:{plain}/?tenant=7"),
    Case("tenant", "GET", "http://127.0.0.1:{plain}/?a=b&ten%61nt=%37"),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/?tenant=77"),
    Case("tenant", "GET", "http://127.0.0.1:{plain}/caf%C3%A9?tenant=7", typed="http://127.0.0.1:{plain}/café?tenant=7"),
    # a Host that says something else: replaced where the target is absolute, refused in a tunnel
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/", ("Host: bank.example",)),
    Case(LOOPBACK, "GET", "http://127.0.0.1:{plain}/", ("Host: 127.0.0.1:{plain}", "Host: bank.example")),
    Case("bank", "GET", "http://bank.example/", ("Host: 127.0.0.1:{plain}",)),
    Case("bank", "GET", "http://bank.example/", ("Host: localhost", "host: 127.0.0.1:{plain}")),
    Case("bank", "GET", "http://bank.example/", ("X-Forwarded-Host: 127.0.0.1:{plain}",)),
    Case("by name", "GET", "http://localhost:{plain}/", ("Host: 127.0.0.1:{plain}",)),
    Case("tls", "GET", "https://127.0.0.1:{tls}/", ("Host: 127.1:{tls}",)),
    Case("tls", "GET", "https://127.0.0.1:{tls}/", ("Host: 127.0.0.1:{tls}", "HOST: 127.0.0.1:{tls}")),
    Case(REFUSED, "GET", "https://127.0.0.1:{tls}/", ("Host: bank.example",)),
    Case(REFUSED, "GET", "https://127.0.0.1:{tls}/", ("Host: 127.0.0.1",)),
    Case(REFUSED, "GET", "https://127.0.0.1:{tls}/", ("Host: 127.0.0.1:{tls}", "Host: bank.example")),
    Case(REFUSED, "GET", "https://127.0.0.1:{tls}/admin", ("Host: localhost:{tls}",)),
    Case(REFUSED, "GET", "https://bank.example/", ("Host: 127.0.0.1:{tls}",)),
    Case("bank", "GET", "https://bank.example/", ("Host: BANK.example.:443",)),
    # HTTP/2, where :authority says what Host does, and a Host may stand beside it
    Case("tls", "GET", "https://127.0.0.1:{two}/", via="two"),
    Case("posts", "POST", "https://127.0.0.1:{two}/", via="two"),
    Case("deletes", "DELETE", "https://127.0.0.1:{two}/", via="two"),
    Case("tagged", "GET", "https://127.0.0.1:{two}/", ("x-env: test",), via="two"),
    Case("bank", "GET", "https://bank.example/", via="two"),
    Case("tls", "GET", "https://127.0.0.1:{two}/", ("host: 127.0.0.1:{two}",), via="two"),
    Case("tls", "GET", "https://127.0.0.1:{two}/", ("host: 127.0.0.1:{two}", "host: 127.1:{two}"), via="two"),
    Case("tls", "GET", "https://127.0.0.1:{two}/", (":authority: 127.1:{two}",), via="two"),
    Case(REFUSED, "GET", "https://127.0.0.1:{two}/", ("host: 127.0.0.1:{two}", "host: bank.example"), via="two"),
    Case(REFUSED, "GET", "https://127.0.0.1:{two}/", ("host: bank.example",), via="two"),
    Case(REFUSED, "GET", "https://127.0.0.1:{two}/", (":authority: bank.example",), via="two"),
    Case(REFUSED, "GET", "https://bank.example/", (":authority: 127.0.0.1:{two}",), via="two"),
]  # fmt: skip

# Nobody can go there: explain says so, and the proxy answers 400.
NOWHERE = [
    "http://%31%32%37.0.0.1/",
    "http://bank.example%00/",
    "http://127.0.0.1:65536/",
    "http://user@127.0.0.1/",
    "http://[::1/",
    "http://[bank.example]/",
    "http://bank..example/",
    "http:///admin",
    "ftp://127.0.0.1/",
]


@pytest.fixture
def upstreams(authority: Authority) -> Iterator[dict[str, Recorder]]:
    """One for each name in braces. Some requests go to another loopback address than the first."""
    with ExitStack() as stack:
        yield {
            "plain": stack.enter_context(Recorder(host="0.0.0.0")),
            "six": stack.enter_context(Recorder(host="::1")),
            "tls": stack.enter_context(Recorder(authority=authority, alpn=["http/1.1"])),
            "two": stack.enter_context(Recorder(authority=authority, alpn=["h2", "http/1.1"])),
        }


@pytest.fixture
def rules_proxy(pristine: None, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Proxy:
    """A proxy with the rules, in a folder and an environment where explain finds the same."""
    (tmp_path / "rules.yaml").write_text(RULES)
    monkeypatch.setenv("JWT_SHARED_SECRET", SECRET)
    settings = {"JWT_RULES": "rules.yaml", "JWT_ALLOW_DESTINATION": "169.254.0.0/16"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # Lazy: what a rule blocks is not even looked up. The last lets contradictions over HTTP/2 come as far as to us.
    options = ("connection_strategy=lazy", "ssl_insecure=true", "validate_inbound_headers=false")
    sets = [part for option in options for part in ("--set", option)]
    proxy = start_proxy(*sets, cwd=tmp_path, env=settings)
    proxy.wait_for_output("  CA  ")  # from here on a line is a request
    return proxy


Outcome = tuple[str, str, int, dict[str, Any] | None]
"""The rule, what it does, the status, the token's claims."""


@pytest.mark.parametrize("step", [21, pytest.param(1, marks=thorough)])
def test_explain_and_the_proxy_say_the_same(
    rules_proxy: Proxy, upstreams: dict[str, Recorder], capsys: pytest.CaptureFixture[str], step: int
) -> None:
    """Each case by its rule; the claims, too, are those that explain foretold. (Of a few: explain is slow.)"""
    assert len(CASES) >= 40 * 3
    wrong = {}
    for number, case in enumerate(CASES):
        filled = _filled(case, upstreams)
        observed = _observed(filled, rules_proxy, upstreams)
        explained = observed if number % step else _explained(filled, capsys)
        if not (explained == observed and observed[:3] == _expected(case)):
            wrong[case] = explained, observed
    assert not wrong, rules_proxy.output


def test_where_nobody_can_go(rules_proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    """No rule is asked."""
    for url in NOWHERE:
        assert explain.run(["GET", url]) == 2, url
        assert f"jwtproxy: error: bad URL {url!r}" in capsys.readouterr().err
        with Raw(rules_proxy.port) as client:
            assert client.request(message("GET", url, "Host: 127.0.0.1")).status == 400, url


def test_explain_as_a_program(upstreams: dict[str, Recorder], tmp_path: Path) -> None:
    """Nothing is sent, no CA made."""
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / ".env").write_text("JWT_RULES=rules.yaml\n")
    url = f"http://2130706433:{upstreams['plain'].port}/"
    done = run_launcher("explain", "--json", "GET", url, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    line = RULES.splitlines().index("  - match: ~d ^127\\.0\\.0\\.1$") + 1
    assert (said["rule"], said["place"], said["action"], said["status"]) == (
        LOOPBACK,
        f"rules.yaml:{line}",
        "sign",
        None,
    )
    assert (
        said["destination"] == said["token"]["claims"]["aud"] == upstreams["plain"].url.replace("0.0.0.0", "127.0.0.1")
    )
    assert upstreams["plain"].connections == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "rules.yaml"]


def _filled(case: Case, upstreams: dict[str, Recorder]) -> Case:
    ports = {name: upstream.port for name, upstream in upstreams.items()}

    def fill(text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: str(ports[found[1]]), text)

    return case._replace(url=fill(case.url), typed=fill(case.typed), fields=tuple(map(fill, case.fields)))


def _expected(case: Case) -> tuple[str, str, int]:
    if case.rule == REFUSED:
        return REFUSED, "refuse", 405 if case.method == "TRACE" else 421
    action = "block" if case.rule in BLOCK else "pass" if case.rule in PASS else "sign"
    return case.rule, action, 403 if action == "block" else 200


def _explained(case: Case, capsys: pytest.CaptureFixture[str]) -> Outcome:
    fields = [part for line in case.fields for part in ("-H", line.replace(":authority", "Host"))]
    status = explain.run(["--json", *fields, case.method, case.typed or case.url])
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), case
    said = json.loads(out)
    claims = _lasting(said["token"]["claims"], said["header"]) if said["token"] else None
    return said["rule"] or REFUSED, said["action"], said["status"] or 200, claims


def _observed(case: Case, proxy: Proxy, upstreams: dict[str, Recorder]) -> Outcome:
    before = {name: len(upstream.requests) for name, upstream in upstreams.items()}
    line = len(proxy.stdout.splitlines())
    reply = _send(case, proxy.port)
    arrived = [seen for name, upstream in upstreams.items() for seen in upstream.requests[before[name] :]]
    assert len(arrived) == (1 if reply.status == 200 else 0), case
    told = _told(proxy, line)
    if reply.status in (405, 421):
        return told, "refuse", reply.status, None
    if reply.status == 403:
        said = "no rule allows this request" if told == "default" else f"blocked by rule {told!r}"
        assert reply.body == f"jwtproxy: {said}\n".encode(), case
        return told, "block", 403, None
    tokens = {name: value for name in ("x-my-jwt", "x-other") for value in arrived[0].values(name)}
    if not tokens:
        return told, "pass", reply.status, None
    ((header, token),) = tokens.items()
    claims = verify(token)
    assert claims["rule"] == told
    return told, "sign", reply.status, _lasting(claims, header)


def _told(proxy: Proxy, line: int) -> str:
    """The rule at the end of the terminal's line of a request."""
    found = proxy.wait_for_output(rf"\A(?:.*\n){{{line}}}.* (?:\d+(?:\.\d+)?m?s|\d{{3}} .+?)(?: \((.+)\))?\n")
    return found[1] or REFUSED


def _lasting(claims: dict[str, Any], header: str) -> dict[str, Any]:
    """The claims that are the same a moment later, times as lengths, and which header carries them."""
    lengths = {name: claims[name] - claims["iat"] for name in ("exp", "nbf") if name in claims}
    return claims | lengths | {"iat": 0, "jti": "", "header": header}


def _send(case: Case, port: int) -> Reply:
    scheme, authority, path = _parts(case.url)
    secure = scheme == "https"
    with Raw(port) as client:
        if secure or case.via:
            client.tunnel(authority if re.search(r":\d+$", authority) else f"{authority}:443")
        if secure:
            client.start_tls(_careless("h2" if case.via == "two" else "http/1.1"), re.sub(r":\d+$", "", authority))
        if case.via == "two":
            return _send_two(case, client)
        hosts = [line for line in case.fields if line.lower().startswith("host:")]
        fields = case.fields if hosts else (f"Host: {authority}", *case.fields)
        return client.request(message(case.method, path if secure or case.via else case.url, *fields), case.method)


def _send_two(case: Case, client: Raw) -> Reply:
    _, authority, path = _parts(case.url)
    fields = [(name, value) for name, _, value in (line.rpartition(": ") for line in case.fields)]
    named = dict(fields).get(":authority", authority)
    two = Http2(client.socket)
    others = [pair for pair in fields if pair[0] != ":authority"]
    return two.reply(two.send([*pseudo(case.method, named, path), *others]))


def _parts(url: str) -> tuple[str, str, str]:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return scheme, authority, slash + path


def _careless(alpn: str) -> ssl.SSLContext:
    """A client's context that takes any certificate: how a name is spelled matters here, not who it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context
