"""What `/status` counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

import jwtproxy
from jwtproxy.observe.counters import Counters, Outcome, Passed


def test_a_new_proxy_has_forwarded_nothing() -> None:
    before = datetime.now(UTC)
    status = Counters().snapshot()
    assert set(status) == {"uptime_seconds", "proxied_requests", "started_at", "version", "fast_lane_requests"}
    assert status["proxied_requests"] == 0
    assert status["version"] == jwtproxy.__version__
    assert 0 <= status["uptime_seconds"] < 60
    started = datetime.fromisoformat(status["started_at"])
    assert started.utcoffset() == timedelta(0)
    assert abs(started - before) < timedelta(seconds=60)


def test_each_request_counts_once() -> None:
    counters = Counters()
    for expected in range(1, 4):
        counters.count()
        assert counters.snapshot()["proxied_requests"] == expected


def test_the_members_are_json_numbers_and_strings() -> None:
    status = Counters().snapshot()
    assert json.loads(json.dumps(status)) == status
    assert type(status["proxied_requests"]) is int
    assert type(status["uptime_seconds"]) is float


def test_uptime_grows_and_the_start_stays() -> None:
    counters = Counters()
    first = counters.snapshot()
    time.sleep(0.02)
    second = counters.snapshot()
    assert second["uptime_seconds"] > first["uptime_seconds"]
    assert second["started_at"] == first["started_at"]


def test_a_clock_that_is_set_does_not_change_the_uptime(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= counters.snapshot()["uptime_seconds"] < 60


def test_processes_count_together() -> None:
    counters = Counters(processes=3)
    for process in (1, 2, 3, 4097):
        counters.use_cell(process)
        counters.count()
    assert counters.snapshot()["proxied_requests"] == 4


def test_what_a_forked_process_counts_outlives_it() -> None:
    code = """if True:
        import os
        from jwtproxy.observe.counters import Counters
        counters = Counters(processes=2)
        for number in (1, 2):
            if not os.fork():
                counters.use_cell(number)
                counters.count()
                os._exit(0)
            os.wait()
        print(counters.snapshot()["proxied_requests"])
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "2\n"


def test_what_the_fast_lane_carries_is_counted_apart() -> None:
    counters = Counters()
    counters.count()
    counters.count_fast()
    counters.count_fast()
    status = counters.snapshot()
    assert (status["proxied_requests"], status["fast_lane_requests"]) == (1, 2)


def test_processes_count_what_the_fast_lane_carries_together() -> None:
    counters = Counters(processes=2)
    for process in (1, 2, 2):
        counters.use_cell(process)
        counters.count_fast()
    status = counters.snapshot()
    assert (status["proxied_requests"], status["fast_lane_requests"]) == (0, 3)


def test_limits_are_counted_by_name_by_all_processes_together() -> None:
    counters = Counters(processes=3, limits=["jwt_a", "jwt_b"])
    for process in (1, 2):
        counters.use_cell(process)
        counters.count_reached("jwt_b")
    counters.count_reached("jwt_unknown")
    assert counters.reached == {"jwt_a": 0, "jwt_b": 2}
    assert counters.snapshot()["proxied_requests"] == 0


def test_requests_that_have_ended_are_told_by_rule_lane_and_outcome() -> None:
    counters = Counters()
    for outcome, rule, fast in (
        (Outcome.SUCCESS, "default", True),
        (Outcome.SUCCESS, "default", True),
        (Outcome.SUCCESS, "default", False),
        (Outcome.REFUSED, "closed", True),
    ):
        counters.count_end(outcome, rule, (0, 0, fast))
    assert set(counters.passed) == {
        Passed("default", True, Outcome.SUCCESS, 2),
        Passed("default", False, Outcome.SUCCESS, 1),
        Passed("closed", True, Outcome.REFUSED, 1),
    }
    assert {outcome.label for outcome in Outcome} == {"2xx", "3xx", "4xx", "5xx", "refused", "failed", "aborted"}


def test_bytes_are_those_of_both_directions() -> None:
    counters = Counters()
    counters.count_end(Outcome.SUCCESS, "default", (5, 70, False))
    counters.count_end(Outcome.SUCCESS, "default", (0, 7, True))
    assert counters.bytes == (5, 77)


def test_times_are_in_buckets_that_hold_those_before_them() -> None:
    counters = Counters()
    for seconds in (0.001, 0.0011, 0.3, 1000.0):
        counters.count_end(Outcome.SUCCESS, "default", (0, 0, True), seconds)
        counters.time_signing(seconds)
    found = counters.upstream
    assert dict(zip(found.bounds, found.counts, strict=False)) | {} == {
        **dict.fromkeys((1e-3,), 1),
        **dict.fromkeys((2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25), 2),
        **dict.fromkeys((0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0), 3),
    }
    assert found.counts[-1] == 4
    assert found.sum == pytest.approx(1000.3021)
    assert (counters.signing.counts[-1], counters.signing.counts[0]) == (4, 0)


def test_a_request_that_never_reached_an_upstream_has_no_time() -> None:
    counters = Counters()
    counters.count_end(Outcome.FAILED, "default", (0, 0, True))
    assert counters.upstream.counts[-1] == 0


def test_failures_and_refusals_have_their_kinds_and_strange_ones_none() -> None:
    counters = Counters()
    counters.count_kind("dns_error", refused=False)
    counters.count_kind("http_request_denied", refused=True)
    counters.count_kind("what a script made up", refused=True)
    assert {kind: count for kind, count in counters.errors.items() if count} == {"dns_error": 1}
    assert {kind: count for kind, count in counters.refusals.items() if count} == {"http_request_denied": 1}


def test_open_connections_are_those_of_processes_that_live() -> None:
    counters = Counters(processes=2)
    for process in (1, 2):
        counters.use_cell(process)
        counters.change_open(3)
    counters.change_open(-1)
    assert counters.open == 5
    counters.forget_open(1)
    assert counters.open == 2
    assert {worker.number: worker.proxied for worker in counters.workers} == {1: 0, 2: 0}


def test_reloads_are_counted() -> None:
    counters = Counters()
    counters.count_reload(True)
    counters.count_reload(False)
    counters.count_reload(False)
    assert counters.reloads == (1, 2)
