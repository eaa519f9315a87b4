"""How a connection in TLS ends, told by OpenSSL itself."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator, Layer
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.tunnel import TunnelState
from mitmproxy.test import tflow
from OpenSSL import SSL

from jwtproxy.mitm import patches
from tests.support.upstreams import Authority

pytestmark = pytest.mark.usefixtures("pristine")


class Told(Layer):
    """What stands in TLS, and all that it is told."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events: list[str | bytes] = []

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        self.events.append(event.data if isinstance(event, events.DataReceived) else type(event).__name__)
        yield from ()


class Secured:
    """A connection to a server whose handshake is done."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion) -> None:
        context = Context(tflow.tclient_conn(), Options())
        self.server = context.server = Server(address=("127.0.0.1", 443))
        self.server.state = ConnectionState.OPEN
        self.layer = tls.ServerTLSLayer(context)
        self.told = self.layer.child_layer = Told(context)
        self.layer.tunnel_state = TunnelState.OPEN
        self.layer.tls = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
        self.layer.tls.set_connect_state()
        asked = authority.server_context()
        asked.maximum_version = version
        self._came, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = asked.wrap_bio(self._came, self._leaving, server_side=True)
        for step in (self.layer.tls.do_handshake, self.peer.do_handshake) * 2:
            try:
                step()
            except (SSL.WantReadError, ssl.SSLWantReadError):
                self._exchange()
        self.said(b"hello")
        assert self.told.events == [b"hello"]
        self.told.events.clear()

    def _exchange(self) -> None:
        for read, write in ((self.layer.tls.bio_read, self._came.write), (self._read, self.layer.tls.bio_write)):
            with contextlib.suppress(SSL.WantReadError):
                write(read(1 << 16))

    def _read(self, size: int) -> bytes:
        if not self._leaving.pending:
            raise SSL.WantReadError
        return self._leaving.read(size)

    def said(self, data: bytes = b"") -> list[commands.Command]:
        """The peer sends this, and what it has sent otherwise arrives."""
        if data:
            self.peer.write(data)
        return list(self.layer.handle_event(events.DataReceived(self.server, self._leaving.read())))

    def alarmed(self) -> None:
        """The peer cannot make out what it has got, and tells so (RFC 8446 §6.2)."""
        self._came.write(b"\x17\x03\x03\0\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            self.peer.read()
        self.said()

    def took_leave(self) -> None:
        """The peer has said all, and tells so (§6.1)."""
        with pytest.raises(ssl.SSLWantReadError):
            self.peer.unwrap()
        self.said()

    def ended(self) -> None:
        """The connection below has ended."""
        list(self.layer.handle_event(events.ConnectionClosed(self.server)))

    def send(self, data: bytes) -> bytes:
        """What leaves if this is to be sent."""
        sent = self.layer.send_data(data)
        return b"".join(command.data for command in sent if isinstance(command, commands.SendData))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def secured(tmp_path: Path, request: pytest.FixtureRequest) -> Secured:
    patches.install()
    return Secured(Authority(tmp_path), request.param)


def test_an_end_after_an_alert_is_told(secured: Secured) -> None:
    secured.alarmed()
    secured.ended()
    assert secured.told.events == ["ConnectionClosed"]


def test_an_end_without_a_word_is_told(secured: Secured) -> None:
    secured.ended()
    assert secured.told.events == ["ConnectionClosed"]


def test_an_end_after_a_close_notify_is_told_once(secured: Secured) -> None:
    secured.took_leave()
    assert secured.told.events == ["ConnectionClosed"]
    secured.ended()
    assert secured.told.events == ["ConnectionClosed"]


def test_after_an_alert_nothing_is_sent(secured: Secured) -> None:
    assert secured.send(b"request")
    secured.alarmed()
    assert secured.send(b"request") == b""


def test_after_a_close_notify_the_other_half_is_still_open(secured: Secured) -> None:
    secured.took_leave()
    assert secured.send(b"rest")


def test_what_cannot_be_sent_yet_is_not_taken_for_sent(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(data: bytes) -> None:
        raise SSL.WantReadError

    monkeypatch.setattr(secured.layer.tls, "sendall", wait)
    with pytest.raises(SSL.WantReadError):
        secured.send(b"request")
