"""What is asked of the proxy itself is answered; the proxy never becomes its own upstream."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons.proxyauth import ProxyAuth
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import mode_specs
from mitmproxy.test import taddons, tflow, tutils

import jwtproxy
from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.addons.status import Status
from jwtproxy.mitm import flows, patches
from jwtproxy.observe import pages
from jwtproxy.observe.counters import Counters
from jwtproxy.tokens.key_source import SECRET, KeySource

if TYPE_CHECKING:
    from tests.support.inside import Inside, Serve, Upstream

pytestmark = pytest.mark.usefixtures("pristine")

OWN = b"GET /status HTTP/1.1\r\nHost: anything.example:9\r\n\r\n"


def _flow(path: str = "/status", *, to_self: bool = False, mode: str = "regular", method: str = "GET") -> HTTPFlow:
    flow = tflow.tflow(req=tutils.treq(path=path.encode(), method=method.encode()))
    flow.client_conn.proxy_mode = mode_specs.ProxyMode.parse(mode)
    if to_self:
        flows.mark_to_self(flow)
    return flow


def _ask(addon: Status, flow: HTTPFlow) -> int | None:
    """The status code of the answer, if there is one."""
    assert addon.requestheaders(flow) is None, "no address had to be looked up"
    return flow.response.status_code if flow.response else None


def _get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


# --- pages


def test_status_is_json(serve: Serve) -> None:
    async def run() -> None:
        async with serve(Status()) as proxy:
            reply = await proxy.ask(OWN)
            assert reply.code == 200
            status = json.loads(reply.body)
            names = {"uptime_seconds", "proxied_requests", "started_at", "version", "fast_lane_requests", "limits"}
            assert names <= set(status)
            assert [worker["pid"] for worker in status["workers"]] == [os.getpid()]
            assert status["version"] == jwtproxy.__version__

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/status", 200),
        ("HEAD", "/status?x", 200),
        ("POST", "/status", 405),
        ("GET", "/nope", 404),
        ("OPTIONS", "*", 204),
        ("GET", "/proxy.pac", 200),
        ("GET", "/ca.pem", 503),  # there is none here
    ],
)
def test_requests_to_the_proxy_are_answered(method: str, path: str, code: int) -> None:
    addon = Status()
    with taddons.context(addon):
        assert _ask(addon, _flow(path, to_self=True, method=method)) == code


def test_the_public_keys_are_those_that_are_published() -> None:
    class Signs:
        name = "jwtinject"
        published = '{"keys": [1]}', 7

    addon = Status()
    with taddons.context(addon, Signs()):
        flow = _flow("/.well-known/jwks.json", to_self=True)
        assert _ask(addon, flow) == 200
        assert flow.response
        assert flow.response.json() == {"keys": [1]}
        assert flow.response.headers["cache-control"] == "public, max-age=7"
        again = _flow("/.well-known/jwks.json", to_self=True)
        again.request.headers["if-none-match"] = flow.response.headers["etag"]
        assert _ask(addon, again) == 304
        assert again.response
        assert again.response.headers.get("content-length") in (None, "13"), "RFC 9110 §8.6"


def test_without_anyone_who_signs_none_are_published() -> None:
    addon = Status()
    with taddons.context(addon):
        flow = _flow("/.well-known/jwks.json", to_self=True)
        assert _ask(addon, flow) == 200
        assert flow.response
        assert flow.response.json() == {"keys": []}


def _body(addon: Status, path: str, **changes: Any) -> tuple[int, str]:
    flow = _flow(path, to_self=True, method=changes.get("method", "GET"))
    flow.client_conn.peername = (changes.get("source", "192.0.2.1"), 1)
    flow.request.headers["host"] = "localhost"
    code = _ask(addon, flow)
    assert code
    assert flow.response
    return code, flow.response.text or ""


def test_it_is_ready_between_its_start_and_its_end() -> None:
    addon = Status()
    with taddons.context(addon):
        assert _body(addon, "/readyz") == (503, "jwtproxy: not ready: starting\n")
        assert _body(addon, "/livez") == (200, "ok\n")
        addon.running()
        assert _body(addon, "/readyz") == (200, "ok\n")
        assert _body(addon, "/readyz", method="HEAD")[0] == 200
        addon.leave()
        assert _body(addon, "/readyz") == (503, "jwtproxy: not ready: draining\n")
        assert _body(addon, "/livez") == (200, "ok\n")


def test_it_is_not_ready_while_nothing_can_be_signed() -> None:
    class Signs:
        name = "jwtinject"
        policy: Any = None

    class Expired:
        def lacking(self, now: float) -> str:
            return "no key may sign now"

    addon, signs = Status(), Signs()
    with taddons.context(addon, signs):
        addon.running()
        assert _body(addon, "/readyz") == (503, "jwtproxy: not ready: the settings cannot be used\n")
        signs.policy = Expired()
        assert _body(addon, "/readyz") == (503, "jwtproxy: not ready: no key may sign now\n")
        assert _body(addon, "/livez") == (200, "ok\n")


def test_the_root_names_the_proxy_as_its_client_does() -> None:
    addon = Status()
    with taddons.context(addon):
        flow = _flow("/", to_self=True)
        flow.request.headers["host"] = "proxy.example:81"
        assert _ask(addon, flow) == 200
        assert flow.response
        assert "curl --proxy http://proxy.example:81 " in (flow.response.text or "")


@pytest.mark.parametrize("path", pages.PAGES)
def test_with_a_password_each_page_is_for_whom_the_table_says(path: str) -> None:
    patches.install()
    addon, auth = Status(), ProxyAuth()
    with taddons.context(addon, auth) as context:
        context.configure(auth, proxyauth="a:b")
        from_afar, from_here = _body(addon, path)[0], _body(addon, path, source="127.0.0.1")[0]
        assert from_here != 401
        assert from_afar == (from_here if pages.reader_of(path) is pages.Reader.ANYONE else 401)


def test_nor_where_there_are_no_usable_settings() -> None:
    """Started as scripts, without a key: each request is refused, and this one answered."""
    addon = Status()
    with taddons.context(JwtInject(), addon):
        assert _ask(addon, _flow("/.well-known/jwks.json", to_self=True)) in (200, 404, 503)


def test_status_through_the_proxy_is_that_of_another() -> None:
    addon = Status()
    with taddons.context(addon):
        assert _ask(addon, _flow("/status")) is None


@pytest.mark.parametrize(
    ("pages", "mode", "to_self", "code"),
    [
        ("auto", "regular", True, 200),
        ("auto", "upstream:http://up.example", True, 200),
        ("auto", "reverse:http://up.example", False, None),
        ("on", "reverse:http://up.example", False, 200),
        ("on", "socks5", False, 200),
        ("on", "regular", False, None),
        ("on", "upstream:http://up.example", False, None),
        ("off", "regular", True, 404),
        ("127.0.0.1:9090", "regular", True, 404),
        ("127.0.0.1:9090", "pages@127.0.0.1:9090", True, 200),
        ("127.0.0.1:9090", "reverse:http://up.example", False, None),
        ("off", "reverse:http://up.example", False, None),
    ],
)
def test_pages_are_served_where_the_option_says(pages: str, mode: str, to_self: bool, code: int | None) -> None:
    addon = Status()
    with taddons.context(addon) as context:
        context.configure(addon, jwt_pages=pages)
        flow = _flow(mode=mode, to_self=to_self)
        assert _ask(addon, flow) == code
        assert flows.to_self(flow) == (code is not None), "what we answer never leaves"


def test_where_only_the_path_tells_other_paths_are_the_upstreams() -> None:
    addon = Status()
    with taddons.context(addon) as context:
        context.configure(addon, jwt_pages="on")
        assert _ask(addon, _flow("/nope", mode="reverse:http://up.example")) is None


@pytest.mark.parametrize("value", ["ON", "yes"])
def test_a_bad_value_is_an_error_that_names_it(value: str) -> None:
    addon = Status()
    with taddons.context(addon) as context:
        context.configure(addon, jwt_pages="on")
        with pytest.raises(exceptions.OptionsError, match=f"bad value '{value}' for jwt_pages"):
            context.configure(addon, jwt_pages=value)
        assert _ask(addon, _flow(to_self=True)) == 200, "as before"


def test_a_script_with_a_bad_value_says_so_and_answers_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    addon = Status()
    with taddons.context() as context:
        context.options.update_defer(jwt_pages="maybe")
        context.master.addons.add(addon)
        context.configure(addon)
        hint = "use one of auto, on, off, or HOST:PORT (jwt_pages or JWT_PAGES)"
        assert set(caplog.messages) == {f"jwtproxy: error: bad value 'maybe' for jwt_pages\njwtproxy: hint: {hint}"}
        assert _ask(addon, _flow(to_self=True)) == 200
        context.configure(addon, jwt_pages="off")
        assert _ask(addon, _flow(to_self=True)) == 404, "once it is good, it counts"


def test_other_options_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    addon = Status()
    with taddons.context(addon) as context:
        context.configure(addon, jwt_pages="off")
        context.configure(addon, showhost=True)
        assert _ask(addon, _flow(to_self=True)) == 404
        assert caplog.messages == []


def test_the_option_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_PAGES", "off")
    addon = Status()
    with taddons.context(addon) as context:
        assert context.options.jwt_pages == "off"


def test_recent_requests_are_kept_as_the_option_says_where_somebody_can_ask_for_them() -> None:
    def kept() -> int:
        flow = _flow("/recent", to_self=True)
        flow.request.headers["host"] = "localhost"
        code = _ask(addon, flow)
        return flow.response.json()["most"] if code == 200 and flow.response else 0

    addon = Status()
    with taddons.context(addon) as context:
        context.configure(addon)
        assert kept() == 100
        context.configure(addon, jwt_recent="7")
        assert kept() == 7
        with pytest.raises(exceptions.OptionsError, match="bad value '1001' for jwt_recent"):
            context.configure(addon, jwt_recent="1001")
        assert kept() == 7
        context.configure(addon, jwt_pages="off")
        assert addon._recent.most == 0
        context.configure(addon, jwt_pages="auto", jwt_recent="0")
        assert kept() == 0


# --- counting


def test_the_count_is_that_of_requests_sent_upstream(serve: Serve, upstream: type[Upstream]) -> None:
    async def count(proxy: Inside) -> Any:
        return json.loads((await proxy.ask(OWN)).body)["proxied_requests"]

    async def run() -> None:
        addons = Status(), JwtInject(KeySource(SECRET, secrets.token_bytes(64)))
        async with upstream() as server, serve(*addons) as proxy:
            for expected in range(3):
                assert await count(proxy) == expected
                for own in (_get("/nope"), b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"):
                    await proxy.ask(own)
                assert (await proxy.ask(server.request())).code == 200
            assert len(server.heads) == 3
        assert all(b"\r\nx-my-jwt: " in head for head in server.heads)

    asyncio.run(run())


def test_alone_it_lets_pass_unsigned_what_is_right_and_counts_it(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Status()) as proxy, proxy.client() as client:
            assert (await client.ask(server.request())).code == 200
            assert b"x-my-jwt" not in server.heads[0]
            assert json.loads((await proxy.ask(OWN)).body)["proxied_requests"] == 1
            assert (await client.ask(f"CONNECT {server.authority} HTTP/1.1\r\n\r\n".encode())).code == 200
            assert (await client.ask(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")).code == 421
            assert len(server.heads) == 1

    asyncio.run(run())


@pytest.mark.parametrize("first", [True, False])
def test_beside_the_one_that_signs_it_opens_nothing(serve: Serve, upstream: type[Upstream], first: bool) -> None:
    async def run() -> None:
        addons = [Status(), JwtInject()]  # without a key
        async with upstream() as server, serve(*(addons if first else addons[::-1])) as proxy:
            assert (await proxy.ask(server.request())).code == 502
            assert server.heads == []

    asyncio.run(run())


def test_counters_may_be_shared() -> None:
    counters = Counters()
    addon = Status(counters)
    counters.count()
    with taddons.context(addon):
        flow = _flow(to_self=True)
        addon.requestheaders(flow)
        assert flow.response
        assert flow.response.json()["proxied_requests"] == 1


# --- the proxy's own addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "LOCALHOST"])
def test_a_target_that_is_the_proxy_is_answered_by_it(serve: Serve, host: str) -> None:
    async def run() -> None:
        async with serve(Status()) as proxy:
            assert (await proxy.ask(_get(f"http://{host}:{proxy.port}/status"))).code == 200
            assert (await proxy.ask(_get(f"http://{host}:{proxy.port}/nope"))).code == 404

    asyncio.run(run())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_no_tunnel_leads_to_the_proxy(serve: Serve, host: str) -> None:
    async def run() -> None:
        async with serve(Status()) as proxy:
            reply = await proxy.ask(f"CONNECT {host}:{proxy.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (reply.code, reply.body) == (403, b"jwtproxy: no tunnel to the proxy itself\n")

    asyncio.run(run())


def test_other_servers_are_reached_even_on_our_port(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with serve(Status()) as proxy:
            other = await asyncio.start_server(_answer, "127.0.0.2", proxy.port)
            reply = await proxy.ask(_get(f"http://127.0.0.2:{proxy.port}/status"))
            tunnel = await proxy.ask(f"CONNECT 127.0.0.2:{proxy.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            other.close()
            assert (reply.body, tunnel.code) == (b"theirs", 200)
        async with upstream() as server, serve(Status()) as proxy:
            tunnel = await proxy.ask(f"CONNECT {server.authority} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert tunnel.code == 200

    asyncio.run(run())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if await reader.read(1000):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ntheirs")
    writer.close()


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 64, ".."])
def test_a_name_that_does_not_resolve_is_not_ours(serve: Serve, host: str) -> None:
    async def run() -> None:
        async with serve(Status()) as proxy:
            assert (await proxy.ask(_get(f"http://{host}:{proxy.port}/status"))).code in (400, 502)

    asyncio.run(run())


def test_the_proxy_is_not_its_own_reverse_upstream(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    async def run() -> None:
        mode = [f"reverse:http://0.0.0.0:{port}"]
        async with serve(Status(), mode=mode, listen_port=port, connection_strategy="lazy") as proxy:
            assert proxy.port == port
            reply = await asyncio.wait_for(proxy.ask(_get("/x")), 5)
            assert reply.code == 403
            assert b"proxy itself" in reply.body

    asyncio.run(run())


def test_addresses_that_come_and_go_are_followed(serve: Serve) -> None:
    async def run() -> None:
        async with serve(Status()) as proxy:
            servers = proxy.master.addons.get("proxyserver").servers
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            await servers.update([mode_specs.ProxyMode.parse(f"regular@{at}") for at in (port, f"{proxy.port}")])
            assert (await proxy.ask(_get(f"http://127.0.0.1:{port}/status"))).code == 200
            await servers.update([mode_specs.ProxyMode.parse(f"regular@{proxy.port}")])
            assert (await proxy.ask(_get(f"http://127.0.0.1:{port}/status"))).code == 502, "now a port like any other"

    asyncio.run(run())


def test_without_a_server_no_address_is_ours() -> None:
    addon = Status()
    with taddons.context(addon):
        addon.running()
        assert addon.http_connect(_flow()) is None
