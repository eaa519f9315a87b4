"""What an upstream sends is in no error page and in no log, however wrong it is and however much is logged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from tests.support.clients import Raw, message
from tests.support.harness import BareMitmdump, Process, Proxy, StartBare, StartProxy, rows
from tests.support.upstreams import Recorder, raw
from tests.support.workers import get

MARK = "hunter2"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

ANSWERS = {
    "status line": b"hunter2 is no status line\r\n\r\n",
    "version": b"HTTP/2.hunter2 200 OK\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nSet-Cookie: hunter2",
    "name": b"HTTP/1.1 200 OK\r\nhunter2 : x\r\n\r\n",
    "value": b"HTTP/1.1 200 OK\r\nSet-Cookie: \x01hunter2\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nhunter2\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2hunter2\r\n\r\n",
    "coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: hunter2\r\n\r\n",
    "chunk size": CHUNKED + b"hunter2\r\nabc\r\n0\r\n\r\n",
    "chunk end": CHUNKED + b"3\r\nabchunter2\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"0\r\nhunter2\r\n\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhunter2",
    "too much": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokhunter2",
    "interim": b"HTTP/1.1 103 hunter2\r\n\r\n" * 99,
    "reason": b"HTTP/1.1 502 hunter2\x01\r\n\r\n",
}

TALK = ("--set", "termlog_verbosity=debug", "--flow-detail", "1")
"""As much of what happens as can be, and nothing of the messages themselves, which is for higher details."""

WAYS = {"lane": (), "no lane": ("--set", "jwt_fast_lane=off"), "whole answers": ("-w", "flows")}


@pytest.fixture(params=[*WAYS, "bare"], scope="module")
def talkative(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, confdir: Path
) -> Iterator[Process]:
    """A proxy that logs much."""
    folder = tmp_path_factory.mktemp("talkative")
    process: Process
    if request.param == "bare":
        process = BareMitmdump(*TALK, cwd=folder, confdir=confdir)
    else:
        process = Proxy(*TALK, *WAYS[request.param], cwd=folder, confdir=confdir)
    with process:
        yield process


@pytest.mark.parametrize("answer", rows(ANSWERS, *ANSWERS))
def test_an_answer_that_is_wrong_is_not_repeated(talkative: Process, recorder: Recorder, answer: bytes) -> None:
    recorder.route("/", raw(answer))
    with Raw(talkative.port) as client:
        client.send(get(f"{recorder.url}/", "Connection: close"))
        told = client.rest()
    last = told[told.rfind(b"HTTP/1.1 ") :]
    if b"Server: jwtproxy" in last:
        assert MARK.encode() not in last, last
    talkative.wait_for_output(rf"disconnect.*:{recorder.port}|client disconnect|{recorder.port}")
    assert MARK not in talkative.output


def test_the_next_proxy_is_quoted_no_more_than_by_its_status(
    start_proxy: StartProxy, recorder: Recorder, proxy_ca: Path
) -> None:
    recorder.route("127.0.0.1:443", raw(b"HTTP/1.1 407 hunter2\r\nProxy-Authenticate: hunter2\r\n\r\n"))
    proxy = start_proxy(*TALK, "--mode", f"upstream:{recorder.url}", "--set", "connection_strategy=lazy")
    with Raw(proxy.port) as client:
        client.secure_tunnel("127.0.0.1:443", proxy_ca)
        answer = client.request(message("GET", "/", "Host: 127.0.0.1"))
    assert answer.status == 502
    said = f"the proxy 127.0.0.1:{recorder.port} refused the tunnel: 407 Proxy Authentication Required"
    assert said in answer.body.decode()
    assert MARK not in proxy.output


@pytest.mark.parametrize("bare", [False, True], ids=["launcher", "bare"])
def test_what_websockets_carry_is_not_logged(start_proxy: StartProxy, start_bare: StartBare, bare: bool) -> None:
    async def serve(peer: websockets.ServerConnection) -> None:
        await (await peer.ping(MARK))
        await peer.send(await peer.recv())

    async def run() -> None:
        async with websockets.serve(serve, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with websockets.connect(url, proxy=process.url) as client:
                await client.send(MARK)
                assert await client.recv() == MARK

    process = start_bare(*TALK) if bare else start_proxy(*TALK, "-w", "flows")
    asyncio.run(run())
    process.stop()
    assert MARK not in process.output


def test_a_socks_password_that_is_half_there_is_not_logged(start_bare: StartBare) -> None:
    process = start_bare(*TALK, "--mode", "socks5", "--proxyauth", "user:password")
    with Raw(process.port) as client:
        client.send(b"\x05\x01\x02")
        assert client.exactly(2) == b"\x05\x02"
        client.send(b"\x01\x04user\x0chunter2")
    process.wait_for_output("before completing SOCKS5 handshake")
    assert MARK not in process.output


def test_credentials_in_a_query_are_not_printed(start_proxy: StartProxy, recorder: Recorder) -> None:
    proxy = start_proxy()
    with Raw(proxy.port) as client:
        assert client.request(get(f"{recorder.url}/a?x=1&access_token=hunter2&y=2")).status == 200
    proxy.wait_for_output(r"/a\?… 200")
    assert MARK not in proxy.output
    assert "access_token=hunter2" in recorder.only().target
