"""Memory that is no longer used goes back to the system, when it is much."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

import pytest

from jwtproxy.mitm import heap
from jwtproxy.mitm.heap import Heap

MIB = 1 << 20


class Libc:
    """The C library, of what it is asked for here."""

    def __init__(self, unused: list[int]) -> None:
        """`unused`: MiB, one after the other."""
        self._unused = unused
        self.trimmed = 0

    def mallinfo2(self) -> SimpleNamespace:
        return SimpleNamespace(unused=self._unused.pop(0) * MIB)

    def malloc_trim(self, pad: int) -> None:
        assert pad == 0
        self.trimmed += 1


@pytest.mark.parametrize(
    ("unused", "trimmed"),
    [
        ([0, 7], 0),
        ([1, 10], 1),
        ([10, 10, 12], 1),
        ([10, 20], 2),
        ([10, 3, 9], 1),
        ([10, 3, 12], 2),
    ],
)
def test_what_is_given_back_is_not_given_back_again(
    unused: list[int], trimmed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heap, "_LOOK", 0.0)
    monkeypatch.setattr(heap, "_MUCH", 8 * MIB)
    libc = Libc(unused)

    async def run() -> None:
        addon = Heap(libc)
        addon.running()
        while unused:
            await asyncio.sleep(0)
        addon.done()

    asyncio.run(run())
    assert libc.trimmed == trimmed


def test_what_has_ended_is_collected_when_it_is_quiet_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [(0, 0), (50, 5), (51, 5), (52, 5), (90, 9), (91, 9)]
    collected: list[int] = []
    monkeypatch.setattr(heap, "_LOOK", 0.0)
    monkeypatch.setattr(heap, "_SHARE", 1.0)
    monkeypatch.setattr(gc, "get_stats", lambda: [{"collections": count} for count in counts.pop(0)])
    monkeypatch.setattr(gc, "collect", lambda: collected.append(len(counts)))

    async def run() -> None:
        addon = Heap(Libc([0] * 9))
        addon.running()
        while counts:
            await asyncio.sleep(0)
        addon.done()

    asyncio.run(run())
    assert collected == [3, 0]


def test_this_system_has_what_it_needs_or_nothing_is_done() -> None:
    async def run() -> None:
        addon = Heap()
        addon.running()
        addon.done()

    asyncio.run(run())
