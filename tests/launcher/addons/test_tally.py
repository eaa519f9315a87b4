"""What has passed, by host, and what is said of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx, http
from mitmproxy.addons import proxyserver
from mitmproxy.test import taddons, tflow, tutils

from jwtproxy.launcher.addons import tally
from jwtproxy.launcher.addons.tally import READY, Passed, Tally
from jwtproxy.mitm import echo, flows, gate
from jwtproxy.mitm.gate import Gate


@pytest.fixture
def said(pristine: None) -> Iterator[tuple[Tally, socket.socket]]:
    """A tally, and what it says; the token is in x-my-jwt."""
    judge: Any = SimpleNamespace(token_fields=frozenset({b"x-my-jwt"}))
    ours, theirs = socket.socketpair()
    addon = Tally(theirs)
    with taddons.context(proxyserver.Proxyserver()) as context, ours, theirs:
        gate.hang(context.options, Gate(lambda: judge))
        yield addon, ours


def _flow(host: str, port: int = 80, *fields: tuple[bytes, bytes], scheme: bytes = b"http") -> http.HTTPFlow:
    headers = http.Headers(fields)
    return tflow.tflow(req=tutils.treq(host=host, port=port, scheme=scheme, headers=headers))


TOKEN = (b"X_My-Jwt", b"a.b.c")


def test_requests_are_counted_by_host_and_by_what_becomes_of_them(said: tuple[Tally, socket.socket]) -> None:
    addon, ours = said
    addon.running()
    for flow in (_flow("a.example", 80, TOKEN), _flow("A.example.", 80, TOKEN), _flow("a.example", 8080, TOKEN)):
        addon.requestheaders(flow)
    addon.requestheaders(_flow("b.example", 443, (b"other", b"x"), scheme=b"https"))
    refused, own, failed = _flow("c.example"), _flow("d.example", 80, TOKEN), _flow("e.example", 80, TOKEN)
    refused.response = http.Response.make(403)
    flows.mark_to_self(own)
    failed.error = tflow.terr()
    echo.hang(ctx.options, on=True)
    for flow in (refused, own, failed, _flow("jwtproxy.test", 80, TOKEN)):
        addon.requestheaders(flow)
    addon.done()
    first, last = ours.recv(1 << 16).decode().splitlines(keepends=True)
    assert first == READY
    assert Passed.read(last) == Passed({"a.example": 2, "a.example:8080": 1}, {"b.example": 1}, {"c.example": 1}, {})


def test_many_long_names_are_told_to_who_is_slow_to_read(said: tuple[Tally, socket.socket]) -> None:
    addon, ours = said
    theirs = addon._line
    theirs.setblocking(False)  # as the proxy, which reads from it, has it
    hosts = {f"{number}.{'x' * 60}.{'y' * 60}.{'z' * 60}.{'w' * 50}.example": 1 for number in range(1000)}
    for host in hosts:
        addon.requestheaders(_flow(host, 80, TOKEN))
    ours.settimeout(10)
    teller = threading.Thread(target=addon.done)
    teller.start()
    time.sleep(0.1)
    with ours.makefile() as lines:
        assert Passed.read(lines.readline()) == Passed(hosts, {}, {}, {})
    teller.join()


def test_clients_that_do_not_trust_us_are_counted(said: tuple[Tally, socket.socket]) -> None:
    addon, ours = said
    for error, sni, address in (
        ("The client does not trust the proxy's certificate for x (…)", "x.example", None),
        ("The client disconnected during the handshake. If this happens …", None, ("y\x1b.example", 443)),
        ("The client disconnected during the handshake. If this happens …", None, None),
        ("connection closed early", "z.example", None),
    ):
        context = SimpleNamespace(server=SimpleNamespace(address=address))
        data: Any = SimpleNamespace(conn=SimpleNamespace(error=error, sni=sni), context=context)
        addon.tls_failed_client(data)
    addon.done()
    passed = Passed.read(ours.recv(1 << 16).decode())
    assert passed
    assert passed.distrusted == {"x.example": 1, "y..example": 1, "the proxy itself": 1}


def test_many_hosts_are_not_remembered_one_by_one(
    said: tuple[Tally, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    addon, ours = said
    monkeypatch.setattr(tally, "_MOST", 2)
    for host in ("a", "b", "c", "d", "a", "bad host"):
        addon.requestheaders(_flow(host, 80, TOKEN))
    addon.done()
    passed = Passed.read(ours.recv(1 << 16).decode())
    assert passed
    assert passed.signed == {"a": 2, "b": 1, "others": 3}


def test_whoever_has_gone_is_not_told(said: tuple[Tally, socket.socket]) -> None:
    addon, ours = said
    ours.close()
    addon.running()
    addon.done()


def test_what_was_not_said_is_not_known() -> None:
    assert Passed.read("") is None
    assert Passed.read(READY) is None
    assert Passed.read('{"signed": {') is None


def test_in_words_it_is_the_most_first() -> None:
    assert Passed({"a.example": 1, "b.example": 12}, {}, {"c.example": 1}, {}).in_words().splitlines() == [
        "signed: 13",
        "       12  b.example",
        "        1  a.example",
        "refused: 1",
        "        1  c.example",
    ]
    assert Passed({}, {}, {}, {}).in_words() == "signed: 0"
