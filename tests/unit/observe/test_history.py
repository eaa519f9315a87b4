"""How many requests there were, every few seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jwtproxy.observe.history import INTERVAL, LENGTH, History


def test_rates_are_those_of_intervals_that_are_over() -> None:
    history = History()
    for tick, total in enumerate((0, 10, 10, 60)):
        history.note(tick * INTERVAL + 0.01, total)
    assert history.rates(3 * INTERVAL + 1) == [2.0, 0.0, 10.0]


def test_who_is_first_has_noted_it_for_all() -> None:
    history = History()
    for uptime, total in ((0, 0), (5.01, 10), (5.02, 11), (9, 99), (10, 20)):
        history.note(uptime, total)
    assert history.rates(10.5) == [2.0, 2.0]


def test_where_nobody_has_noted_anything_it_was_as_much_in_each() -> None:
    history = History()
    history.note(0, 0)
    history.note(4 * INTERVAL, 80)
    assert history.rates(4 * INTERVAL) == [4.0] * 4


def test_only_the_last_minutes_are_told() -> None:
    history = History()
    for tick in range(1000):
        history.note(tick * INTERVAL, tick * tick)
    rates = history.rates(999 * INTERVAL)
    assert len(rates) == LENGTH
    assert rates[-1] == (999**2 - 998**2) / INTERVAL
    assert rates[0] == ((999 - LENGTH + 1) ** 2 - (999 - LENGTH) ** 2) / INTERVAL


def test_after_a_long_silence_nothing_old_is_taken_for_new() -> None:
    history = History()
    history.note(0, 7)
    assert history.rates(5000 * INTERVAL) == []
    history.note(5000 * INTERVAL, 9)
    assert history.rates(5000 * INTERVAL) == []
    assert history.rate(5000 * INTERVAL, 9) == pytest.approx(9 / (5000 * INTERVAL))


@pytest.mark.parametrize(
    ("uptime", "total", "rate"), [(0.0, 0, 0.0), (2.0, 8, 4.0), (7.0, 14, 2.0), (12.0, 24, 2.0), (14.0, 28, 2.0)]
)
def test_the_rate_of_now_is_that_of_the_last_seconds(uptime: float, total: int, rate: float) -> None:
    history = History()
    for tick in range(int(uptime / INTERVAL) + 1):
        history.note(tick * INTERVAL, int(tick * INTERVAL * 2))
    assert history.rate(uptime, total) == pytest.approx(rate)


def test_processes_share_it() -> None:
    code = """if True:
        import json, os
        from jwtproxy.observe.history import History
        history = History(processes=2)
        for tick in range(3):
            if not os.fork():
                history.note(tick * 5, tick * 10)
                os._exit(0)
            os.wait()
        print(json.dumps(history.rates(10)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [2.0, 2.0]
