"""Nothing is read while nobody takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mitmproxy.connection import Connection, Server
from mitmproxy.proxy.layers.http._http_h2 import SendH2Data
from mitmproxy.proxy.server import ConnectionIO

from jwtproxy.mitm import pressure
from jwtproxy.mitm.pressure import HIGH, LOW, Backlog, Valve, Why


def test_a_valve_is_open_once_no_reason_is_left() -> None:
    async def run() -> None:
        valve = Valve()
        await asyncio.wait_for(valve.passage(), 1)
        valve.turn(Why.BEHIND, shut=True)
        valve.turn(Why.HELD, shut=True)
        waiting = asyncio.create_task(valve.passage())
        valve.turn(Why.BEHIND, shut=False)
        await asyncio.sleep(0)
        assert not waiting.done()
        valve.turn(Why.HELD, shut=False)
        await asyncio.wait_for(waiting, 1)

    asyncio.run(run())


def test_a_connection_has_a_valve_once_it_was_shut() -> None:
    connection = Server(address=("a.example", 80))
    pressure.turn(connection, Why.HELD, shut=False)
    assert pressure.valve_of(connection) is None
    pressure.turn(connection, Why.HELD, shut=True)
    assert pressure.valve_of(connection) is not None


def test_a_connection_within_another_shares_its_valve() -> None:
    inner, outer = Server(address=("a.example", 80)), Server(address=("proxy.example", 80))
    pressure.share(inner, outer)
    pressure.turn(inner, Why.HELD, shut=True)
    assert pressure.valve_of(outer) is pressure.valve_of(inner)


def test_a_connection_is_paced_where_its_bytes_go() -> None:
    inner, outer = Server(address=("a.example", 80)), Server(address=("proxy.example", 80))
    pressure.share(inner, outer)
    pressure.pace(inner)
    assert (pressure.is_paced(inner), pressure.is_paced(outer)) == (False, True)
    assert (pressure.carrier_of(inner), pressure.carrier_of(outer)) == (outer, outer)


class _Writer:
    """One whose peer reads when it is told to."""

    def __init__(self, unsent: int = 1) -> None:
        self.unsent, self.aborted, self.reads = unsent, False, asyncio.Event()
        self.transport = self

    async def drain(self) -> None:
        await self.reads.wait()

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


def _handler(*writers: tuple[Connection, _Writer | None]) -> Any:
    transports = {connection: ConnectionIO(None, None, writer) for connection, writer in writers}  # type: ignore[arg-type]
    return SimpleNamespace(transports=transports, _drain_lock=asyncio.Lock())


def test_a_drain_waits_until_the_peer_has_read() -> None:
    async def run() -> None:
        peer, writer = Server(address=("a.example", 80)), _Writer()
        waiting = asyncio.create_task(pressure.drained(_handler((peer, writer)), peer))
        await asyncio.sleep(0)
        assert not waiting.done()
        writer.reads.set()
        await asyncio.wait_for(waiting, 1)
        for gone in (_handler(), _handler((peer, None))):
            await asyncio.wait_for(pressure.drained(gone, peer), 1)
        assert not writer.aborted

    asyncio.run(run())


@pytest.mark.parametrize(("unsent", "over", "aborted"), [(1, False, True), (0, False, False), (1, True, False)])
def test_a_client_that_goes_leaves_nothing_for_who_does_not_read(unsent: int, over: bool, aborted: bool) -> None:
    """But the rest of a request that is `over`, of which the upstream may read the end yet."""

    async def run() -> None:
        peer, writer = Server(address=("a.example", 80)), _Writer(unsent)
        handler = _handler((peer, writer))
        waiting = asyncio.create_task(pressure.drained(handler, peer))
        await asyncio.sleep(0)
        if over:
            handler.transports.clear()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert writer.aborted is aborted

    asyncio.run(run())


def test_nobody_waits_for_one_that_is_paced() -> None:
    async def run() -> None:
        paced, other = Server(address=("a.example", 80)), Server(address=("b.example", 80))
        pressure.pace(paced)
        full, drain_writers = _Writer(), cast("Any", pressure.drain_writers)
        await asyncio.wait_for(drain_writers(_handler((paced, full), (other, None))), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(drain_writers(_handler((other, full))), 0.05)

    asyncio.run(run())


def test_a_stream_is_full_above_a_mark_until_it_falls_below_another() -> None:
    backlog = Backlog()
    assert backlog.changes({}) == []
    assert backlog.changes({1: HIGH + 1, 3: HIGH}) == [(1, True)]
    assert backlog.changes({1: HIGH + 1}) == []
    assert backlog.changes({1: LOW + 1}) == []
    assert backlog.changes({}) == [(1, False)]
    assert backlog.changes({}) == []


def test_what_waits_for_windows_is_counted() -> None:
    pieces = deque([SendH2Data(b"x" * 5, False), SendH2Data(b"x", True)])
    assert pressure.waiting(SimpleNamespace(stream_buffers={1: pieces})) == {1: 6}
