"""`make bench`: our proxy beside others on this machine, in rounds that take turns; medians are reported.

BENCH_ROUNDS (5) and BENCH_SECONDS (3, for each round) adjust it; BENCH_QUICK=1 takes less than two minutes.
BENCH_ONLY names scenarios, by commas. Results: a table here, results.json and results.svg beside this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jwt
from joserfc.errors import JoseError
from mitmproxy.certs import CertStore

from jwtproxy.tokens import key_formats
from jwtproxy.tokens.algorithms import ALGORITHMS
from jwtproxy.tokens.claims import Profile, default_claims, mint
from jwtproxy.tokens.keys import KeyRequest
from jwtproxy.tokens.new_key import generate
from jwtproxy.tokens.signing import Signer
from tests.support.harness import SECRET, verify

from . import load, report, targets, upstream
from .idle import idle_connections
from .targets import Place, Running, Target
from .upstream import MIB, Upstream

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """How long and how much."""

    rounds: int
    seconds: float
    idle: int
    workers: int
    only: list[str]

    @classmethod
    def from_environment(cls) -> Settings:
        """From BENCH_*."""
        quick = bool(os.environ.get("BENCH_QUICK"))
        only = [name for name in os.environ.get("BENCH_ONLY", "").split(",") if name]
        return cls(
            rounds=int(os.environ.get("BENCH_ROUNDS") or (1 if quick else 5)),
            seconds=float(os.environ.get("BENCH_SECONDS") or (2 if quick else 3)),
            idle=int(os.environ.get("BENCH_IDLE") or (500 if quick else 5000)),
            workers=targets.many_workers(),
            only=only,
        )


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

    def spec(self, settings: Settings, server: Upstream, running: Running, trust: Place) -> load.Spec:
        """The load for one target."""
        return load.Spec(
            upstream=server.ports[self.protocol],
            proxy=running.port,
            path=self.path,
            method=self.method,
            body=self.body,
            protocol=self.protocol,
            close=self.close,
            seconds=settings.seconds,
            trust=(str(trust.trust), str(trust.folder / "mitmproxy-ca-cert.pem")),
        )


SCENARIOS = (
    Scenario("plain", "plain HTTP, kept alive"),
    Scenario("connect", "plain HTTP, a new connection for each request", close=True),
    Scenario("https1", "HTTPS/1.1 in tunnels, kept alive", "https/1.1"),
    Scenario("https2", "HTTPS/2 in tunnels, kept alive", "https/2"),
    Scenario("download", "plain HTTP, 1 MiB down", path="/mib"),
    Scenario("upload", "plain HTTP, 1 MiB up", path="/upload", method="POST", body=MIB),
)


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


def main() -> None:
    """Measure everything, write it down, say how it compares with what was promised."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by all that is started here
    settings = Settings.from_environment()
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        server = stack.enter_context(upstream.serve(_subfolder(folder, "upstream")))
        confdir = _subfolder(folder, "proxies")
        CertStore.create_store(confdir, "mitmproxy", 2048)
        place = Place(confdir, server.trust)
        _progress(f"upstream {server.name}, {settings.rounds} rounds of {settings.seconds:g} s, N = {settings.workers}")
        results: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(),
            "versions": _versions(server),
            "settings": {"rounds": settings.rounds, "seconds": settings.seconds, "connections": 32},
            "token": _token(),
            "algorithms": {
                algorithm: _algorithm(algorithm) for algorithm in ALGORITHMS if algorithm != "Ed25519"
            },  # EdDSA by another name
            "scenarios": _scenarios(settings, server, place),
            "idle": idle_connections(settings.idle, server, place, _progress),
            "workers": _workers(place),
        }
    results["acceptance"] = report.acceptance(results, settings.workers)
    _progress(f"took {time.monotonic() - begun:.0f} s")
    print(report.table(results))
    if not settings.only:
        (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (FOLDER / "results.svg").write_text(report.chart(results))


def _scenarios(settings: Settings, server: Upstream, place: Place) -> dict[str, Any]:
    chosen = [scenario for scenario in SCENARIOS if not settings.only or scenario.key in settings.only]
    results = {}
    with _all_running(settings, place) as (everyone, missing):
        for scenario in chosen:
            rows = _measure(scenario, settings, server, place, everyone) | missing
            figures = {key: row.as_dict() for key, row in rows.items()}
            results[scenario.key] = {"title": scenario.title, "targets": figures}
    return results


@contextlib.contextmanager
def _all_running(settings: Settings, place: Place) -> Iterator[tuple[list[Running], dict[str, Row]]]:
    """Every target, started once; those that do not start, with the reason."""
    missing: dict[str, Row] = {}
    with contextlib.ExitStack() as stack:
        everyone: list[Running] = []
        for target in targets.all_targets(settings.workers):
            try:
                everyone.append(stack.enter_context(targets.start(target, place)))
            except RuntimeError as error:
                _progress(f"{target.label}: {error}")
                missing[target.key] = Row(target.label, reason="it does not start here")
        yield everyone, missing


def _measure(
    scenario: Scenario, settings: Settings, server: Upstream, place: Place, everyone: list[Running]
) -> dict[str, Row]:
    rows = {running.target.key: Row(running.target.label) for running in everyone}
    able = [running for running in everyone if not _reason(scenario, running.target, server, rows)]
    for number in range(settings.rounds):
        turn = number % max(1, len(able))
        for running in able[turn:] + able[:turn]:
            _progress(f"{scenario.title}, round {number + 1} of {settings.rounds}: {running.target.label}", end="\r")
            row = rows[running.target.key]
            try:
                row.rounds += measure(scenario.spec(settings, server, running, place), running)
            except (RuntimeError, AssertionError, JoseError, subprocess.TimeoutExpired) as error:
                row.reason = f"failed: {str(error).splitlines()[0]}"
                _progress(f"{running.target.label}: {error}")
        able = [running for running in able if not rows[running.target.key].reason]
    for row in rows.values():
        row.reason = row.reason or ("" if row.rounds else "no request succeeded")
    _progress(f"{scenario.title}: done")
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


def _token() -> dict[str, float]:
    """Microseconds for a token, ours beside PyJWT's own `encode`: medians of runs that take turns."""
    key = bytes.fromhex(SECRET)
    signer = Signer(key, "HS512")
    claims = default_claims("username", time.time())
    ways: dict[str, Callable[[], object]] = {
        "sign_us": lambda: signer.sign(claims),
        "claims_and_sign_us": lambda: signer.sign(default_claims("username", time.time())),
        "pyjwt_encode_us": lambda: jwt.encode(claims, key, "HS512"),
    }
    for token in (signer.sign(default_claims("username", time.time())) for _ in range(100)):
        assert jwt.decode(token, key, ["HS512"]) == verify(token)
    return _time(ways, 3000)


def _algorithm(algorithm: str) -> dict[str, float]:
    """The same for one algorithm, the key read before; RSA of 2048 bits."""
    text = generate(algorithm)
    (key,) = key_formats.parse(text, "the key", KeyRequest(algorithm))
    signer, profile = key.signer(), Profile("username", issuer="jwtproxy", audience="origin", ttl=60)
    claims = mint(profile, "https://api.example", time.time())
    ways: dict[str, Callable[[], object]] = {
        "mint_and_sign_us": lambda: signer.sign(mint(profile, "https://api.example", time.time())),
        "pyjwt_encode_us": lambda: jwt.encode(claims, key.private, algorithm),
    }
    return _time(ways, 3000 if algorithm.startswith("HS") else 200)


def _time(ways: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Microseconds of processor time for each: medians of runs that take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(9):
        for name, way in ways.items():
            begun = time.process_time()  # others may keep the machine busy
            for _ in range(count):
                way()
            times[name].append((time.process_time() - begun) / count * 1e6)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def _workers(place: Place) -> dict[str, Any]:
    """PSS at rest, by the number of workers."""
    sizes: dict[str, Any] = {}
    for count in (1, 2, 4):
        try:
            with targets.start(targets.ours(count), place) as running:
                time.sleep(2)
                sizes[str(count)] = round(running.pss(), 1)
        except RuntimeError as error:
            _progress(f"{count} workers: {error}")
    if "2" in sizes and "4" in sizes:
        sizes["each_further_mib"] = round((sizes["4"] - sizes["2"]) / 2, 1)
    return sizes


def _machine() -> dict[str, Any]:
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _versions(server: Upstream) -> dict[str, str]:
    names = "jwtproxy mitmproxy PyJWT proxy.py starlette httpx uvicorn".split()
    found = {"python": platform.python_version(), "upstream": server.name, "load": load.name()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(path).read_text().splitlines()
    return []


def _subfolder(folder: Path, name: str) -> Path:
    folder.chmod(0o755)  # the upstream's workers may run as another user
    (folder / name).mkdir()
    return folder / name


def _rounded(value: float | None) -> float | None:
    return value if value is None else float(f"{value:.4g}")


def _progress(text: str, end: str = "\n") -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)
    elif end == "\n":
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
