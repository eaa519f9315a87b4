"""Figures as pictures: SVG whose colours are in the page's style, as its policy wants it."""

import math
from collections.abc import Iterable, Sequence

_WIDTH, _HEIGHT = 600, 100


def svg(rates: Sequence[float], length: int) -> str:
    """So many values as a line, the last at the right; fewer begin further to the right. `rates`: not negative."""
    top = ceiling(max(rates, default=0))
    step = _WIDTH / max(1, length - 1)
    first = _WIDTH - step * (len(rates) - 1)
    points = [f"{first + step * at:.1f},{_HEIGHT - _HEIGHT * rate / top:.1f}" for at, rate in enumerate(rates)]
    drawn = ""
    if len(points) > 1:
        area = f"{first:.1f},{_HEIGHT} {' '.join(points)} {_WIDTH},{_HEIGHT}"
        drawn = (
            f'<polygon class=area points="{area}"/>'
            f'<polyline class=line vector-effect=non-scaling-stroke points="{" ".join(points)}"/>'
        )
    grid = "".join(
        f'<line class=grid vector-effect=non-scaling-stroke x1=0 x2={_WIDTH} y1="{y}" y2="{y}"/>'
        for y in (0, _HEIGHT // 2, _HEIGHT)
    )
    return (
        f"<div class=scale><span>{top:,g}</span></div>\n"
        f'<svg class=chart viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio=none role=img '
        f"aria-labelledby='rates rates-words'>{grid}{drawn}</svg>\n"
    )


def bar(parts: Iterable[tuple[str, int]]) -> str:
    """The shares of a whole, one after another. The names of their classes are those of the parts, after an `o`."""
    parts = list(parts)
    whole = sum(size for _, size in parts)
    drawn, at = [], 0.0
    for name, size in parts:
        width = _WIDTH * size / whole if whole else 0
        if size:
            drawn.append(f'<rect class=o{name} x="{at:.2f}" y=0 width="{width:.2f}" height=10 />')
        at += width
    return (
        f'<svg class=bar viewBox="0 0 {_WIDTH} 10" preserveAspectRatio=none aria-hidden=true>{"".join(drawn)}</svg>\n'
    )


def ceiling(value: float) -> float:
    """A round number that is not smaller; 1 for nothing, or next to that."""
    if value < 1e-6:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 5) if step * power >= value), 10 * power)
