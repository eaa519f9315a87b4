"""What `/status` counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

import jwtproxy
from jwtproxy.observe.counters import Counters


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
