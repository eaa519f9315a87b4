"""What Prometheus is told."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from jwtproxy.observe import metrics
from jwtproxy.observe.counters import Counters, Outcome
from jwtproxy.observe.metrics import Facts, Key

OPEN = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def counters() -> Counters:
    counters = Counters(limits=["jwt_max_head"])
    for rule in ("default", 'odd "name"\\\n'):
        counters.count()
        counters.count_end(Outcome.SUCCESS, rule, (10, 20, True), 0.02)
        counters.time_signing(30e-6)
    counters.count_end(Outcome.FAILED, "default", (0, 0, False))
    counters.count_kind("dns_error", refused=False)
    counters.count_reached("jwt_max_head")
    counters.count_reload(True)
    counters.change_open(2)
    return counters


FACTS = Facts((Key("one", 1000.0, None), Key("two", 2000.0, 3000.0)), "12.2.3")


def _samples(text: str) -> dict[tuple[str, ...], float]:
    parse = open_metrics if text.endswith("# EOF\n") else plain
    samples = (sample for family in parse(text) for sample in family.samples)
    return {(one.name, *(one.labels[label] for label in sorted(one.labels))): one.value for one in samples}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/html", "text/plain"),
        ("application/openmetrics-text; version=latest", "text/plain"),
        ("text/plain; version=1.0.x", "text/plain"),
        (OPEN, "application/openmetrics-text"),
    ],
)
def test_it_comes_in_the_format_that_is_asked_for(accept: str, kind: str, counters: Counters) -> None:
    text, told = metrics.text(counters, FACTS, accept)
    assert told.startswith(kind)
    assert text.endswith("# EOF\n") == (kind != "text/plain")
    assert _samples(text)["jwtproxy_proxied_requests_total",] == 2


@pytest.mark.parametrize("accept", ["", OPEN])
def test_each_thing_that_is_counted_is_told(accept: str, counters: Counters) -> None:
    found = _samples(metrics.text(counters, FACTS, accept)[0])
    expected = {
        ("jwtproxy_requests_total", "fast", "2xx", "default"): 1,
        ("jwtproxy_requests_total", "fast", "2xx", 'odd "name"\\\n'): 1,
        ("jwtproxy_requests_total", "full", "failed", "default"): 1,
        ("jwtproxy_body_bytes_total", "received"): 20,
        ("jwtproxy_body_bytes_total", "sent"): 40,
        ("jwtproxy_upstream_seconds_count",): 2,
        ("jwtproxy_upstream_seconds_bucket", "0.01"): 0,
        ("jwtproxy_upstream_seconds_bucket", "0.025"): 2,
        ("jwtproxy_signing_seconds_bucket", "+Inf"): 2,
        ("jwtproxy_upstream_errors_total", "dns_error"): 1,
        ("jwtproxy_refusals_total", "http_request_denied"): 0,
        ("jwtproxy_limit_reached_total", "jwt_max_head"): 1,
        ("jwtproxy_reloads_total", "taken"): 1,
        ("jwtproxy_open_connections",): 2,
        ("jwtproxy_key", "one"): 1,
        ("jwtproxy_key_not_before_seconds", "one"): 1000,
        ("jwtproxy_key_not_after_seconds", "two"): 3000,
    }
    assert {name: found[name] for name in expected} == expected
    assert ("jwtproxy_key_not_after_seconds", "one") not in found
    assert any(name[0] == "jwtproxy_build_info" and "12.2.3" in name for name in found)


def test_keys_that_share_a_kid_are_one_series(counters: Counters) -> None:
    """Those of rules may have none: Prometheus takes a series only once from each scrape."""
    keys = Key("", None, 5.0), Key("", 2.0, 4.0), Key("", 1.0, None)
    text = metrics.text(counters, Facts(keys), "")[0]
    lines = [line for line in text.splitlines() if line.startswith("jwtproxy_key")]
    assert lines == [
        'jwtproxy_key{kid=""} 3.0',
        'jwtproxy_key_not_before_seconds{kid=""} 1.0',
        'jwtproxy_key_not_after_seconds{kid=""} 4.0',
    ]


def test_promtool_finds_nothing_to_say_of_it(counters: Counters) -> None:
    if not shutil.which("promtool"):
        pytest.skip("no promtool here")
    text = metrics.text(counters, FACTS, "")[0]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_page_is_not_to_be_kept(counters: Counters) -> None:
    page = metrics.page({"accept": OPEN}, counters, FACTS)
    assert page.code == 200
    assert page.headers["Content-Type"].startswith("application/openmetrics-text")
    assert page.headers["Cache-Control"] == "no-store"


def test_without_the_library_it_is_said(counters: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bare mitmdump, where there is nothing but PyJWT."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    page = metrics.page({}, counters, FACTS)
    assert (page.code, "prometheus_client" in page.body) == (501, True)


@pytest.mark.parametrize(("up", "told"), [(True, 1), (False, 0), (None, None)])
def test_redis_is_told_of_where_there_is_one(up: bool | None, told: float | None, counters: Counters) -> None:
    found = _samples(metrics.text(counters, FACTS._replace(redis_up=up), "")[0])
    assert found.get(("jwtproxy_redis_up",)) == told
