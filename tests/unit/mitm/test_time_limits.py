"""How long things may take: which values are in force, and what is said of those that take too long."""

from __future__ import annotations

import pytest
from mitmproxy.options import Options

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import time_limits
from jwtproxy.mitm.time_limits import TimeLimits


def _options(tcp_timeout: int = 600, **values: float) -> Options:
    options = Options()
    options.update(tcp_timeout=tcp_timeout)
    if values:
        defaults = {row.member: row.check("") for row in time_limits.OPTIONS}
        time_limits.hang(options, defaults | {f"{name}_timeout": value for name, value in values.items()})
    return options


def test_the_defaults_are_those_of_a_careful_operator() -> None:
    values = {row.member: row.check("") for row in time_limits.OPTIONS}
    options = Options()
    time_limits.hang(options, values)
    assert time_limits.of(options) == TimeLimits(head=30, keepalive=120, body=60, idle=600, tls=15)
    assert all(row.limit and row.topic == "guards" for row in time_limits.OPTIONS)


def test_without_an_addon_of_ours_there_are_none() -> None:
    assert time_limits.of(Options()) is time_limits.NONE
    assert not any(time_limits.NONE)


@pytest.mark.parametrize("name", [row.name for row in time_limits.OPTIONS])
@pytest.mark.parametrize("value", ["soon", "-1", "inf"])
def test_what_is_no_time_is_refused(name: str, value: str) -> None:
    (row,) = (row for row in time_limits.OPTIONS if row.name == name)
    with pytest.raises(SettingsError, match=f"bad value '{value}' for {name}"):
        row.check(value)


@pytest.mark.parametrize(
    ("tcp_timeout", "ours", "keepalive", "idle"),
    [
        (600, {}, 600, 600),
        (5, {}, 5, 5),
        (600, {"idle": 1000}, 120, 1000),
        (600, {"idle": 0, "keepalive": 0}, 0, 0),
        (5, {"idle": 0}, 5, 5),
        (700, {"idle": 60, "keepalive": 0}, 700, 60),
    ],
)
def test_of_two_limits_of_silence_the_shorter_counts(
    tcp_timeout: int, ours: dict[str, float], keepalive: float, idle: float
) -> None:
    """Mitmproxy's own default says nothing, but where none of ours is."""
    found = time_limits.in_force(_options(tcp_timeout, **ours))
    assert (found.keepalive, found.idle) == (keepalive, idle)
    assert found.head == (30 if ours else 0)


@pytest.mark.parametrize(("found", "shortest"), [((), 0), ((0.0, 0.0), 0), ((0.0, 3.0, 2.0), 2)])
def test_no_limit_is_never_the_shortest(found: tuple[float, ...], shortest: float) -> None:
    assert time_limits.shortest(*found) == shortest


def test_clients_are_told_what_was_too_slow() -> None:
    assert time_limits.late_head(30) == "the request's head was not complete within 30 s"
    assert time_limits.late_body(0.5) == "nothing more of the request's body came within 0.5 s"
