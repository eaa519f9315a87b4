"""What is made of a client's runs: whether it does what its row says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Client

SIGNED, AROUND, SKIPPED, FAILED = "signed", "goes around", "skipped", "failed"
UNSIGNED = 3
"""The exit status of `exec --require-signed` where nothing was signed."""


@dataclass(frozen=True)
class Run:
    """One run: its kind, the exit status, how many requests arrived with a valid token, how many without, by which
    versions of HTTP, and what was printed.
    """

    kind: str
    status: int
    signed: int
    unsigned: int
    versions: Sequence[str]
    output: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a client."""

    name: str
    result: str
    version: str = ""
    said: str = ""


def judge(client: Client, version: str, runs: Sequence[Run]) -> Outcome:
    """Whether all runs went as the row says."""
    problems = [f"{run.kind}: {problem}\n{run.output}" for run in runs for problem in _problems(client, run)]
    if problems:
        return Outcome(client.name, FAILED, version, "\n".join(problems))
    return Outcome(client.name, AROUND if client.goes_around else SIGNED, version)


def _problems(client: Client, run: Run) -> Iterator[str]:
    told = f"status {run.status}, {run.signed} signed, {run.unsigned} unsigned"
    if client.goes_around:
        if (run.status, run.signed, run.unsigned) != (UNSIGNED, 0, 0):
            yield f"{told}, where it should go around"
        return
    unsigned = run.kind == "direct" and client.no_proxy
    as_wished, otherwise = (run.unsigned, run.signed) if unsigned else (run.signed, run.unsigned)
    if run.status or otherwise or not as_wished:
        yield told
    expected = ["2" if client.two else "1.1"]
    if as_wished and list(run.versions) != expected:
        yield f"HTTP {run.versions}, not {expected}"
