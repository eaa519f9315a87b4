"""HTTP/2 that nobody agreed on is refused in a way that its clients show, wherever it comes in."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from h2.errors import ErrorCodes
from mitmproxy.connection import Client
from mitmproxy.proxy.commands import Command, Log, SendData

from jwtproxy.mitm import prior_knowledge
from jwtproxy.mitm.prior_knowledge import PREFACE, Refusal
from tests.support.inside import Opens

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream

REASON = b"jwtproxy: HTTP/2 without TLS (h2c) is not supported: use TLS, or HTTP/1.1"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_knowledge, "PATIENCE", 0.15)


class Asks:
    """A client of HTTP/2 without TLS that sends these requests, each in one frame, and what it has been told."""

    def __init__(self, *requests: list[tuple[bytes, bytes]], window: int = 65_535) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.h2.local_settings = h2.settings.Settings(True, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.h2.initiate_connection()
        for fields in requests:
            self.h2.send_headers(self.h2.get_next_available_stream_id(), fields, end_stream=True)
        self.sends = self.h2.data_to_send()
        self.heads: list[dict[bytes, bytes]] = []
        self.body = b""
        self.away: list[h2.events.ConnectionTerminated] = []

    def hear(self, data: bytes) -> None:
        """Take what the proxy says."""
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived(headers=list(fields)):
                    self.heads.append(dict(fields))
                case h2.events.DataReceived(data=bytes(piece)):
                    self.body += piece
                case h2.events.ConnectionTerminated():
                    self.away.append(event)

    def says_why(self, last: int) -> bool:
        """Whether the connection has been ended with the reason, after so many streams."""
        (away,) = self.away
        told = (away.error_code, away.last_stream_id, away.additional_data)
        return told == (ErrorCodes.INADEQUATE_SECURITY, last, REASON)


def _asking(method: bytes = b"GET", *fields: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")]
    return [*pseudo, *fields]


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("way", ["regular", "tunnel", "reverse"])
@pytest.mark.parametrize("cuts", [[], [1], [17, 19], [18, 24, 30]], ids=["whole", "1", "17, 19", "18, 24, 30"])
def test_a_request_is_answered_with_the_reason(
    serve: Serve, upstream: type[Upstream], caplog: pytest.LogCaptureFixture, cuts: list[int], way: str, lane: bool
) -> None:
    """RFC 9113 §3.3. It comes at once, and the connection is closed a moment later."""
    asks = Asks(_asking())

    async def run() -> None:
        async with upstream() as server:
            mode = f"reverse:http://{server.authority}" if way == "reverse" else "regular"
            async with serve(Opens(), lane=lane, mode=[mode]) as proxy, proxy.client() as client:
                if way == "tunnel":
                    connect = f"CONNECT {server.authority} HTTP/1.1\r\nHost: {server.authority}\r\n\r\n"
                    assert (await client.ask(connect.encode())).code == 200
                for start, end in zip([0, *cuts], [*cuts, len(asks.sends)], strict=True):
                    client.send(asks.sends[start:end])
                    await asyncio.sleep(0.01 if cuts else 0)
                while not asks.away:
                    asks.hear(await asyncio.wait_for(client.exactly(1), 5))
                client.send(bytes(100_000))
                assert await asyncio.wait_for(client.rest(), 5) == b""
            assert not server.heads

    asyncio.run(run())
    assert asks.heads[0][b":status"] == b"505"
    assert asks.body == REASON + b"\n"
    assert asks.says_why(last=1)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+: HTTP/2 without TLS .* use TLS, or HTTP/1\.1", said)


@pytest.mark.parametrize("sends", [PREFACE, None, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense, and more of it"])
def test_without_a_request_the_connection_is_ended_all_the_same(serve: Serve, sends: bytes | None) -> None:
    asks = Asks()

    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(asks.sends if sends is None else sends)
            asks.hear(await asyncio.wait_for(client.rest(), 5))

    asyncio.run(run())
    assert not asks.heads
    assert asks.says_why(last=0)


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("before", [b"\r\n", b"{}"], ids=["an empty line", "a request"])
def test_its_preface_is_nothing_but_malformed_later(
    serve: Serve, upstream: type[Upstream], before: bytes, lane: bool
) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(), lane=lane) as proxy, proxy.client() as client:
            client.send(before.replace(b"{}", server.request()))
            if before == b"{}":
                assert (await client.reply()).code == 200
            client.send(PREFACE)
            assert (await client.rest()).startswith(b"HTTP/1.1 505 ")

    asyncio.run(run())


@pytest.mark.parametrize("start", [b"P", b"PRI", b"PRI * HTTP/2.0\r\n", PREFACE])
def test_who_breaks_off_within_it_is_gone(serve: Serve, start: bytes) -> None:
    async def run() -> None:
        async with serve(Opens()) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(start)
            writer.write_eof()
            assert not (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/")
            writer.close()

    asyncio.run(run())


# --- what it says, without a proxy


def _told(asks: Asks, *, tls: bool = False) -> list[Command]:
    """What a refusal does about all that a client sends."""
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0.0, tls=tls)
    commands = list(Refusal(client).begin(asks.sends))
    asks.hear(b"".join(command.data for command in commands if isinstance(command, SendData)))
    return commands


def test_only_the_first_request_is_answered() -> None:
    asks = Asks(_asking(), _asking())
    _told(asks)
    assert len(asks.heads) == 1
    assert asks.says_why(last=1)


def test_head_is_answered_without_a_body() -> None:
    asks = Asks(_asking(b"HEAD"))
    _told(asks)
    assert (asks.heads[0][b":status"], asks.body) == (b"505", b"")
    assert asks.says_why(last=1)


def test_grpc_gets_a_status_of_its_own() -> None:
    """Of any other its clients would show the number alone; one that tells of a lack is not tried again."""
    asks = Asks(_asking(b"POST", (b"content-type", b"application/grpc+proto"), (b"te", b"trailers")))
    _told(asks)
    assert asks.heads == [
        {b":status": b"200", b"content-type": b"application/grpc", b"grpc-status": b"12", b"grpc-message": REASON}
    ]
    assert asks.body == b""
    assert asks.says_why(last=1)


def test_who_can_take_no_body_is_sent_away() -> None:
    asks = Asks(_asking(), window=0)
    _told(asks)
    assert asks.says_why(last=0)


def test_within_tls_it_is_alpn_that_is_missing() -> None:
    asks = Asks(_asking())
    (said, *_) = _told(asks, tls=True)
    assert isinstance(said, Log)
    assert b"offer h2 in the TLS handshake" in asks.body
    assert "offer h2 in the TLS handshake" in said.message
