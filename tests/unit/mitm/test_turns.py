"""What is dear has its turn one after the other, whoever wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from mitmproxy.proxy.layers.tls import ClientHelloData, TlsClienthelloHook
from mitmproxy.test import tflow

from jwtproxy.conduct import fair
from jwtproxy.mitm import dispatch, turns

AT_ONCE = 32


def test_one_has_its_turn_at_each_go_of_the_loop() -> None:
    async def run() -> None:
        had: list[int] = []
        for number in range(3):
            turns.queue(lambda number=number: had.append(number))  # type: ignore[misc]
        await asyncio.sleep(0)
        for so_far in range(1, 4):
            await asyncio.sleep(0)
            assert had == list(range(so_far))

    asyncio.run(run())


def test_several_that_are_cheap_have_theirs_at_one_go() -> None:
    async def run() -> None:
        had: list[int] = []
        for number in range(9):
            turns.queue(lambda number=number: had.append(number), fair.GO / 4)  # type: ignore[misc]
        await asyncio.sleep(0)
        for so_far in (4, 8, 9):
            await asyncio.sleep(0)
            assert had == list(range(so_far))

    asyncio.run(run())


def test_who_was_dear_has_to_wait() -> None:
    async def run() -> None:
        assert not turns.has_to_wait(0.0)
        assert not turns.has_to_wait(fair.TURN / 4)
        assert turns.has_to_wait(fair.TURN)

    asyncio.run(run())


def test_whoever_comes_once_a_go_has_taken_long_has_to_wait() -> None:
    async def run() -> None:
        for _ in range(2):
            waits = [turns.has_to_wait(fair.GO / 4) for _ in range(6)]
            assert waits == [False] * 4 + [True] * 2
            await asyncio.sleep(0)

    asyncio.run(run())


def test_nobody_overtakes_who_waits() -> None:
    async def run() -> None:
        turns.queue(lambda: None)
        assert turns.has_to_wait(fair.TURN / 4)
        await asyncio.sleep(0)
        assert not turns.has_to_wait(fair.TURN / 4)

    asyncio.run(run())


def test_without_a_loop_only_who_was_dear_would_wait() -> None:
    assert [turns.has_to_wait(fair.GO / 4) for _ in range(6)] == [False] * 6


def test_what_waited_in_another_loop_keeps_nobody_waiting() -> None:
    async def leave() -> None:
        turns.may_begin(tflow.tclient_conn())
        turns.has_to_wait(fair.GO)
        turns.queue(lambda: None)

    async def come() -> None:
        assert not turns.has_to_wait(fair.TURN / 4)
        await asyncio.wait_for(turns.turn(), 1)

    asyncio.run(leave())
    asyncio.run(come())


def test_who_is_cancelled_keeps_nobody_waiting() -> None:
    async def run() -> None:
        first, second = (asyncio.create_task(turns.turn()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(second, 1)

    asyncio.run(run())


def test_a_few_begin_at_once_at_each_go() -> None:
    async def run() -> None:
        for _ in range(2):
            begun = [turns.may_begin(tflow.tclient_conn()) for _ in range(AT_ONCE + 1)]
            assert begun == [True] * AT_ONCE + [False]
            await asyncio.sleep(0)

    asyncio.run(run())


def test_fewer_begin_where_others_have_taken_what_there_is_at_one_go() -> None:
    async def run() -> None:
        turns.has_to_wait(fair.GO)
        assert [turns.may_begin(tflow.tclient_conn()) for _ in range(4)] == [True] * 3 + [False]
        await asyncio.sleep(0)
        assert all(turns.may_begin(tflow.tclient_conn()) for _ in range(AT_ONCE))

    asyncio.run(run())


@pytest.mark.parametrize("most", [1, 4])
def test_of_one_client_fewer_begin_at_once(most: int) -> None:
    async def run() -> None:
        one, other = tflow.tclient_conn(), tflow.tclient_conn()
        for _ in range(2):
            assert [turns.may_begin(one, most) for _ in range(most + 1)] == [True] * most + [False]
            assert turns.may_begin(other)
            await asyncio.sleep(0)

    asyncio.run(run())


def test_without_a_loop_nobody_waits() -> None:
    client = tflow.tclient_conn()
    assert all(turns.may_begin(client, 1) for _ in range(2 * AT_ONCE))


@pytest.mark.parametrize("make", [turns.Turn, lambda client: TlsClienthelloHook(ClientHelloData(client, None))])  # type: ignore[arg-type]
def test_a_handler_waits_for_the_turn_and_then_runs_hooks(
    make: Callable[[object], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def hook_task(self: object, hook: object) -> None:
        order.append("hooks")

    async def run() -> None:
        monkeypatch.setattr("mitmproxy.proxy.server.ConnectionHandler.hook_task", hook_task)
        handler = object.__new__(dispatch.ConnectionHandler)
        turns.queue(lambda: order.append("another's turn"))
        waiting: Awaitable[None] = handler.hook_task(make(tflow.tclient_conn()))  # type: ignore[arg-type]
        await asyncio.wait_for(waiting, 1)

    asyncio.run(run())
    assert order == ["another's turn", "hooks"]
