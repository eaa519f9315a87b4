"""Requests in flight finish before the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from mitmproxy.flow import Error
from mitmproxy.proxy.layers.http import HttpResponseHeadersHook
from mitmproxy.test import taddons, tflow

from jwtproxy.launcher.addons.drain import Drain
from tests.support.inside import Opens

if TYPE_CHECKING:
    from jwtproxy.launcher.addons.fast_lane import FastLane
    from tests.support.inside import Inside, Serve, Upstream


def test_nothing_in_flight_is_no_reason_to_wait(serve: Serve) -> None:
    async def run() -> None:
        drain = Drain(list)
        async with serve(drain) as proxy:
            began = time.monotonic()
            await drain.drain(5)
            assert time.monotonic() - began < 4
            with pytest.raises(ConnectionError):
                await proxy.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    asyncio.run(run())


def test_a_request_in_flight_finishes_and_its_connection_closes(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        drain = Drain(list)
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
        drain = Drain(list)
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
        drain = Drain(list)
        async with upstream(answer) as server, serve(drain) as proxy, proxy.client() as client:
            await client.ask(server.request(), head_only=True)
            draining = asyncio.ensure_future(drain.drain(10))
            await asyncio.sleep(0.2)
            assert not draining.done()
            assert len(await client.exactly(size)) == size
            await asyncio.wait_for(draining, 5)

    asyncio.run(run())


def test_failed_requests_are_not_waited_for() -> None:
    drain = Drain(list)
    failed, broken = tflow.tflow(), tflow.tflow()
    failed.error = Error("invalid")
    drain.requestheaders(failed)
    drain.requestheaders(broken)
    drain.error(broken)
    assert not drain._in_flight


def test_connections_are_kept_before_the_end_and_not_from_then_on() -> None:
    with taddons.context(drain := Drain(list)) as context:
        for expected in (None, "close"):
            flow = tflow.tflow(resp=True)
            assert flow.response
            asyncio.run(context.master.addons.trigger_event(HttpResponseHeadersHook(flow)))
            assert flow.response.headers.get("connection") == expected
            drain.begin()
            drain.begin()


# --- the fast lane


def _lane_of(proxy: Inside) -> FastLane:
    assert proxy.lane
    return proxy.lane


def test_idle_connections_of_the_fast_lane_close(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        drain = Drain(lambda: _lane_of(proxy).connections())
        async with upstream() as server, serve(drain, Opens(), lane=True) as proxy:
            async with proxy.client() as fresh, proxy.client() as used:
                assert (await used.ask(server.request())).code == 200
                await _until(lambda: len(list(_lane_of(proxy).connections())) == 2)
                await asyncio.wait_for(drain.drain(5), 4)
                assert await asyncio.wait_for(fresh.rest(), 2) == await asyncio.wait_for(used.rest(), 2) == b""
            assert proxy.carried == 1

    asyncio.run(run())


def test_a_request_in_the_fast_lane_finishes_and_its_connection_closes(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        drain = Drain(lambda: _lane_of(proxy).connections())
        async with upstream(None) as server, serve(drain, Opens(), lane=True) as proxy, proxy.client() as client:
            client.send(server.request() + server.request())
            await _until(lambda: server.heads)
            draining = asyncio.ensure_future(drain.drain(5))
            await asyncio.sleep(0.1)
            assert not draining.done()
            await server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            answer = await asyncio.wait_for(client.rest(), 4)
            assert answer.endswith(b"ok")
            assert answer.count(b"HTTP/1.1 200 OK") == len(server.heads) == proxy.carried == 1
            assert b"\r\nconnection: close\r\n" in answer.lower()
            await asyncio.wait_for(draining, 4)

    asyncio.run(run())


def test_an_answer_of_the_fast_lane_that_a_slow_client_still_reads_is_waited_for(
    serve: Serve, upstream: type[Upstream]
) -> None:
    size = 16 << 20
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, bytes(size))

    async def run() -> None:
        drain = Drain(lambda: _lane_of(proxy).connections())
        async with upstream(answer) as server, serve(drain, Opens(), lane=True) as proxy, proxy.client() as client:
            await client.ask(server.request(), head_only=True)
            draining = asyncio.ensure_future(drain.drain(10))
            await asyncio.sleep(0.2)
            assert not draining.done()
            assert len(await client.exactly(size)) == size
            await asyncio.wait_for(draining, 5)
            assert proxy.carried == 1

    asyncio.run(run())


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
