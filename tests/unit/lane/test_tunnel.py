"""What passes a pipe is TLS on one side and plain on the other, however it is cut; and where tunnels stand."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.certs import CertStore
from mitmproxy.connection import Client, Server
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http, tls
from mitmproxy.test import tflow
from OpenSSL import SSL

from jwtproxy.lane.tunnel import Pipe, Tunnel, put_before_http
from jwtproxy.mitm.stream import Stream

MIB = 1024 * 1024


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.protocol: Any = "before"
        self.sent = bytearray()
        self.closed = False

    def get_protocol(self) -> Any:
        """Who hears of it."""
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        """Who shall hear of it."""
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        """Send."""
        self.sent += data

    def close(self) -> None:
        """End it."""
        self.closed = True

    abort = close

    def resume_reading(self) -> None:
        """Read on."""


class Keeps(asyncio.Protocol):
    """A protocol that keeps what it gets."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.pieces = 0

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        self.got += data
        self.pieces += 1


class Talk:
    """A pipe, and a client of Python's own TLS at its other end."""

    def __init__(self, session: SSL.Connection, client: ssl.SSLObject, to: ssl.MemoryBIO, back: ssl.MemoryBIO) -> None:
        self.wire, self.inside = Wire(), Keeps()
        self.client, self._to_client, self._from_client = client, to, back
        self.pipe = Pipe(self.wire, session)
        self.pipe.take(self.inside)

    def said(self, data: bytes) -> bytes:
        """What the client sends to say this."""
        for start in range(0, len(data), 16384):
            self.client.write(data[start : start + 16384])
        return self._from_client.read()

    def heard(self) -> bytes:
        """What the client has understood of what was sent."""
        self._to_client.write(bytes(self.wire.sent))
        self.wire.sent.clear()
        heard = bytearray()
        while True:
            try:
                piece = self.client.read(65536)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return bytes(heard)
            heard += piece


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate."""
    folder = tmp_path_factory.mktemp("ca")
    CertStore.create_store(folder, "a", 2048)
    return folder / "a-ca.pem"


@pytest.fixture(params=["TLSv1_3", "TLSv1_2"])
def talk(request: pytest.FixtureRequest, certificate: Path) -> Talk:
    """An open TLS connection."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_privatekey_file(str(certificate))
    context.use_certificate_file(str(certificate))
    server = SSL.Connection(context, None)
    server.set_accept_state()
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
    ours.minimum_version = ours.maximum_version = getattr(ssl.TLSVersion, request.param)
    to_client, from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(to_client, from_client)
    for _ in range(4):
        _try(client.do_handshake)
        if sent := from_client.read():
            server.bio_write(sent)
        _try(server.do_handshake)
        _try(lambda: to_client.write(server.bio_read(65536)))
    return Talk(server, client, to_client, from_client)


def _try(step: Callable[[], object]) -> None:
    with contextlib.suppress(ssl.SSLWantReadError, SSL.WantReadError):
        step()


@pytest.mark.parametrize("size", [1, 100, 16384, 16385, MIB])
def test_what_comes_is_decrypted(talk: Talk, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    for _ in range(3):
        talk.pipe.data_received(talk.said(data[:size]))
    assert talk.inside.got == data[:size] * 3
    assert talk.inside.pieces == 3, "what has come together is passed on together"


@pytest.mark.parametrize("cut", [1, 2, 5, 6, 21, 100, 5000])
def test_however_it_is_cut(talk: Talk, cut: int) -> None:
    said = b"".join(talk.said(b"%d" % number * 200) for number in range(30))
    for start in range(0, len(said), cut):
        talk.pipe.data_received(said[start : start + cut])
    assert talk.inside.got == b"".join(b"%d" % number * 200 for number in range(30))


@pytest.mark.parametrize("size", [0, 1, 100, 16384, 16385, 65536, MIB])
def test_what_is_written_is_encrypted(talk: Talk, size: int) -> None:
    talk.heard()
    talk.pipe.write(bytes(size))
    assert bytes(100) not in talk.wire.sent
    assert talk.heard() == bytes(size)


def test_who_says_no_more_is_gone(talk: Talk) -> None:
    said = talk.said(b"last")
    _try(talk.client.unwrap)
    talk.pipe.data_received(said + talk._from_client.read())
    assert talk.inside.got == b"last"
    assert talk.wire.closed


def test_what_is_no_tls_ends_it(talk: Talk) -> None:
    talk.pipe.data_received(b"GET / HTTP/1.1\r\n\r\n" * 10)
    assert not talk.inside.got
    assert talk.wire.closed


def test_it_goes_as_it_came(talk: Talk) -> None:
    talk.pipe.data_received(talk.said(b"a"))
    talk.pipe.give_back()
    assert talk.wire.protocol == "before"


def test_without_tls_all_passes_as_it_is() -> None:
    wire, inside = Wire(), Keeps()
    pipe = Pipe(wire, None)
    pipe.take(inside)
    pipe.data_received(b"a")
    pipe.write(b"b")
    assert (bytes(inside.got), bytes(wire.sent), pipe.can_write_eof()) == (b"a", b"b", True)


# --- where tunnels stand


@pytest.fixture
def context() -> Context:
    """Of a connection that mitmproxy serves."""
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    context = Context(client, Options())
    context.server = Server(address=("127.0.0.1", 3))
    return context


def test_a_tunnel_stands_before_what_speaks_http_1(context: Context) -> None:
    lane: Any = object()
    layer = http.HttpLayer(context, http.HTTPMode.transparent)
    assert isinstance(put_before_http(lane, context, layer), Tunnel)


def test_behind_tls_too(context: Context) -> None:
    lane: Any = object()
    outer = tls.ServerTLSLayer(context)
    outer.child_layer = inner = tls.ClientTLSLayer(context)
    inner.child_layer = http.HttpLayer(context, http.HTTPMode.transparent)
    assert put_before_http(lane, context, outer) is outer
    assert isinstance(inner.child_layer, Tunnel)


def test_never_in_a_tunnel_that_is_a_stream_of_http_2(context: Context) -> None:
    """Its transport carries other streams; mitmproxy forgets the client's ALPN when TLS begins in one of them."""
    lane: Any = object()
    stream = object.__new__(Stream)
    stream.flow = tflow.tflow()
    context.layers.append(stream)
    layer = http.HttpLayer(context, http.HTTPMode.transparent)
    for version, stands in (("HTTP/2.0", False), ("HTTP/1.1", True)):
        stream.flow.request.http_version = version
        assert isinstance(put_before_http(lane, context, layer), Tunnel) is stands


@pytest.mark.parametrize("alpn", [b"h2", None])
@pytest.mark.parametrize("mode", list(http.HTTPMode))
@pytest.mark.parametrize("has_lane", [True, False])
def test_nowhere_else(context: Context, alpn: bytes | None, mode: http.HTTPMode, has_lane: bool) -> None:
    context.client.alpn = alpn
    layer = http.HttpLayer(context, mode)
    lane: Any = object() if has_lane else None
    stands = has_lane and alpn is None and mode is http.HTTPMode.transparent
    assert (put_before_http(lane, context, layer) is layer) is not stands
    assert put_before_http(lane, context, None) is None
