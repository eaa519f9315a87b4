"""Requests in flight finish before the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from mitmproxy.flow import Error
from mitmproxy.test import tflow

from jwtproxy.launcher.addons.drain import Drain

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream


def test_nothing_in_flight_is_no_reason_to_wait(serve: Serve) -> None:
    async def run() -> None:
        drain = Drain()
        async with serve(drain) as proxy:
            began = time.monotonic()
            await drain.drain(5)
            assert time.monotonic() - began < 4
            with pytest.raises(ConnectionError):
                await proxy.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    asyncio.run(run())


def test_a_request_in_flight_finishes_and_its_connection_closes(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        drain = Drain()
        async with upstream(None) as server, serve(drain) as proxy, proxy.client() as client:
            asking = asyncio.ensure_future(client.ask(server.request()))
            while not server.heads:
                await asyncio.sleep(0.01)
            draining = asyncio.ensure_future(drain.drain(5))
            await asyncio.sleep(0.1)
            assert not draining.done()
            await server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            reply = await asking
            assert (reply.code, reply.body) == (200, b"ok")
            assert b"connection: close" in reply.head.lower()
            await asyncio.wait_for(draining, 5)

    asyncio.run(run())


def test_the_grace_is_the_most_it_waits(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        drain = Drain()
        async with upstream(None) as server, serve(drain) as proxy, proxy.client() as client:
            asking = asyncio.ensure_future(client.ask(server.request()))
            while not server.heads:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            await drain.drain(0.2)
            assert 0.15 < time.monotonic() - began < 5
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking

    asyncio.run(run())


def test_an_answer_that_a_slow_client_still_reads_is_waited_for(serve: Serve, upstream: type[Upstream]) -> None:
    size = 32 << 20
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, bytes(size))

    async def run() -> None:
        drain = Drain()
        async with upstream(answer) as server, serve(drain) as proxy, proxy.client() as client:
            await client.ask(server.request(), head_only=True)
            draining = asyncio.ensure_future(drain.drain(10))
            await asyncio.sleep(0.2)
            assert not draining.done()
            assert len(await client.exactly(size)) == size
            await asyncio.wait_for(draining, 5)

    asyncio.run(run())


def test_failed_requests_are_not_waited_for() -> None:
    drain = Drain()
    failed, broken = tflow.tflow(), tflow.tflow()
    failed.error = Error("invalid")
    drain.requestheaders(failed)
    drain.requestheaders(broken)
    drain.error(broken)
    assert not drain._in_flight


def test_before_the_end_connections_are_kept() -> None:
    flow = tflow.tflow(resp=True)
    assert flow.response
    Drain().responseheaders(flow)
    assert "connection" not in flow.response.headers
