"""HTTP/1.1 where mitmproxy would crash, hang or fill the memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from mitmproxy.http import HTTPFlow

from jwtproxy.mitm import http1
from tests.support.inside import Opens

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream


class Streams:
    """An addon that streams every request."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.stream = True


# --- chunks


def test_trailers_of_a_request_are_dropped(serve: Serve, upstream: type[Upstream]) -> None:
    chunked = b"2\r\nhi\r\n0\r\nx-my-jwt: evil\r\n\r\n"

    async def run() -> None:
        async with upstream() as server, serve(Opens(), Streams()) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(server.request("Transfer-Encoding: chunked", method="POST", body=chunked))
                assert reply.code == 200
            assert server.bodies == [b"2\r\nhi\r\n0\r\n\r\n"] * 2

    asyncio.run(run())


def test_trailers_of_an_answer_are_dropped(serve: Serve, upstream: type[Upstream]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Checksum: 1\r\n\r\n"

    async def run() -> None:
        async with upstream(answer, answer) as server, serve(Opens()) as proxy, proxy.client() as client:
            for _ in range(2):
                assert (await client.ask(server.request())).body == b"2\r\nhi\r\n0\r\n\r\n"

    asyncio.run(run())


# --- heads of requests


@pytest.mark.parametrize("piece", [1000, 64 * 1024])
def test_a_head_without_end_is_refused(serve: Serve, piece: int) -> None:
    async def run() -> None:
        async with serve(Opens()) as proxy, proxy.client() as client:
            client.send(b"GET http://a.example/ HTTP/1.1\r\n")
            for _ in range(http1.HEAD_LIMIT // piece + 1):
                client.send(b"x: " + b"a" * (piece - 5) + b"\r\n")
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
            assert b"jwtproxy: the request&#x27;s head is too long" in answer

    asyncio.run(run())


def test_a_long_head_with_an_end_is_taken(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy:
            assert (await proxy.ask(server.request("X: " + "a" * 60_000))).code == 200
            assert b"a" * 60_000 in server.heads[0]

    asyncio.run(run())


def test_a_long_body_is_no_head(serve: Serve, upstream: type[Upstream]) -> None:
    body = b"a" * (http1.HEAD_LIMIT + 1)

    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy, proxy.client() as client:
            for _ in range(2):
                request = server.request(f"Content-Length: {len(body)}", method="POST", body=body)
                assert (await client.ask(request)).code == 200
            assert server.bodies == [body] * 2

    asyncio.run(run())


# --- interim responses


@pytest.mark.parametrize(
    ("code", "interim"), [(99, False), (100, True), (101, False), (102, True), (103, True), (199, True), (200, False)]
)
def test_a_final_response_follows_every_interim_one_but_101(code: int, interim: bool) -> None:
    assert http1.is_interim(code) is interim


HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("interim", [HINT, CONTINUE, HINT + CONTINUE + HINT], ids=["103", "100", "three"])
def test_an_interim_response_is_not_the_answer(serve: Serve, upstream: type[Upstream], interim: bytes) -> None:
    async def run() -> None:
        answers = (interim + FINAL,) * 2
        async with upstream(*answers) as server, serve(Opens()) as proxy, proxy.client() as client:
            for _ in range(2):
                reply = await client.ask(server.request())
                assert (reply.code, reply.body) == (200, b"ok")

    asyncio.run(run())


def test_the_answer_may_come_later_than_the_interim_response(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream(HINT) as server, serve(Opens()) as proxy, proxy.client() as client:
            asked = asyncio.create_task(client.ask(server.request()))
            await asyncio.sleep(0.1)
            assert not asked.done()
            await server.answer(FINAL)
            assert (await asked).body == b"ok"

    asyncio.run(run())
