"""Figures as people read them."""

from __future__ import annotations

import pytest

from jwtproxy.observe import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (61, "1 minute 1 second"),
        (3_600, "1 hour"),
        (7_325, "2 hours 2 minutes"),
        (86_400, "1 day"),
        (100 * 86_400 + 7_200, "100 days 2 hours"),
    ],
)
def test_uptime(seconds: float, said: str) -> None:
    assert words.uptime(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, words.NONE),
        (0.0, "0 µs"),
        (85.4e-6, "85 µs"),
        (999.6e-6, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (0.5, "500 ms"),
        (0.9996, "1.00 s"),
        (300.0, "300 s"),
    ],
)
def test_duration(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (31_540, "31.5 kB"), (999_600, "1.00 MB")]
)
def test_size(number: int, said: str) -> None:
    assert words.size(number) == said
    assert words.size(10**20) == "100,000 PB"


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 0, "0 %"),
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 3, "33.3 %"),
        (1, 50, "2 %"),
        (1, 10_000, "< 0.1 %"),
        (9_999, 10_000, "> 99.9 %"),
    ],
)
def test_share(part: int, whole: int, said: str) -> None:
    assert words.share(part, whole) == said


def test_rates_counts_and_dates() -> None:
    assert [words.rate(one) for one in (0, 0.123, 12.34, 7.0, 1234.5)] == ["0", "0.12", "12.3", "7", "1,234"]
    assert words.count(1234567) == "1,234,567"
    assert words.date("2026-11-27T13:30:42.219+00:00") == "2026-11-27 13:30 UTC"
