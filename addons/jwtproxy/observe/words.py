"""Figures as people read them."""

from itertools import pairwise

NONE = "\N{EN DASH}"
"""Where there is nothing to tell."""

_STEPS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: float) -> str:
    """A number of something."""
    return f"{number:,}"


def rate(number: float) -> str:
    """So many of something in a second, or whatever it may be: three digits are enough."""
    if number >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def uptime(seconds: float) -> str:
    """A time in the two largest units that it has."""
    left = int(seconds)
    for (large, name), (small, other) in pairwise(_STEPS):
        if left >= large:
            rest = left % large // small
            return _of(left // large, name) + (f" {_of(rest, other)}" if rest else "")
    return _of(left, "second")


def duration(seconds: float | None) -> str:
    """A short time."""
    if seconds is None:
        return NONE
    if seconds < 999.5e-6:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{rate(seconds * 1e3)} ms"
    return f"{rate(seconds)} s"


def size(number: int) -> str:
    """Bytes."""
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{rate(value)} {_SIZES[unit]}"


def share(part: float, whole: float) -> str:
    """A part of a whole."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if 99.9 < percent < 100 else f"{percent:.1f} %".replace(".0 %", " %")


def date(rfc3339: str) -> str:
    """A time of day as people write it, to the minute."""
    return f"{rfc3339[:10]} {rfc3339[11:16]} UTC"


def _of(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
