"""What `/status` tells, as one value: whoever reads it as JSON, and who looks at the page, reads the same."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from . import history
from .cells import fitting
from .counters import NO_RULE, Counters, Histogram, Outcome, Passed
from .metrics import Facts, Key

QUANTILES = (0.5, 0.9, 0.99)


def members(counters: Counters, facts: Facts) -> dict[str, Any]:
    """All of them, as they can be written as JSON; those that have always been there come first."""
    received, sent = counters.bytes
    taken, failed = counters.reloads
    passed = counters.passed
    return {
        **counters.snapshot(),
        "requests_per_second": _rounded(counters.rate),
        "outcomes": _outcomes(passed),
        "failures": _some(counters.errors),
        "refusals": _some(counters.refusals),
        "rules": _rules(passed, facts.rules),
        "latency": {"signing_seconds": _times(counters.signing), "upstream_seconds": _times(counters.upstream)},
        "bytes_received": received,
        "bytes_sent": sent,
        "open_connections": counters.open,
        **_workers(counters),
        "keys": [_key(key) for key in facts.keys],
        "reloads": {"taken": taken, "failed": failed},
        "history": {
            "interval_seconds": history.INTERVAL,
            "requests_per_second": [_rounded(rate) for rate in counters.rates],
        },
    }


def quantile(found: Histogram, share: float) -> float | None:
    """An estimate of the time that this share of all took at most, in seconds: as Prometheus makes it of buckets.

    None where there is nothing; of what is beyond the last bound, no more is known than that.
    """
    rank = share * found.counts[-1]
    if not rank:
        return None
    edges = pairwise([(0.0, 0), *zip(found.bounds, found.counts[:-1], strict=True)])
    for (lower, before), (upper, until) in edges:
        if until >= rank:
            return lower + (upper - lower) * (rank - before) / (until - before)
    return found.bounds[-1]


def _outcomes(passed: Iterable[Passed]) -> dict[str, int]:
    found = {outcome.label: 0 for outcome in Outcome}
    for one in passed:
        found[one.outcome.label] += one.requests
    return found


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    """Those that there are."""
    return {kind: count for kind, count in counts.items() if count}


def _rules(passed: Iterable[Passed], known: Iterable[str]) -> dict[str, int]:
    """How many requests each rule has decided, in the order of the rules; then, what none did."""
    found = {fitting(rule): 0 for rule in known if rule != NO_RULE}
    for one in passed:
        found[one.rule] = found.get(one.rule, 0) + one.requests
    found[NO_RULE] = found.pop(NO_RULE, 0)
    return found


def _times(found: Histogram) -> dict[str, float | None]:
    count = found.counts[-1]
    estimates = {f"p{share * 100:g}": _rounded(quantile(found, share)) for share in QUANTILES}
    return {"count": count, "mean": _rounded(found.sum / count if count else None), **estimates}


def _workers(counters: Counters) -> dict[str, Any]:
    workers = counters.workers
    ended = [worker for worker in workers if not worker.pid]
    return {
        "workers": [
            {
                "number": worker.number or 1,
                "pid": worker.pid,
                "proxied_requests": worker.proxied,
                "fast_lane_requests": worker.fast,
                "open_connections": worker.open,
            }
            for worker in workers
            if worker.pid
        ],
        "ended_workers": {
            "proxied_requests": sum(worker.proxied for worker in ended),
            "fast_lane_requests": sum(worker.fast for worker in ended),
        },
    }


def _key(key: Key) -> dict[str, Any]:
    return {
        "kid": key.kid or None,
        "algorithm": key.algorithm,
        "signs": key.signs,
        "not_before": _when(key.begins),
        "not_after": _when(key.ends),
    }


def _when(epoch: float | None) -> str | None:
    """RFC 3339; None where there is no such time, or none that can be written."""
    if epoch is None:
        return None
    try:
        return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def _rounded[T: (float, float | None)](value: T) -> T:
    """To four digits: more is not known."""
    if not value:
        return value
    return round(value, 3 - math.floor(math.log10(abs(value))))
