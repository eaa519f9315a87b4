"""Nothing is read while nobody takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace

from mitmproxy.connection import Server
from mitmproxy.proxy.layers.http._http_h2 import SendH2Data

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
