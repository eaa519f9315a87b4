"""Figures as pictures."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.observe import chart


def _points(svg: str) -> list[tuple[float, float]]:
    (line,) = re.findall('class=line [^>]*points="([^"]*)"', svg)
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]


def test_the_last_value_is_at_the_right_and_the_largest_near_the_top() -> None:
    points = _points(chart.svg([0, 5, 10], 121))
    assert points == [(590.0, 100.0), (595.0, 50.0), (600.0, 0.0)]


@pytest.mark.parametrize("rates", [[], [1.0]])
def test_where_there_is_no_line_there_is_a_grid(rates: list[float]) -> None:
    assert "points" not in chart.svg(rates, 120)
    assert "class=grid" in chart.svg(rates, 120)


@given(st.lists(st.floats(0, 1e7), min_size=2, max_size=120))
def test_any_rates_stay_within_the_picture(rates: list[float]) -> None:
    assert all(0 <= x <= 600 and 0 <= y <= 100 for x, y in _points(chart.svg(rates, 120)))


@pytest.mark.parametrize(("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.1, 2), (430, 500), (990, 1000)])
def test_the_scale_ends_at_a_round_number(value: float, top: float) -> None:
    assert chart.ceiling(value) == pytest.approx(top)


@given(st.floats(0, 1e12))
def test_any_value_is_below_the_end_of_the_scale(value: float) -> None:
    assert chart.ceiling(value) >= value * (1 - 1e-12)


def test_a_bar_is_as_wide_as_its_parts_and_leaves_out_what_is_not_there() -> None:
    bar = chart.bar([("a", 1), ("b", 0), ("c", 3)])
    assert re.findall('class=(\\w+) x="([^"]*)" y=0 width="([^"]*)"', bar) == [
        ("oa", "0.00", "150.00"),
        ("oc", "150.00", "450.00"),
    ]
    assert "rect" not in chart.bar([("a", 0)])
