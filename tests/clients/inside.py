"""What runs in the stage's namespace: plays clients, and prints an outcome a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from . import verdict
from .rows import CLIENTS, Client
from .stage import Stage
from .verdict import Outcome


def _apart(stage: Stage, client: Client) -> Outcome:
    stage.prepare(client)
    kinds = ("private", "public") if client.goes_around else ("private", "public", "direct", "only")
    return verdict.judge(client, stage.version(client), [stage.run(client, kind) for kind in kinds])


def _together(stage: Stage, clients: Sequence[Client]) -> Iterator[Outcome]:
    """Whom the proxy trusts does not depend on who asks it: one client shows that for the system's roots."""
    carried = [client for client in clients if not client.goes_around]
    around = [client for client in clients if client.goes_around]
    with ThreadPoolExecutor(3) as pool:
        public = pool.submit(stage.run_together, carried[:1], stage.public)
        alone = pool.map(lambda client: (client, stage.run(client, "private")), around)
        private = stage.run_together(carried, stage.private)
        for client in carried:
            runs = [private[client.name], *filter(None, [public.result().get(client.name)])]
            yield verdict.judge(client, "", runs)
        for client, run in alone:
            yield verdict.judge(client, "", [run])


def _outcomes(folder: Path, names: Sequence[str], *, together: bool) -> Iterator[Outcome]:
    wanted = [client for client in CLIENTS if client.name in names]
    with Stage(folder) as stage:
        lacking = {client.name: lack for client in wanted if (lack := stage.lack(client))}
        there = [client for client in wanted if client.name not in lacking]
        if together:
            yield from _together(stage, there)
        else:
            yield from (_apart(stage, client) for client in there)
    for name, lack in lacking.items():
        yield Outcome(name, verdict.SKIPPED, said=f"needs {lack.strip('{}')}")


if __name__ == "__main__":
    names, together = json.loads(sys.argv[2])
    for outcome in _outcomes(Path(sys.argv[1]), names, together=together):
        print(json.dumps(asdict(outcome)), flush=True)
