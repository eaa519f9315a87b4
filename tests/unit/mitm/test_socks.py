"""A client that speaks SOCKS to a port for HTTP is told and hung up on; the terminal hears of it now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.mitm import patches, socks
from tests.support.inside import Opens, Serve

GREETING = b"\x05\x01\x00"


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    patches.install()
    yield
    patches.undo()


def _context(mode: str = "regular") -> Context:
    client = Client(peername=("192.0.2.1", 7), sockname=("", 0), proxy_mode=ProxyMode.parse(mode))
    return Context(client, Options())


@pytest.mark.parametrize(
    ("mode", "refused"),
    [("regular", True), ("upstream:http://a:1", True), ("reverse:http://a:1", True), ("socks5", False)],
)
def test_who_may_speak_it_is_not_refused(mode: str, refused: bool) -> None:
    assert bool(socks.refuse(_context(mode), GREETING)) is refused


def test_one_line_on_the_terminal_will_do(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(socks.time, "monotonic", lambda: now)  # type: ignore[attr-defined]
    context = _context()
    for _ in range(9):
        assert socks.refuse(context, GREETING) == b"\x05\xff"
    said = ["jwtproxy: warning: 192.0.2.1:7 was refused as it speaks SOCKS: this is an HTTP proxy",
            "jwtproxy: hint: have it use a proxy URL that begins with http://"]  # fmt: skip
    assert caplog.messages == said
    now += 60
    socks.refuse(context, GREETING)
    assert caplog.messages == said * 2


@pytest.mark.parametrize(
    ("says", "hears"), [(GREETING, b"\x05\xff"), (b"\x04\x01\x00P\x7f\0\0\1\0", b"\0[" + bytes(6))]
)
def test_it_is_told_and_hung_up_on_at_once(serve: Serve, says: bytes, hears: bytes) -> None:
    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(says)
            assert await client.rest() == hears

    asyncio.run(run())


def test_later_on_it_is_no_request(serve: Serve) -> None:
    """Only who begins so speaks SOCKS."""

    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n\x05\x01\x00\r\n\r\n")
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 404 ")
            assert b"HTTP/1.1 400 " in answer

    asyncio.run(run())
