"""`make bench`: our proxy beside others on this machine, in rounds that take turns; medians are reported.

BENCH_ROUNDS (9) and BENCH_SECONDS (1, for each round) adjust it; BENCH_QUICK=1 takes three minutes. BENCH_ONLY names
scenarios, BENCH_TARGETS targets, by commas: then nothing else is measured, and nothing written. Results: a table here,
results.json and results.svg beside this file. It fails if a token of ours is not right.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jwt

from jwtproxy.tokens import key_formats
from jwtproxy.tokens.algorithms import ALGORITHMS
from jwtproxy.tokens.claims import Profile, default_claims, mint
from jwtproxy.tokens.keys import KeyRequest
from jwtproxy.tokens.new_key import generate
from jwtproxy.tokens.signing import Signer
from tests.support.harness import SECRET, verify

from . import load, report, rounds, targets
from .arrivals import Arrivals
from .idle import idle_connections
from .rounds import SCENARIOS, Settings, Site, progress
from .targets import Place
from .upstream import Upstream

FOLDER = Path(__file__).parent


def main() -> None:
    """Measure everything, write it down, say how it compares with what was promised."""
    quick, workers = bool(os.environ.get("BENCH_QUICK")), targets.many_workers()
    chosen = (1, 1, SCENARIOS) if quick else (9, 1, SCENARIOS)
    settings = Settings.from_environment(*chosen, targets.all_targets(workers))
    begun = time.monotonic()
    with rounds.site() as at:
        progress(f"upstream {at.server.name}, {settings.rounds} rounds of {settings.seconds:g} s, N = {workers}")
        results: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(),
            "versions": _versions(at.server),
            "settings": {
                "rounds": settings.rounds,
                "seconds": settings.seconds,
                "connections": 32,
                "workers": workers,
                "shared_cores": at.cores.shared,
            },
            "scenarios": rounds.run(settings, at, Arrivals()),
        }
        if settings.whole:
            results |= _apart(int(os.environ.get("BENCH_IDLE") or (500 if quick else 5000)), at)
    results["acceptance"] = report.acceptance(results)
    progress(f"took {time.monotonic() - begun:.0f} s")
    print(report.table(results))
    if settings.whole:
        (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (FOLDER / "results.svg").write_text(report.chart(results))
    if faults := report.faults(results):
        sys.exit("\n".join(faults))


def _apart(idle: int, at: Site) -> dict[str, Any]:
    """What is not measured by rounds of load."""
    return {
        "token": _token(),
        "algorithms": {
            algorithm: _algorithm(algorithm) for algorithm in ALGORITHMS if algorithm != "Ed25519"
        },  # EdDSA by another name
        "idle": idle_connections(idle, at.server, at.place, progress),
        "workers": _workers(at.place),
    }


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
            progress(f"{count} workers: {error}")
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


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
