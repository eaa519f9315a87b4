"""`make attack`: each attack on a proxy of its own, and a table of what it did. ATTACKS names some of them, by commas.

ATTACK_SECONDS (4) is how long each takes, ATTACK_REST (5) how long memory may take afterwards, ATTACK_BESIDE (1) how
many are played at a time; ATTACK_LANE=off goes without the fast lane. Fails where a limit is exceeded. What the honest
client waits for is told, and no limit.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from . import http1, http2
from .stage import REST, RETURNED, Attack, Outcome, play

RISEN = 64.0
"""MiB over what it was before that the proxy may hold in the midst of an attack."""


_PEAKS = {"bodies_just_too_short_to_stream": 200.0}
"""The same in its midst, of attacks by many connections: a MiB for each of them."""


def attacks() -> Iterator[tuple[str, Attack]]:
    """All of them, by name."""
    for module in (http1, http2):
        for name, attack in vars(module).items():
            if (
                inspect.iscoroutinefunction(attack)
                and not name.startswith("_")
                and attack.__module__ == module.__name__
            ):
                yield name, attack


def main() -> None:
    """Play them, tell, and exit with 1 if a limit was exceeded."""
    only = set(filter(None, os.environ.get("ATTACKS", "").split(",")))
    seconds = float(os.environ.get("ATTACK_SECONDS") or 4)
    flags = ["--set", "connection_strategy=lazy", "--set", f"jwt_fast_lane={os.environ.get('ATTACK_LANE') or 'on'}"]
    rest = float(os.environ.get("ATTACK_REST") or REST)
    print(f"{'':<34}{'before':>8}{'peak':>8}{'after':>8}{'p99 ms':>9}{'failed':>8}  the attacker", flush=True)
    bad = [outcome for outcome in _played(only, seconds, rest, flags) if _tell(outcome)]
    sys.exit(f"{len(bad)} went beyond a limit: {', '.join(one.name for one in bad)}" if bad else 0)


def _played(only: set[str], seconds: float, rest: float, flags: list[str]) -> Iterator[Outcome]:
    wanted = [(name, attack) for name, attack in attacks() if not only or name in only]
    with ThreadPoolExecutor(int(os.environ.get("ATTACK_BESIDE") or 1)) as pool:
        yield from pool.map(lambda one: play(one[0], one[1], seconds, *flags, rest=rest), wanted)


def _tell(outcome: Outcome) -> list[str]:
    """Print a line; the limits that were exceeded."""
    faults = [
        *(["after"] if outcome.after > outcome.before + RETURNED else []),
        *(["peak"] if outcome.peak > outcome.before + _PEAKS.get(outcome.name, RISEN) else []),
        *(["failed"] if outcome.failed else []),
    ]
    line = (
        f"{outcome.name:<34}{outcome.before:>8.0f}{outcome.peak:>8.0f}{outcome.after:>8.0f}"
        f"{outcome.p99_ms:>9.1f}{outcome.failed:>8}  {outcome.said}"
    )
    print(f"{line}  !! {' '.join(faults)}" if faults else line, flush=True)
    return faults


if __name__ == "__main__":
    main()
