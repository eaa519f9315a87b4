"""One round: all faults, one after another, under load, and what of the promises is broken."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .faults import FAULTS, Fault
from .stage import Stage
from .traffic import HUNG, OK, REFUSED, TORN, Traffic

RECOVERY = 8.0
"""Seconds within which, after a fault, all is well again."""
_SETTLED = 1.0
"""Seconds for which it is to stay so."""


@dataclass
class Outcome:
    """What a fault did."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    recovered: float = 0.0
    """Seconds."""
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that were answered with another status than 200."""
        return self.counts.total() - sum(self.counts[known] for known in (OK, REFUSED, HUNG, TORN))


def play(
    workers: int, tell: Callable[[Outcome], None], scale: float = 1.0, faults: Iterable[Fault] = FAULTS
) -> list[str]:
    """Play these faults on a proxy of so many workers, each `scale` times as long; the promises that were broken."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos") as folder,
        Stage(Path(folder), workers, records=workers == 1) as stage,
    ):
        problems = asyncio.run(_play(stage, tell, scale, faults))
        expected = int(stage.records and any(fault.name.startswith("disk") for fault in faults))
        status = stage.proxy.stop()
        if status != expected:
            problems.append(f"the exit status is {status}, and not {expected}")
        return problems + [f"not signed: {line}" for line in stage.unsigned[:20]]


async def _play(stage: Stage, tell: Callable[[Outcome], None], scale: float, faults: Iterable[Fault]) -> list[str]:
    traffic = Traffic(stage.proxy.url, stage.trust, stage.kinds)
    running = asyncio.create_task(traffic.run())
    problems = []
    try:
        for fault in (Fault("none", _nothing, harmless=True), *faults):
            if fault.possible(stage):
                tell(outcome := await _suffer(stage, traffic, fault, scale))
                problems += [f"{fault.name}: {problem}" for problem in outcome.problems]
    finally:
        traffic.stopping = True
        await running
    return problems


async def _suffer(stage: Stage, traffic: Traffic, fault: Fault, scale: float) -> Outcome:
    outcome = Outcome(fault.name)
    known = stage.proxy.output.count("Traceback")
    async with fault.put_in(stage):
        await asyncio.sleep(max(fault.hold * scale, fault.least))
    ended = time.monotonic()
    while time.monotonic() < ended + RECOVERY + _SETTLED:
        if not traffic.well_since(max(ended, traffic.last_failure)):
            outcome.recovered = time.monotonic() - ended
        elif time.monotonic() > ended + outcome.recovered + _SETTLED * scale:
            break
        await asyncio.sleep(0.02)
    else:
        outcome.problems.append(f"not well after {RECOVERY:g} s")
    if stage.proxy.output.count("Traceback") > known and not fault.crude:
        outcome.problems.append(f"a trace-back:\n{stage.proxy.stderr[-4000:]}")
    outcome.counts = traffic.take_counts()
    if fault.harmless and outcome.counts.total() > outcome.counts[OK]:
        outcome.problems.append(f"no request is to fail for it: {dict(outcome.counts)}")
    outcome.problems += [f"{outcome.counts[what]} requests {what}" for what in (HUNG, TORN) if outcome.counts[what]]
    return outcome


@asynccontextmanager
async def _nothing(stage: Stage) -> AsyncIterator[None]:
    yield
