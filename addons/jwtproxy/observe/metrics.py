"""What is counted, as Prometheus reads it: in its text format, or as OpenMetrics.

Names and units are by https://prometheus.io/docs/practices/naming/. No label holds what a client has sent.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .. import __version__
from .counters import Counters, Histogram


class Key(NamedTuple):
    """A signing key, and its times in seconds since the epoch."""

    kid: str
    since: float
    until: float | None


class Facts(NamedTuple):
    """What is told beside what is counted."""

    keys: Iterable[Key] = ()
    mitmproxy: str = ""


def text(counters: Counters, facts: Facts, accept: str) -> tuple[str, str]:
    """The metrics, and of which type they are for a client that sends this Accept.

    Raises ImportError where prometheus_client is missing.
    """
    from prometheus_client import exposition

    encode, kind = exposition.choose_encoder(accept)
    return encode(_Collector(counters, facts)).decode(), kind


class _Collector:
    """All families, as prometheus_client asks a registry for them."""

    def __init__(self, counters: Counters, facts: Facts) -> None:
        self._counters, self._facts = counters, facts

    def collect(self) -> Iterator[Any]:
        """The families, one after another."""
        from prometheus_client import metrics_core as core

        counters = self._counters
        requests = core.CounterMetricFamily(
            "jwtproxy_requests",
            "Requests that have ended, by what became of them, the rule that decided, and the way they took.",
            labels=("outcome", "rule", "lane"),
        )
        for rule, fast, outcome, count in counters.passed:
            requests.add_metric((outcome.label, rule, "fast" if fast else "full"), count)
        yield requests
        status = counters.snapshot()
        yield core.CounterMetricFamily(
            "jwtproxy_proxied_requests",
            "Requests with which the proxy has set out to reach an upstream.",
            value=status["proxied_requests"],
        )
        received, sent = counters.bytes
        bodies = core.CounterMetricFamily(
            "jwtproxy_body_bytes", "Bytes of bodies that clients have sent and got.", labels=("direction",)
        )
        bodies.add_metric(("received",), received)
        bodies.add_metric(("sent",), sent)
        yield bodies
        yield _histogram(
            "jwtproxy_signing_seconds", "Time that it took to judge a request, and to sign it.", counters.signing
        )
        yield _histogram(
            "jwtproxy_upstream_seconds",
            "Time from when a request had come until the upstream's answer began.",
            counters.upstream,
        )
        yield _counted("jwtproxy_upstream_errors", "Requests that have failed.", "kind", counters.errors)
        yield _counted("jwtproxy_refusals", "Requests that were refused.", "reason", counters.refusals)
        yield _counted("jwtproxy_limit_reached", "How often a limit was reached.", "limit", counters.reached)
        taken, failed = counters.reloads
        yield _counted("jwtproxy_reloads", "Changes of keys and rules.", "result", {"taken": taken, "failed": failed})
        yield core.GaugeMetricFamily("jwtproxy_open_connections", "Connections of clients.", value=counters.open)
        yield core.GaugeMetricFamily(
            "jwtproxy_start_time_seconds", "When the proxy was started, since the epoch.", value=counters.started
        )
        yield from self._keys()
        yield core.InfoMetricFamily(
            "jwtproxy_build",
            "What it is made of.",
            value={
                "version": __version__,
                "mitmproxy": self._facts.mitmproxy,
                "python": platform.python_version(),
            },
        )

    def _keys(self) -> Iterator[Any]:
        from prometheus_client import metrics_core as core

        since = core.GaugeMetricFamily(
            "jwtproxy_key_since_seconds", "When a signing key was first seen, since the epoch.", labels=("kid",)
        )
        until = core.GaugeMetricFamily(
            "jwtproxy_key_expiry_seconds", "When a signing key ceases to sign, since the epoch.", labels=("kid",)
        )
        for key in self._facts.keys:
            since.add_metric((key.kid,), key.since)
            if key.until is not None:
                until.add_metric((key.kid,), key.until)
        yield since
        yield until


def _counted(name: str, what: str, label: str, counts: Mapping[str, int]) -> Any:
    from prometheus_client import metrics_core as core

    family = core.CounterMetricFamily(name, what, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def _histogram(name: str, what: str, found: Histogram) -> Any:
    from prometheus_client import metrics_core as core

    bounds = [*(f"{bound:g}" for bound in found.bounds), "+Inf"]
    return core.HistogramMetricFamily(
        name, what, buckets=list(zip(bounds, found.counts, strict=True)), sum_value=found.sum
    )
