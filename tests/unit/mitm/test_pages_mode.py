"""The listener that serves nothing but our own pages."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode
from mitmproxy.test import taddons

from jwtproxy.addons.status import Status
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.place import Place
from jwtproxy.mitm import pages_mode
from jwtproxy.mitm.pages_mode import PagesMode, is_for_pages, listen, proxy_url, without_pages

if TYPE_CHECKING:
    from tests.support.inside import Serve

pytestmark = pytest.mark.usefixtures("pristine")

HERE = "pages@127.0.0.1:9090"


def _client(spec: str, sockname: tuple[str, int] = ("192.0.2.7", 9090)) -> Client:
    return Client(peername=("192.0.2.1", 1), sockname=sockname, proxy_mode=ProxyMode.parse(spec))


def _listening(*servers: tuple[str, tuple[str, int]]) -> Any:
    made = [SimpleNamespace(mode=ProxyMode.parse(spec), listen_addrs=(address,)) for spec, address in servers]
    return SimpleNamespace(servers=made)


def test_its_clients_are_known_and_written_down_as_anyone_can_read_it() -> None:
    """A recording with a mode that only we know could be read by nobody else."""
    client = _client(HERE)
    assert is_for_pages(client)
    assert not is_for_pages(_client("regular@127.0.0.1:9090"))
    state = client.get_state()
    assert state["proxy_mode"] == "regular@127.0.0.1:9090"
    assert type(ProxyMode.parse(state["proxy_mode"])) is RegularMode
    assert type(ProxyMode.parse(HERE)) is PagesMode


@pytest.mark.parametrize(
    ("before", "where", "after"),
    [
        (["regular"], Place("127.0.0.1", 9090), ["regular", HERE]),
        (["regular"], Place("::1", 9090), ["regular", "pages@::1:9090"]),
        (["regular"], Place("", 9090), ["regular", "pages@:9090"]),
        (["regular", HERE], Place("127.0.0.1", 9091), ["regular", "pages@127.0.0.1:9091"]),
        (["regular", HERE], "off", ["regular"]),
        (["regular"], "auto", ["regular"]),
    ],
)
def test_mitmproxy_listens_where_the_option_says(before: list[str], where: Place | str, after: list[str]) -> None:
    with taddons.context(Proxyserver()) as context:
        context.options.update(mode=before)
        listen(context.options, where)
        assert context.options.mode == after
        mode = ProxyMode.parse(after[-1])
        if isinstance(where, Place):
            assert (mode.listen_host("other"), mode.listen_port(1)) == where
        assert without_pages(after) == ["regular"]


def test_where_the_proxy_listens_its_pages_cannot_be_elsewhere() -> None:
    with taddons.context(Proxyserver()) as context:
        context.options.update(listen_host="127.0.0.1", listen_port=9090)
        with pytest.raises(SettingsError, match="for jwt_pages: the proxy itself listens there"):
            listen(context.options, Place("127.0.0.1", 9090))


def test_a_start_that_fails_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with taddons.context(server := Proxyserver()) as context:
            context.options.update(listen_host="127.0.0.1", listen_port=9090, server=False)
            await pages_mode.start(server, context.options, Place("127.0.0.1", 9090))

    asyncio.run(run())
    assert "jwtproxy: error: bad value '127.0.0.1:9090' for jwt_pages" in caplog.text


@pytest.mark.parametrize(
    ("servers", "url"),
    [
        ([("regular", ("127.0.0.1", 8080)), (HERE, ("127.0.0.1", 9090))], "http://127.0.0.1:8080"),
        ([("regular", ("0.0.0.0", 8080)), (HERE, ("127.0.0.1", 9090))], "http://192.0.2.7:8080"),
        ([("reverse:http://a:1", ("127.0.0.1", 8080)), (HERE, ("127.0.0.1", 9090))], ""),
    ],
)
def test_who_asks_there_is_told_where_the_proxy_is(servers: list[tuple[str, tuple[str, int]]], url: str) -> None:
    assert proxy_url(_listening(*servers), _client(HERE), {"host": "pages.example:9090"}) == url


def test_who_asks_the_proxy_is_told_what_it_has_called_it() -> None:
    assert proxy_url(_listening(), _client("regular"), {"host": "proxy.example:81"}) == "http://proxy.example:81"


@pytest.mark.parametrize("mode", ["reverse:http://a:1", "transparent", "socks5"])
def test_where_the_proxy_is_none_for_http_nobody_is_told_to_use_it_as_one(mode: str) -> None:
    """Host names the server there."""
    assert proxy_url(_listening(), _client(mode), {"host": "a:1"}) == ""


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET http://far.example/readyz HTTP/1.1\r\nHost: far.example\r\n\r\n", 200),
        (b"GET http://far.example/other HTTP/1.1\r\nHost: far.example\r\n\r\n", 404),
        (b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n", 403),
        (b"GET http://jwtproxy.test/ HTTP/1.1\r\nHost: jwtproxy.test\r\n\r\n", 200),
        (b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 404),
        (b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", 405),
    ],
)
def test_whatever_is_asked_there_is_asked_of_the_proxy(serve: Serve, request_: bytes, code: int) -> None:
    """No address is looked up, nothing passes."""

    async def run() -> None:
        async with serve(Status(), mode=["pages@0"], jwt_pages="127.0.0.1:9090") as proxy:
            assert (await proxy.ask(request_)).code == code

    asyncio.run(run())
