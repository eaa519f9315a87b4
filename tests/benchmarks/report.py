"""What was measured, as a table, as a chart, and against what was promised."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from html import escape
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True)
class Promise:
    """Our processor time for a request is at most so many percent of another's."""

    scenario: str
    theirs: str
    percent: float
    ours: str = "jwtproxy-1"


OURS = "jwtproxy-1"
PROMISES = (
    Promise("plain", "mitmdump", 8.5),
    Promise("plain", "proxy.py", 100),
    Promise("https1", "mitmdump", 10),
    Promise("https1", "proxy.py", 100),
    Promise("close", "mitmdump", 17),
    Promise("download", "mitmdump", 25),
    Promise("upload", "mitmdump", 35),
    Promise("https2", "mitmdump", 40),
    Promise("watched", "uncounted", 105, "jwtproxy-counted"),
    Promise("watched", "uncounted", 120, "jwtproxy-json"),
    Promise("watched", "jwtproxy-1", 105, "jwtproxy-redis"),
)

_COLUMNS = (
    ("requests/s", "requests_per_second", 11),
    ("CPU µs/request", "cpu_us_per_request", 15),
    ("p50 ms", "p50_ms", 9),
    ("p99 ms", "p99_ms", 9),
    ("PSS MiB", "pss_mib", 9),
    ("errors", "errors", 7),
)
_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>Requests per second, by proxy</title>
<style>
text {{ font: 12px system-ui, sans-serif; fill: #1f2328 }}
.h {{ font-weight: 600; font-size: 13px }}
.s {{ fill: #59636e; font-size: 10px }}
.o {{ fill: #0969da }}
.t {{ fill: #9aa4af }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .s {{ fill: #9198a1 }}
  .o {{ fill: #4493f8 }}
  .t {{ fill: #6e7681 }}
}}
</style>
<text class="h" x="10" y="24">Requests per second, each one signed (longer is better)</text>
{content}
</svg>
"""
_BAR, _ROW, _LEFT, _WIDTH = 380, 22, 170, 660


def table(results: Results) -> str:
    """For the terminal."""
    lines = _origin(results)
    for scenario in results["scenarios"].values():
        lines += ["", f"{scenario['title']:<46}" + "".join(f"{head:>{width}}" for head, _, width in _COLUMNS)]
        lines += [_line(row) for row in scenario["targets"].values()]
    lines += ["", "tokens of every request in runs beside, checked where they arrived", *_arrived(results)]
    lines += _apart(results) if "token" in results else []
    lines += ["", "promised", *(_promise(promise) for promise in results["acceptance"])]
    return "\n".join(lines)


def _apart(results: Results) -> list[str]:
    """What is not measured by rounds of load."""
    token = results["token"]
    return [
        "",
        "idle connections that were used once",
        *(_idle_line(row) for row in results["idle"].values()),
        "",
        f"token, HS512, µs: {token['sign_us']} to sign, {token['claims_and_sign_us']} with its claims",
        f"PyJWT's encode of the same claims, µs: {token['pyjwt_encode_us']}",
        "µs by algorithm, with claims (PyJWT's encode): "
        + ", ".join(
            f"{name} {times['mint_and_sign_us']} ({times['pyjwt_encode_us']})"
            for name, times in results["algorithms"].items()
        ),
        f"PSS in MiB at rest, by workers: {results['workers']}",
    ]


def figure(results: Results, scenario: str, target: str, name: str) -> float | None:
    """The median of one target in one scenario, if there is one."""
    found = results["scenarios"].get(scenario, {}).get("targets", {}).get(target, {}).get(name)
    return None if found is None else float(found)


def share(results: Results, scenario: str, ours: str, theirs: str) -> float | None:
    """Ours of their processor time for a request, if both were measured: the median over rounds of the round's ratio.

    Not the ratio of medians: a machine that is slow for a while is slow to both in the same round.
    """
    targets = results["scenarios"].get(scenario, {}).get("targets", {})
    costs = [
        [one["cpu_us_per_request"] for one in targets.get(target, {}).get("rounds", []) if "cpu_us_per_request" in one]
        for target in (ours, theirs)
    ]
    return statistics.median(our / their for our, their in zip(*costs, strict=False)) if all(costs) else None


def times_cheaper(results: Results, promise: Promise) -> float | None:
    """Their processor time for a request over ours, if both were measured."""
    found = share(results, promise.scenario, promise.ours, promise.theirs)
    return 1 / found if found else None


def faults(results: Results) -> list[str]:
    """Each run of ours in which a token was wrong, or which failed."""
    found = []
    for scenario in results["scenarios"].values():
        for target, told in scenario["arrived"].items():
            if "fault" in told:
                counts = f"{told['bad']} bad, {told['repeated']} repeated"
                found.append(f"{scenario['title']}, {target}: {counts}: {told['fault']}")
            if (reason := scenario["targets"][target].get("reason", "")).startswith("failed"):
                found.append(f"{scenario['title']}, {target}: {reason}")
    return found


def acceptance(results: Results) -> list[dict[str, Any]]:
    """Each promise with what was measured; None where that could not be done."""
    shares = [_row(_what(one), _percent(results, one), "<=", one.percent) for one in PROMISES]
    token, workers = results.get("token", {}), results.get("workers", {})
    return [
        *shares,
        *_scaling(results),
        _row("µs for a token with its claims", token.get("claims_and_sign_us"), "<=", 10),
        _row("PSS of each further worker at rest, MiB", workers.get("each_further_mib"), "<=", 35),
    ]


def _what(promise: Promise) -> str:
    told = f"CPU per request, % of {promise.theirs}'s: {promise.scenario}"
    return told if promise.ours == OURS else f"{told}, {promise.ours}"


def _percent(results: Results, promise: Promise) -> float | None:
    times = times_cheaper(results, promise)
    return round(100 / times, 2) if times else None


def _scaling(results: Results) -> list[dict[str, Any]]:
    """N workers beside one. Where the load takes its time from them, only what a request costs tells if they scale."""
    count, shared = results["settings"]["workers"], results["settings"]["shared_cores"]
    ratios = []
    for name in ("requests_per_second", "cpu_us_per_request"):
        one, many = (figure(results, "plain", target, name) for target in (OURS, f"jwtproxy-{count}"))
        ratios.append(many / one if one and many else None)
    rate, cost = ratios
    what = f"throughput of {count} workers over one's, plain"
    measured = _row(what, rate and round(rate, 2), ">=", 0.8 * count)
    if shared:
        measured |= {"what": f"{what}, load on the same cores", "kept": None}
    return [measured, _row(f"{what}, by CPU per request", cost and round(count / cost, 2), ">=", 0.8 * count)]


def _row(what: str, value: float | None, sign: str, bound: float) -> dict[str, Any]:
    return {"what": what, "measured": value, "sign": sign, "promised": bound, "kept": _kept(value, sign, bound)}


def chart(results: Results) -> str:
    """Requests per second as bars, an SVG that reads well on light and dark ground."""
    parts: list[str] = []
    height = 50
    for key in ("plain", "https1", "https2", "close"):
        if scenario := results["scenarios"].get(key):
            panel, height = _panel(scenario, height)
            parts += panel
    for words in _origin(results):
        parts.append(f'<text class="s" x="10" y="{height + 4}">{escape(words)}</text>')
        height += 14
    return _FRAME.format(width=_WIDTH, height=height + 10, content="\n".join(parts))


def _panel(scenario: Results, top: int) -> tuple[list[str], int]:
    rows = [row for key, row in scenario["targets"].items() if key != "upstream"]
    most = max([row["requests_per_second"] for row in rows if "reason" not in row], default=1.0)
    parts = [f'<text class="h" x="10" y="{top + 8}">{escape(scenario["title"])}</text>']
    top += 16
    for row in rows:
        parts.append(f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(row["label"])}</text>')
        if "reason" in row:
            parts.append(f'<text class="s" x="{_LEFT}" y="{top + 14}">– {escape(row["reason"])}</text>')
        else:
            width = max(1.0, _BAR * row["requests_per_second"] / most)
            kind = "o" if row["label"].startswith("jwtproxy") else "t"
            box = f'x="{_LEFT}" y="{top + 3}" width="{width:.0f}" height="{_ROW - 7}"'
            parts.append(f'<rect class="{kind}" {box} rx="2"/>')
            parts.append(f'<text x="{_LEFT + width + 6:.0f}" y="{top + 14}">{row["requests_per_second"]:,.0f}</text>')
        top += _ROW
    return parts, top + 18


def _origin(results: Results) -> list[str]:
    """When, where, with what."""
    machine, settings = results["machine"], results["settings"]
    versions = [f"{name} {version}" for name, version in results["versions"].items()]
    seconds, connections = f"{settings['seconds']:g} s", f"{settings['connections']} connections"
    where = "the same cores" if settings["shared_cores"] else "cores of their own"
    return [
        f"{results['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        f"medians of {settings['rounds']} rounds of {seconds}, {connections}; load and upstream on {where}",
        ", ".join(versions),
    ]


def _line(row: Results) -> str:
    if "reason" in row:
        return f"  {row['label']:<46}{'–':>11}  {row['reason']}"
    return f"  {row['label']:<46}" + "".join(f"{_cell(row[name]):>{width}}" for _, name, width in _COLUMNS)


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _idle_line(row: Results) -> str:
    if "reason" in row:
        return f"  {row['label']:<46}{'–':>11}  {row['reason']}"
    return f"  {row['label']:<46}{row['connections']:>11,} held: {row['kib_each']} KiB each, {row['mib']} MiB"


def _arrived(results: Results) -> list[str]:
    """By target, over all scenarios."""
    totals: dict[str, dict[str, int]] = {}
    for scenario in results["scenarios"].values():
        for target, told in scenario["arrived"].items():
            total = totals.setdefault(scenario["targets"][target]["label"], {"checked": 0, "bad": 0, "repeated": 0})
            for name in total:
                total[name] += told[name]
    return [
        f"  {label:<46}" + ", ".join(f"{count:,} {name}" for name, count in total.items())
        for label, total in totals.items()
    ]


def _promise(promise: Results) -> str:
    value = "not measured" if promise["measured"] is None else f"{promise['measured']:g}"
    verdict = {True: "kept", False: "MISSED", None: "–"}[promise["kept"]]
    return f"  {promise['what']:<68}{value:>13}  ({promise['sign']} {promise['promised']:g})  {verdict}"


def _kept(value: float | None, sign: str, bound: float) -> bool | None:
    if value is None:
        return None
    return value <= bound if sign == "<=" else value >= bound
