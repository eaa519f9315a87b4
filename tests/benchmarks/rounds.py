"""Rounds of load in which targets take turns: what is sent, to whom, how often, and what each request cost."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError
from mitmproxy.certs import CertStore

from tests.support.harness import verify

from . import load, targets, upstream
from .arrivals import Arrivals, keeping
from .targets import Cores, Place, Running, Target
from .upstream import KIB, MIB, Upstream


@dataclass(frozen=True)
class Scenario:
    """One kind of traffic."""

    key: str
    title: str
    protocol: str = "http"
    path: str = "/small"
    method: str = "GET"
    body: int = 0
    close: bool = False
    among: tuple[str, ...] = ()
    """The keys of the targets that it is about, if not about all but variants.

    Those differ by little, so each round is another process's, with cores of its own where there are two: how one
    happens to lie in memory, and who takes its caches, makes as much of a difference. There are three times as many.
    """

    def is_about(self, target: Target) -> bool:
        """Whether a target takes part."""
        return target.key in self.among if self.among else not target.variant

    def spec(self, seconds: float, port: int, running: Running, place: Place) -> load.Spec:
        """The load for one target and the upstream's port."""
        return load.Spec(
            upstream=port,
            proxy=running.port,
            path=self.path,
            method=self.method,
            body=self.body,
            protocol=self.protocol,
            close=self.close,
            seconds=seconds,
            trust=(str(place.trust), str(place.folder / "mitmproxy-ca-cert.pem")),
        )


SCENARIOS = (
    Scenario("plain", "plain HTTP, kept alive"),
    Scenario("close", "plain HTTP, Connection: close", close=True),
    Scenario("https1", "HTTPS/1.1 in tunnels, kept alive", "https/1.1"),
    Scenario("https2", "HTTPS/2 in tunnels, kept alive", "https/2"),
    Scenario("download", "plain HTTP, 1 MiB down", path="/mib"),
    Scenario("upload", "plain HTTP, 1 MiB up", path="/upload", method="POST", body=MIB),
    Scenario("download-64k", "plain HTTP, 64 KiB down", path="/64k"),
    Scenario("upload-64k", "plain HTTP, 64 KiB up", path="/upload", method="POST", body=64 * KIB),
    Scenario(
        "watched",
        "plain HTTP, what it costs to be watched",
        among=("uncounted", "jwtproxy-counted", "jwtproxy-json", "jwtproxy-1", "jwtproxy-redis"),
    ),
)


@dataclass(frozen=True)
class Settings:
    """How long, how often, what and whom."""

    rounds: int
    seconds: float
    scenarios: Sequence[Scenario]
    targets: Sequence[Target]
    whole: bool
    """Whether nothing was left out."""

    @classmethod
    def from_environment(
        cls, rounds: int, seconds: float, scenarios: Sequence[Scenario], everyone: Sequence[Target]
    ) -> Settings:
        """These, but for what BENCH_ROUNDS, BENCH_SECONDS, BENCH_ONLY and BENCH_TARGETS say."""
        only, whom = os.environ.get("BENCH_ONLY", ""), os.environ.get("BENCH_TARGETS", "")
        return cls(
            rounds=int(os.environ.get("BENCH_ROUNDS") or rounds),
            seconds=float(os.environ.get("BENCH_SECONDS") or seconds),
            scenarios=[scenario for scenario in scenarios if scenario.key in _chosen(only, scenarios)],
            targets=[target for target in everyone if target.key in _chosen(whom, everyone)],
            whole=not only and not whom,
        )


def _chosen(names: str, known: Iterable[Scenario | Target]) -> set[str]:
    """The keys that are named, by commas, or all. Ends with an error for an unknown one."""
    keys = [one.key for one in known]
    chosen = set(filter(None, names.split(","))) or set(keys)
    if unknown := chosen - set(keys):
        sys.exit(f"bench: there is no {', '.join(sorted(unknown))}, but {', '.join(keys)}")
    return chosen


