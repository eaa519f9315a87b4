"""What was measured, as a table, as a chart, and against what was promised."""

from __future__ import annotations

from html import escape
from typing import Any

Results = dict[str, Any]

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
    lines += ["", "idle connections that were used once", *(_idle_line(row) for row in results["idle"].values())]
    token = results["token"]
    lines += [
        "",
        f"token, HS512, µs: {token['sign_us']} to sign, {token['claims_and_sign_us']} with its claims",
        f"PyJWT's encode of the same claims, µs: {token['pyjwt_encode_us']}",
        "µs by algorithm, with claims (PyJWT's encode): "
        + ", ".join(
            f"{name} {times['mint_and_sign_us']} ({times['pyjwt_encode_us']})"
            for name, times in results["algorithms"].items()
        ),
        f"PSS in MiB at rest, by workers: {results['workers']}",
        "",
        "promised",
        *(_promise(promise) for promise in results["acceptance"]),
    ]
    return "\n".join(lines)


def acceptance(results: Results, workers: int) -> list[dict[str, Any]]:
    """Each promise with what was measured; None where that could not be done."""

    def figure(scenario: str, target: str, name: str) -> float | None:
        found = results["scenarios"].get(scenario, {}).get("targets", {}).get(target, {}).get(name)
        return None if found is None else float(found)

    def ratio(scenario: str, ours: str, theirs: str, name: str, factor: int = 1) -> float | None:
        top, bottom = figure(scenario, ours, name), figure(scenario, theirs, name)
        return round(factor * top / bottom, 2) if top and bottom else None

    cpu, rate, many = "cpu_us_per_request", "requests_per_second", f"jwtproxy-{workers}"
    plain = ratio("plain", "jwtproxy-1", "mitmdump", cpu, 100)
    https = ratio("https1", "jwtproxy-1", "mitmdump", cpu, 100)
    scaling = ratio("plain", many, "jwtproxy-1", rate)
    measured = (
        ("CPU per request, % of stock mitmdump's, plain kept alive", plain, "<=", 45),
        ("CPU per request, % of stock mitmdump's, HTTPS/1.1", https, "<=", 60),
        (f"throughput of {workers} workers over one's, plain kept alive", scaling, ">=", 1.5),
        ("µs for a token with its claims", results["token"]["claims_and_sign_us"], "<=", 10),
        ("PSS of each further worker at rest, MiB", results["workers"].get("each_further_mib"), "<=", 35),
    )
    return [
        {"what": what, "measured": value, "sign": sign, "promised": bound, "kept": _kept(value, sign, bound)}
        for what, value, sign, bound in measured
    ]


def chart(results: Results) -> str:
    """Requests per second as bars, an SVG that reads well on light and dark ground."""
    parts: list[str] = []
    height = 50
    for key in ("plain", "https1", "https2", "connect"):
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
    return [
        f"{results['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        f"medians of {settings['rounds']} rounds of {seconds}, {connections}; load and upstream on the same cores",
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


def _promise(promise: Results) -> str:
    value = "not measured" if promise["measured"] is None else f"{promise['measured']:g}"
    verdict = {True: "kept", False: "MISSED", None: "–"}[promise["kept"]]
    return f"  {promise['what']:<60}{value:>13}  ({promise['sign']} {promise['promised']:g})  {verdict}"


def _kept(value: float | None, sign: str, bound: float) -> bool | None:
    if value is None:
        return None
    return value <= bound if sign == "<=" else value >= bound
