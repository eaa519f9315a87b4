"""`make chaos`: faults under load, with one worker and with three (CHAOS_WORKERS); about CHAOS_SECONDS (75) for each.

CHAOS_FAULTS says how the names of those faults begin that are wanted, by commas.

Every request is answered, or refused with an error to its client; none reaches an upstream without a valid token of its
own; and after each fault all is well again by itself. Fails where one of these promises is broken.
"""

from __future__ import annotations

import os
import sys

from .faults import FAULTS
from .play import Outcome, play
from .traffic import HUNG, OK, REFUSED, TORN

_USUAL = 50.0
"""Seconds that a round takes as it is."""


def main() -> None:
    """Play, tell, and exit with 1 if a promise is broken."""
    scale = float(os.environ.get("CHAOS_SECONDS") or 75) / _USUAL
    wanted = tuple(os.environ.get("CHAOS_FAULTS", "").split(","))
    faults = [fault for fault in FAULTS if fault.name.startswith(wanted)]
    problems = []
    for workers in map(int, (os.environ.get("CHAOS_WORKERS") or "1,3").split(",")):
        print(f"{f'{workers} worker{"s" if workers > 1 else ""}':<30}{'200':>7}{'4xx 5xx':>9}", end="")
        print(f"{REFUSED:>9}{HUNG:>6}{TORN:>6}{'well after s':>14}", flush=True)
        problems += [f"{workers} workers: {problem}" for problem in play(workers, _tell, scale, faults)]
    if problems:
        sys.exit("chaos: failed:\n" + "\n".join(problems))
    print("chaos: passed: each request answered or refused, none unsigned, recovery by itself")


def _tell(outcome: Outcome) -> None:
    counts = outcome.counts
    line = f"{outcome.name:<30}{counts[OK]:>7}{outcome.failed:>9}{counts[REFUSED]:>9}{counts[HUNG]:>6}{counts[TORN]:>6}"
    print(f"{line}{outcome.recovered:>14.1f}{'  !!' if outcome.problems else ''}", flush=True)


if __name__ == "__main__":
    main()
