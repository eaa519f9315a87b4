"""`jwtproxy.test` is answered by the proxy itself: what is told would have been sent, and nobody is contacted."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.addons import mapremote, tlsconfig
from mitmproxy.certs import CertStore
from mitmproxy.options import Options
from mitmproxy.proxy import mode_specs
from mitmproxy.test import tflow

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.addons.status import Status
from jwtproxy.mitm import echo
from jwtproxy.tokens.key_source import SECRET, KeySource

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream

pytestmark = pytest.mark.usefixtures("pristine", "lookups")

GET = b"GET http://jwtproxy.test/a?b=c HTTP/1.1\r\nHost: jwtproxy.test\r\nX-My-JWT: mine\r\nCookie: a=b\r\n\r\n"
STATUS = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that are looked up, of which none is found; a test must clear what it expects."""
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in (None, "127.0.0.1"):
            return look_up(host, *arguments, **options)
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    assert asked == []


@pytest.fixture(scope="module")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA."""
    folder = tmp_path_factory.mktemp("ca")
    CertStore.create_store(folder, "mitmproxy", 2048)
    return folder


def _addons(*more: object) -> tuple[object, ...]:
    return (*more, Status(), JwtInject(KeySource(SECRET, secrets.token_bytes(64))))


@pytest.mark.parametrize("mode", ["regular", "upstream:http://127.0.0.1:1"])
@pytest.mark.parametrize("lane", [False, True])
def test_what_would_have_been_sent_is_told_and_not_counted(serve: Serve, mode: str, lane: bool) -> None:
    async def run() -> None:
        async with serve(*_addons(), mode=[mode], lane=lane) as proxy, proxy.client() as client:
            for _ in range(2):
                told = json.loads((await client.ask(GET)).body)
                assert (told["method"], told["url"]) == ("GET", "http://jwtproxy.test/a?b=c")
                assert told["headers"]["Host"] == "jwtproxy.test"
                assert told["headers"]["x-my-jwt"] == "[token, shown decoded]"
                assert told["headers"]["Cookie"] == "[hidden]"
                assert told["token"]["header"] == {"alg": "HS512", "typ": "JWT"}
                assert set(told["token"]["claims"]) == {"iat", "jti", "payload"}
                assert ("Via" in told["headers"]) == mode.startswith("upstream")
            assert json.loads((await client.ask(STATUS)).body)["proxied_requests"] == 0
            assert proxy.carried == 0

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["regular", "upstream:http://127.0.0.1:1"])
@pytest.mark.parametrize("strategy", ["eager", "lazy"])
@pytest.mark.parametrize("lane", [False, True])
def test_a_tunnel_leads_to_nobody(
    serve: Serve, confdir: Path, caplog: pytest.LogCaptureFixture, mode: str, strategy: str, lane: bool
) -> None:
    caplog.set_level("INFO")

    async def run() -> None:
        options = {"mode": [mode], "connection_strategy": strategy, "confdir": str(confdir)}
        async with serve(*_addons(tlsconfig.TlsConfig()), lane=lane, **options) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"CONNECT jwtproxy.test:443 HTTP/1.1\r\nHost: jwtproxy.test:443\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            trust = ssl.create_default_context(cafile=confdir / "mitmproxy-ca-cert.pem")
            await writer.start_tls(trust, server_hostname="jwtproxy.test")
            for _ in range(2):
                writer.write(b"GET /y HTTP/1.1\r\nHost: jwtproxy.test\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                told = json.loads(await reader.readexactly(length))
                assert (told["url"], told["http_version"]) == ("https://jwtproxy.test/y", "HTTP/1.1")
                assert told["token"]
            writer.close()

    asyncio.run(run())
    assert not any("server connect" in said or "Unable to" in said for said in caplog.messages), "nor tries to"


def test_a_tunnel_may_carry_plain_http(serve: Serve) -> None:
    async def run() -> None:
        async with serve(*_addons()) as proxy, proxy.client() as client:
            assert (
                await client.ask(b"CONNECT JWTPROXY.test.:80 HTTP/1.1\r\nHost: a\r\n\r\n", head_only=True)
            ).code == 200
            told = json.loads((await client.ask(b"GET / HTTP/1.1\r\nHost: jwtproxy.test.\r\n\r\n")).body)
            assert told["url"] == "http://jwtproxy.test/"
            reply = await client.ask(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
            assert reply.code == 421

    asyncio.run(run())


def test_what_a_hook_sends_elsewhere_goes_there(serve: Serve, upstream: type[Upstream]) -> None:
    """And what one sends here, is answered here."""

    async def run() -> None:
        mapping = mapremote.MapRemote()
        async with upstream() as server, serve(*_addons(mapping)) as proxy, proxy.client() as client:
            rules = [f"|http://jwtproxy.test/away|http://{server.authority}/", "|//a.example/|//jwtproxy.test/"]
            proxy.master.options.update(map_remote=rules)
            here = await proxy.ask(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert json.loads(here.body)["url"] == "http://jwtproxy.test/"
            connect = b"CONNECT jwtproxy.test:80 HTTP/1.1\r\nHost: a\r\n\r\n"
            assert (await client.ask(connect, head_only=True)).code == 200
            for path, body in ((b"/away", b"ok"), (b"/", b"{")):
                reply = await client.ask(b"GET %s HTTP/1.1\r\nHost: jwtproxy.test\r\n\r\n" % path)
                assert reply.body.startswith(body)
            assert len(server.heads) == 1
            assert b"\r\nx-my-jwt: " in server.heads[0]

    asyncio.run(run())


def test_what_is_no_http_in_a_tunnel_gets_nowhere(serve: Serve) -> None:
    async def run() -> None:
        async with serve(*_addons(), rawtcp=True) as proxy, proxy.client() as client:
            assert (
                await client.ask(b"CONNECT jwtproxy.test:80 HTTP/1.1\r\nHost: a\r\n\r\n", head_only=True)
            ).code == 200
            client.send(b"\0\1\2\3 nothing\n")
            assert await client.rest() == b""

    asyncio.run(run())


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (b"HEAD http://jwtproxy.test/ HTTP/1.1\r\nHost: a\r\n", 200),
        (b"OPTIONS http://jwtproxy.test HTTP/1.1\r\nHost: a\r\n", 200),
        (b"BREW http://jwtproxy.test/ HTTP/1.1\r\nHost: a\r\n", 200),
        (b"GET https://jwtproxy.test/ HTTP/1.1\r\nHost: a\r\n", 200),
        (b"GET http://jwtproxy.test/ HTTP/1.0\r\n", 200),
        (b"TRACE http://jwtproxy.test/ HTTP/1.1\r\nHost: a\r\n", 405),
        (b"GET http://jwtproxy.test/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", 400),
        (b"PUT http://jwtproxy.test/ HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n", 200),
    ],
)
def test_each_request_has_an_answer_at_once(serve: Serve, lines: bytes, code: int) -> None:
    """Also where its body never comes."""

    async def run() -> None:
        async with serve(*_addons(), stream_large_bodies="1") as proxy, proxy.client() as client:
            assert (await asyncio.wait_for(client.ask(lines + b"\r\n", head_only=True), 5)).code == code

    asyncio.run(run())


def test_a_length_is_told_as_far_as_it_is_known(serve: Serve) -> None:
    async def run() -> None:
        async with serve(*_addons()) as proxy:
            line = b"PUT http://jwtproxy.test/ HTTP/1.1\r\nHost: a\r\n"
            for rest in (b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"):
                assert json.loads((await proxy.ask(line + rest)).body)["body_bytes"] == 3

    asyncio.run(run())


def test_what_would_be_refused_is(serve: Serve, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n- name: no\n  match: '~u /no'\n  block: true\n- name: plain\n  match: '~u /plain'\n  sign: false\n"
        "- match: '~u /other'\n  header: X-Other\n"
    )

    async def run() -> None:
        async with serve(*_addons(), jwt_rules=str(rules)) as proxy:

            async def ask(path: bytes) -> Any:
                return await proxy.ask(GET.replace(b"/a?b=c", path))

            assert (await ask(b"/no")).code == 403
            told = {path: json.loads((await ask(path)).body) for path in (b"/plain", b"/other", b"/x")}
            assert (told[b"/plain"]["token"], told[b"/plain"]["rule"]) == (None, "plain")
            assert told[b"/other"]["token"]["field"] == "X-Other"
            assert (told[b"/x"]["token"]["field"], told[b"/x"]["rule"]) == ("x-my-jwt", "default")
            assert not any("mine" in json.dumps(one) for one in told.values())

    asyncio.run(run())


def test_without_a_key_it_is_refused_as_all_are(serve: Serve) -> None:
    async def run() -> None:
        async with serve(Status(), JwtInject()) as proxy:
            assert (await proxy.ask(GET)).code == 502

    asyncio.run(run())


def test_no_address_of_it_is_looked_up_where_the_proxy_has_its_port(serve: Serve) -> None:
    addon = Status()

    async def run() -> None:
        async with serve(addon, *_addons()[1:]):
            vars(addon._guard)["_own"] = type("Own", (), {"ports": {80, 443}})()
            flow = tflow.tflow()
            flow.request.host, flow.request.port = "jwtproxy.test", 80
            flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse("regular")
            assert addon.requestheaders(flow) is None
            assert addon.http_connect(flow) is None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("mode", "on", "expected"),
    [
        ("regular", True, True),
        ("upstream:http://a", True, True),
        ("regular", False, False),
        ("reverse:http://jwtproxy.test", True, False),
        ("socks5", True, False),
        ("transparent", True, False),
    ],
)
def test_only_who_knows_of_the_proxy_is_answered(mode: str, on: bool, expected: bool) -> None:
    options = Options()
    assert not echo.is_on(options)
    echo.hang(options, on=on)
    client = tflow.tclient_conn()
    client.proxy_mode = mode_specs.ProxyMode.parse(mode)
    assert echo.answers(options, client, "jwtproxy.test", 80) is expected
    assert not echo.answers(options, client, "jwtproxy.test", 8080)
    assert not echo.answers(options, client, "example.com", 80)


def test_without_pages_it_is_a_name_like_any_other(serve: Serve, lookups: list[str]) -> None:
    async def run() -> None:
        async with serve(*_addons(), jwt_pages="off") as proxy:
            for request in (GET, b"CONNECT jwtproxy.test:443 HTTP/1.1\r\nHost: a\r\n\r\n"):
                assert (await proxy.ask(request)).code == 502
        assert set(lookups) == {"jwtproxy.test"}
        lookups.clear()

    asyncio.run(run())
