"""What `/status` tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.observe import report
from jwtproxy.observe.cells import fitting
from jwtproxy.observe.counters import Counters, Histogram, Outcome
from jwtproxy.observe.metrics import Facts, Key

NO_FACTS = Facts()


def _members(counters: Counters, facts: Facts = NO_FACTS) -> dict[str, Any]:
    members = report.members(counters, facts)
    assert json.loads(json.dumps(members)) == members
    return members


def test_what_has_always_been_there_comes_first_and_is_as_it_was() -> None:
    counters = Counters()
    counters.count()
    members = _members(counters)
    before = counters.snapshot()
    assert list(members)[: len(before)] == list(before)
    assert {name: members[name] for name in before if name != "uptime_seconds"} == {
        name: value for name, value in before.items() if name != "uptime_seconds"
    }


def test_outcomes_rules_and_bytes_are_sums() -> None:
    counters = Counters()
    for outcome, rule, fast in (
        (Outcome.SUCCESS, "pay", True),
        (Outcome.SUCCESS, "pay", False),
        (Outcome.REFUSED, "default", True),
        (Outcome.FAILED, "gone", True),
    ):
        counters.count_end(outcome, rule, (2, 3, fast))
    counters.count_kind("dns_error", refused=False)
    counters.count_kind("http_request_denied", refused=True)
    members = _members(counters, Facts(rules=["first", "pay"]))
    assert members["outcomes"] == {
        "2xx": 2,
        "3xx": 0,
        "4xx": 0,
        "5xx": 0,
        "refused": 1,
        "failed": 1,
        "aborted": 0,
    }
    assert list(members["rules"].items()) == [("first", 0), ("pay", 2), ("gone", 1), ("default", 1)]
    assert (members["bytes_received"], members["bytes_sent"]) == (8, 12)
    assert (members["failures"], members["refusals"]) == ({"dns_error": 1}, {"http_request_denied": 1})


def test_a_rule_with_a_long_name_is_told_once() -> None:
    counters = Counters()
    name = "é" * 50
    counters.count_end(Outcome.SUCCESS, name, (0, 0, True))
    assert _members(counters, Facts(rules=[name]))["rules"] == {fitting(name): 1, "default": 0}


def test_times_are_told_in_seconds_and_null_while_there_are_none() -> None:
    counters = Counters()
    empty = _members(counters)["latency"]
    assert empty["signing_seconds"] == {"count": 0, "mean": None, "p50": None, "p90": None, "p99": None}
    for _ in range(10):
        counters.count_end(Outcome.SUCCESS, "default", (0, 0, True), 0.02)
    told = _members(counters)["latency"]["upstream_seconds"]
    assert (told["count"], told["mean"]) == (10, 0.02)
    assert 0.01 < told["p50"] < told["p90"] < told["p99"] <= 0.025


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 10, 10], 0.5, 0.5),
        ([0, 10, 10], 0.5, 2.0),
        ([5, 10, 10], 0.9, 2.6),
        ([0, 0, 10], 0.5, 3.0),
        ([9, 9, 10], 0.99, 3.0),
    ],
)
def test_a_quantile_is_estimated_within_its_bucket(counts: list[int], share: float, seconds: float | None) -> None:
    assert report.quantile(Histogram((1.0, 3.0), counts, 0.0), share) == (seconds and pytest.approx(seconds))


@given(st.lists(st.integers(0, 100), min_size=3, max_size=3), st.floats(0.01, 1))
def test_any_histogram_has_quantiles_within_its_bounds(each: Sequence[int], share: float) -> None:
    counts = [each[0], each[0] + each[1], sum(each)]
    found = report.quantile(Histogram((1.0, 3.0), counts, 0.0), share)
    assert (found is None) == (counts[-1] == 0)
    assert found is None or 0 <= found <= 3


def test_workers_that_serve_have_a_line_each_and_others_are_added_up() -> None:
    counters = Counters(processes=2)
    for process in (1, 2, 3):
        counters.use_cell(process)
        counters.serve(100 + process)
        counters.count()
        counters.change_open(1)
    counters.count_fast()
    counters.forget_open(1)
    members = _members(counters)
    assert members["ended_workers"] == {"proxied_requests": 1, "fast_lane_requests": 0}
    assert members["workers"] == [
        {"number": 2, "pid": 102, "proxied_requests": 1, "fast_lane_requests": 0, "open_connections": 1},
        {"number": 3, "pid": 103, "proxied_requests": 1, "fast_lane_requests": 1, "open_connections": 1},
    ]


def test_who_is_alone_is_worker_1() -> None:
    counters = Counters()
    counters.serve(7)
    assert [(worker["number"], worker["pid"]) for worker in _members(counters)["workers"]] == [(1, 7)]


def test_keys_are_told_with_their_times() -> None:
    keys = [Key("a", 0.0, 1e9, "ES256", signs=True), Key("", None, None, "HS512"), Key("far", None, 253_402_300_800.0)]
    told = _members(Counters(), Facts(keys))["keys"]
    first = told[0]
    assert first | {"not_before": None} == {
        "kid": "a",
        "algorithm": "ES256",
        "signs": True,
        "not_before": None,
        "not_after": "2001-09-09T01:46:40+00:00",
    }
    assert datetime.fromisoformat(first["not_before"]).timestamp() == 0
    assert [(key["kid"], key["not_after"]) for key in told[1:]] == [(None, None), ("far", None)]


def test_the_rates_are_those_noted() -> None:
    counters = Counters()
    counters.note()
    counters.count()
    members = _members(counters)
    assert members["requests_per_second"] > 0
    assert members["history"] == {"interval_seconds": 5.0, "requests_per_second": []}
    assert members["reloads"] == {"taken": 0, "failed": 0}