@dataclass(frozen=True)
class Site:
    """What there is besides the proxies."""

    server: Upstream
    place: Place
    cores: Cores


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """A scratch folder with a CA for the proxies, and a running upstream."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by all that is started here
    cores = Cores.here()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        with targets.on_cores(cores.others):
            server = stack.enter_context(upstream.serve(_subfolder(folder, "upstream")))
        confdir = _subfolder(folder, "proxies")
        CertStore.create_store(confdir, "mitmproxy", 2048)
        yield Site(server, Place(confdir, server.authority.pem), cores)


@dataclass
class Row:
    """What was measured of one target in one scenario."""

    label: str
    rounds: list[dict[str, float]] = field(default_factory=list)
    reason: str = ""
    """Why there is nothing."""

    def median(self, name: str) -> float | None:
        """The median over the rounds."""
        values = [figures[name] for figures in self.rounds if name in figures]
        return statistics.median(values) if values else None

    def as_dict(self) -> dict[str, Any]:
        """For results.json and the table."""
        if self.reason:
            return {"label": self.label, "reason": self.reason}
        names = "requests_per_second cpu_us_per_request p50_ms p99_ms pss_mib".split()
        medians = {name: _rounded(self.median(name)) for name in names}
        return {
            "label": self.label,
            **medians,
            "errors": sum(figures["errors"] for figures in self.rounds),
            "rounds": self.rounds,
        }


def run(settings: Settings, at: Site, arrivals: Arrivals) -> dict[str, Any]:
    """The figures of every scenario, by its key."""
    results = {}
    with _all_running(settings, at) as (everyone, missing):
        for scenario in settings.scenarios:
            part = [running for running in everyone if scenario.is_about(running.target)]
            absent = [one for one in settings.targets if one.key in missing and scenario.is_about(one)]
            with _apart(at) if scenario.among else contextlib.nullcontext(at) as site:
                rows = _measure(scenario, settings, site, part) | {one.key: missing[one.key] for one in absent}
            results[scenario.key] = {
                "title": scenario.title,
                "targets": {key: row.as_dict() for key, row in rows.items()},
                "arrived": _check(scenario, settings, at, part, arrivals),
            }
    return results


@contextlib.contextmanager
def _all_running(settings: Settings, at: Site) -> Iterator[tuple[list[Running], dict[str, Row]]]:
    """Every target, started once; those that do not start, with the reason."""
    missing: dict[str, Row] = {}
    with contextlib.ExitStack() as stack:
        everyone: list[Running] = []
        for target in settings.targets:
            if reason := target.lacks():
                missing[target.key] = Row(target.label, reason=reason)
                continue
            try:
                with targets.on_cores(at.cores.proxies):
                    everyone.append(stack.enter_context(targets.start(target, at.place)))
            except RuntimeError as error:
                progress(f"{target.label}: {error}")
                missing[target.key] = Row(target.label, reason="it does not start here")
        yield everyone, missing


@contextlib.contextmanager
def _apart(at: Site) -> Iterator[Site]:
    """The same, but with an upstream of its own, and cores that proxies have for themselves."""
    cores = Cores.here(fewest=2)
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        targets.on_cores(cores.others),
        upstream.serve(_subfolder(Path(folder), "upstream")) as server,
    ):
        yield Site(server, at.place, cores)


@contextlib.contextmanager
def _warm(target: Target, at: Site, spec: Callable[[Running], load.Spec]) -> Iterator[Running]:
    """One more process of this, which has had a second to learn what is asked of it."""
    with contextlib.ExitStack() as stack:
        with targets.on_cores(at.cores.proxies):
            running = stack.enter_context(targets.start(target, at.place))
        with targets.on_cores(at.cores.others):
            load.run(replace(spec(running), seconds=1))
        yield running


def _measure(scenario: Scenario, settings: Settings, at: Site, everyone: list[Running]) -> dict[str, Row]:
    rows = {running.target.key: Row(running.target.label) for running in everyone}
    able = [running for running in everyone if not _reason(scenario, running.target, at.server, rows)]
    rounds = settings.rounds * (3 if scenario.among else 1)

    def spec(one: Running) -> load.Spec:
        return scenario.spec(settings.seconds, at.server.ports[scenario.protocol], one, at.place)

    for number in range(rounds):
        turn = number % max(1, len(able))
        for running in able[turn:] + able[:turn]:
            progress(f"{scenario.title}, round {number + 1} of {rounds}: {running.target.label}", end="\r")
            row = rows[running.target.key]
            try:
                with (
                    _warm(running.target, at, spec) if scenario.among else contextlib.nullcontext(running) as one,
                    targets.on_cores(at.cores.others),
                ):
                    row.rounds += measure(spec(one), one)
            except (RuntimeError, AssertionError, JoseError, subprocess.TimeoutExpired) as error:
                row.reason = f"failed: {str(error).splitlines()[0]}"
                progress(f"{running.target.label}: {error}")
        able = [running for running in able if not rows[running.target.key].reason]
    for row in rows.values():
        row.reason = row.reason or ("" if row.rounds else "no answer within a round")
    progress(f"{scenario.title}: done")
    return rows


def _reason(scenario: Scenario, target: Target, server: Upstream, rows: dict[str, Row]) -> str:
    """Why this target cannot do this scenario; empty when it can."""
    reason = target.cannot.get(scenario.protocol, "")
    if scenario.protocol not in server.ports:
        reason = "needs nginx as the upstream"
    rows[target.key].reason = reason
    return reason


def measure(spec: load.Spec, running: Running) -> list[dict[str, float]]:
    """One round against one target; nothing if it answered nothing. Raises AssertionError for a token that is wrong."""
    before: list[float] = []
    began = time.time()
    outcome = load.run(spec, lambda: before.append(running.cpu()))
    cpu = running.cpu() - before[0]
    if not outcome.requests:
        return []
    figures = {
        "requests_per_second": outcome.requests / outcome.seconds,
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
        "errors": outcome.errors,
    }
    if running.process:
        assert not outcome.unsigned, f"{outcome.unsigned} of {outcome.requests} requests arrived unsigned"
        check_tokens(outcome.tokens, began)
        figures["cpu_us_per_request"] = cpu * 1e6 / (outcome.requests + outcome.cut_off)
        figures["pss_mib"] = running.pss()
    return [figures]


def check_tokens(tokens: list[str], since: float) -> None:
    """Each is signed with our key, made now, and no other's twin. Raises AssertionError."""
    assert tokens, "no token was sampled"
    claims = [verify(token) for token in tokens]
    assert len({str(claim["jti"]) for claim in claims}) == len(claims), "a token was used twice"
    for claim in claims:
        assert int(since) <= int(str(claim["iat"])) <= time.time(), "a token is not fresh"


def _check(
    scenario: Scenario, settings: Settings, at: Site, everyone: list[Running], arrivals: Arrivals
) -> dict[str, Any]:
    """What an upstream that keeps every token says of ours, by target; not timed."""
    told = {}
    for running in everyone:
        if running.target.key.startswith("jwtproxy-"):
            progress(f"{scenario.title}, every token: {running.target.label}", end="\r")
            with keeping(scenario.protocol, at.server) as server:
                spec = scenario.spec(settings.seconds, server.port, running, at.place)
                told[running.target.key] = arrivals.check(server, spec)
    return told


def _subfolder(folder: Path, name: str) -> Path:
    folder.chmod(0o755)  # the upstream's workers may run as another user
    (folder / name).mkdir()
    return folder / name


def _rounded(value: float | None) -> float | None:
    return value if value is None else float(f"{value:.4g}")


def progress(text: str, end: str = "\n") -> None:
    """Tell what is being done."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)
    elif end == "\n":
        print(text, file=sys.stderr, flush=True)
