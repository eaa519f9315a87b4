"""`make clients`: run each client through `jwtproxy-run exec`, print a table, and write it into the manual.

CLIENTS says how the names of those begin that are wanted, by commas. Fails where one does not do what its row says, and
writes nothing then. What is not played, as it is not wanted or not installed, keeps its version in the manual.
"""

from __future__ import annotations

import os
import sys

from tests.support.harness import REPO

from . import report, stage
from .rows import CLIENTS
from .verdict import FAILED, SKIPPED, Outcome

MANUAL = REPO / "launcher/help/clients.md"


def main() -> None:
    """Play, tell, write, and exit with 1 if a row does not hold."""
    if lack := stage.unable():
        sys.exit(f"clients: {lack}")
    wanted = tuple(os.environ.get("CLIENTS", "").lower().split(","))
    clients = {one.name: one for one in CLIENTS}
    outcomes = {name: Outcome(name, SKIPPED) for name in clients}
    for outcome in stage.play(name for name in clients if name.lower().startswith(wanted)):
        outcomes[outcome.name] = outcome
        print(report.line(clients[outcome.name], outcome), flush=True)
    if failed := [name for name, outcome in outcomes.items() if outcome.result == FAILED]:
        sys.exit(f"clients: not as their rows say: {', '.join(failed)}")
    text = MANUAL.read_text()
    MANUAL.write_text(report.replaced(text, report.matrix(CLIENTS, outcomes, text)))
    print(f"clients: written to {MANUAL.relative_to(REPO)}")


if __name__ == "__main__":
    main()
