"""What has to be noted is noted when an interval begins, and not after the end."""

from __future__ import annotations

import asyncio
import os

import pytest

from jwtproxy.mitm import pulse
from jwtproxy.mitm.pulse import Pulse


class Noted:
    """Counts, by a clock that starts with the run."""

    def __init__(self) -> None:
        self.notes: list[float] = []
        self.served: list[int] = []

    @property
    def uptime(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    def serve(self, pid: int) -> None:
        self.began = asyncio.get_running_loop().time() - 0.01
        self.served.append(pid)

    def note(self) -> None:
        self.notes.append(self.uptime)


def test_it_is_noted_at_the_start_and_at_the_beginning_of_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "INTERVAL", 0.1)

    async def run() -> Noted:
        counts = Noted()
        addon = Pulse(counts)
        addon.running()
        await asyncio.sleep(0.25)
        addon.done()
        seen = len(counts.notes)
        await asyncio.sleep(0.12)
        assert len(counts.notes) == seen
        return counts

    counts = asyncio.run(run())
    assert counts.served == [os.getpid()]
    first, *others = counts.notes
    assert first < 0.1
    assert [int(at / 0.1) for at in others] == sorted({int(at / 0.1) for at in others})
    assert others
    assert all(int(at / 0.1) >= 1 for at in others)


def test_an_end_without_a_beginning_is_none() -> None:
    Pulse(Noted()).done()
