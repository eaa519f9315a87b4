"""`make bench-gate`: are we still as far ahead as results.json, and so README.md, says? Ratios only, in three minutes.

What falls below LEAST of a recorded ratio is measured once more, as the machine may have been busy, and then fails;
so does a wrong token. BENCH_ROUNDS, BENCH_SECONDS, BENCH_ONLY and BENCH_TARGETS as for `make bench`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import report, rounds, targets
from .arrivals import Arrivals
from .rounds import SCENARIOS, Settings

Told = tuple[str, str, bool]
"""A scenario, a line for people, whether what was recorded still holds."""
LEAST = 0.9
RECORDED = Path(__file__).with_name("results.json")


def main() -> None:
    """Measure, compare, exit with 1 if anything fell short."""
    recorded = json.loads(RECORDED.read_text())
    others = [targets.MITMDUMP, targets.PROXY_PY]
    promised = {promise.scenario for promise in report.PROMISES if promise.theirs in {other.key for other in others}}
    scenarios = [scenario for scenario in SCENARIOS if scenario.key in promised]
    settings = Settings.from_environment(3, 1, scenarios, [targets.ours(1), *others])
    arrivals, faults = Arrivals(), list[str]()
    measured: dict[str, Any] = {"scenarios": {}}
    told: list[Told] = []
    with rounds.site() as at:
        for look in ("first", "second"):
            chosen = settings.scenarios if look == "first" else [one for one in scenarios if one.key in short(told)]
            measured["scenarios"] |= rounds.run(replace(settings, scenarios=chosen), at, arrivals) if chosen else {}
            faults += report.faults(measured)
            told = compare(recorded, measured)
    print("\n".join([*(line for _, line, _ in told), *dict.fromkeys(faults)]))
    sys.exit(1 if short(told) or faults or not told else 0)


def short(told: list[Told]) -> set[str]:
    """The scenarios in which we are less far ahead."""
    return {scenario for scenario, _, kept in told if not kept}


def compare(recorded: report.Results, measured: report.Results) -> list[Told]:
    """What is to be told of each promised ratio that could be measured."""
    told = []
    for promise in report.PROMISES:
        row = measured["scenarios"].get(promise.scenario, {}).get("targets", {})
        if not {report.OURS, promise.theirs} <= row.keys():
            continue
        once, now = (report.times_cheaper(results, promise) for results in (recorded, measured))
        kept = once is None or (now is not None and now >= LEAST * once)
        line = f"{promise.scenario:<10} cheaper than {promise.theirs:<10} {_times(now):>12}, recorded {_times(once)}"
        told.append((promise.scenario, line if kept else f"{line}  FAILED", kept))
    return told


def _times(ratio: float | None) -> str:
    return "not measured" if ratio is None else f"{ratio:.2f} times"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
