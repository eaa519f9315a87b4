"""What is counted, as Prometheus reads it: in its text format, or as OpenMetrics.

Names and units are by https://prometheus.io/docs/practices/naming/. No label holds what a client has sent.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .. import __version__
from . import pages
from .counters import Counters, Histogram
from .pages import Page

NO_LIBRARY = pages.text(501, "metrics need the package prometheus_client, which is not installed")
_LONGEST_ACCEPT = 1024


class Key(NamedTuple):
    """A signing key; times are seconds since the epoch."""

    kid: str
    begins: float | None
    ends: float | None
    """When it may sign; None: there is no such time."""
    algorithm: str = ""
    signs: bool = False
    """Whether it does so now."""


class Facts(NamedTuple):
    """What is told beside what is counted."""

    keys: Iterable[Key] = ()
    mitmproxy: str = ""
    rules: Iterable[str] = ()
    """The names of all that there are, in their order."""
    redis_up: bool | None = None
    """Whether Redis is there; None where nobody asks it."""


def text(counters: Counters, facts: Facts, accept: str) -> tuple[str, str]:
    """The metrics, and of which type they are for a client that sends this Accept.

    Raises ImportError where prometheus_client is missing.
    """
    from prometheus_client import exposition

    try:
        encode, kind = exposition.choose_encoder(accept)
    except TypeError:  # a version in it is none
        encode, kind = exposition.choose_encoder("")
    return encode(_Collector(counters, facts)).decode(), kind


def page(headers: Mapping[str, str], counters: Counters, facts: Facts) -> Page:
    """The metrics, in the format that the client asks for."""
    try:
        body, kind = text(counters, facts, headers.get("accept", "")[:_LONGEST_ACCEPT])
    except ImportError:
        return NO_LIBRARY
    return Page(200, body, {"Content-Type": kind, "Cache-Control": "no-store", "Vary": "Accept"})


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
        yield core.GaugeMetricFamily(
            "jwtproxy_open_connections", "Connections of clients that have sent anything.", value=counters.open
        )
        yield core.GaugeMetricFamily(
            "jwtproxy_start_time_seconds", "When the proxy was started, since the epoch.", value=counters.started
        )
        yield from self._keys()
        if self._facts.redis_up is not None:
            yield core.GaugeMetricFamily(
                "jwtproxy_redis_up", "Whether Redis is there, for who has answered this.", value=self._facts.redis_up
            )
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

        begins = core.GaugeMetricFamily(
            "jwtproxy_key_not_before_seconds",
            "From when on a key may sign, since the epoch; the first of its kid.",
            labels=("kid",),
        )
        ends = core.GaugeMetricFamily(
            "jwtproxy_key_not_after_seconds",
            "Until when a key may sign, since the epoch; the first of its kid.",
            labels=("kid",),
        )
        known = core.GaugeMetricFamily("jwtproxy_key", "How many keys sign, or will.", labels=("kid",))
        by_kid: dict[str, list[Key]] = {}
        for key in self._facts.keys:
            by_kid.setdefault(key.kid, []).append(key)
        for kid, keys in by_kid.items():  # those of rules may share one, or have none: a series may be there only once
            known.add_metric((kid,), len(keys))
            for family, times in ((begins, [key.begins for key in keys]), (ends, [key.ends for key in keys])):
                if told := [at for at in times if at is not None]:
                    family.add_metric((kid,), min(told))
        yield from (known, begins, ends)


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
