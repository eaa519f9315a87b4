"""How the proxy does, for programs as JSON, and for people as a page.

Both are made of the same value. Each figure of the page says in `data-member` which member it shows, and in `value`
what that is, so that nothing can be shown that is not told, or otherwise than it is told.
"""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import chart, history, live, pages, words
from .pages import Page

Members = Mapping[str, Any]

OUTCOMES = {
    "2xx": "Success",
    "3xx": "Redirect",
    "4xx": "Client error",
    "5xx": "Server error",
    "refused": "Refused by the proxy",
    "failed": "Failed",
    "aborted": "Aborted by the client",
}
_BAD = ("5xx", "failed")
_TIMES = {"signing_seconds": "Signing", "upstream_seconds": "Upstream"}

STYLE = pages.asset("pages.css")
_POLICY = pages.policy(STYLE, live.SCRIPT)


def page(headers: Mapping[str, str], members: Members, *, kept: bool = True) -> Page:
    """These members as JSON, or as HTML where the client prefers that. `kept`: whether recent requests have a page."""
    own = {"Cache-Control": "no-store", "Vary": "Accept", "X-Content-Type-Options": "nosniff"}
    if pages.prefers_html(headers.get("accept", "")):
        return Page(
            200, text(members, kept=kept), {"Content-Type": pages.HTML, "Content-Security-Policy": _POLICY, **own}
        )
    return Page(200, json.dumps(members) + "\n", {"Content-Type": pages.JSON, **own})


def text(members: Members, *, kept: bool = True) -> str:
    """The page in HTML."""
    panels = "".join(_panels(members))
    content = (
        f"<main>\n{_lead(members, kept=kept)}{_tiles(members)}{_rates(members)}"
        f"{_instances(members)}<div class=panels>\n{panels}</div>\n{_limits(members.get('limits', {}))}</main>\n"
        f"{live.END}"
    )
    return pages.document("jwtproxy", content, style=STYLE)


def figure(member: str, value: Any, shown: str | None = None) -> str:
    """A member of the value, as people read it."""
    exact = "" if value is None else json.dumps(value) if isinstance(value, bool | float | int) else str(value)
    shown = exact if shown is None else shown
    return f'<data data-member="{html.escape(member)}" value="{html.escape(exact)}">{html.escape(shown)}</data>'


def _lead(members: Members, *, kept: bool) -> str:
    recent = f"<a href={pages.RECENT_PATH}>recent requests</a> · " if kept else ""
    since, uptime = members["started_at"], members["uptime_seconds"]
    return (
        f"<p class=lead>Up {figure('uptime_seconds', uptime, words.uptime(uptime))}"
        f", since {figure('started_at', since, words.date(since))} · "
        f"version {figure('version', members['version'])} · "
        f"{recent}<a href={pages.HOME_PATH}>how to use it</a>\n"
    )


# --- what is seen first


def _tiles(members: Members) -> str:
    return f"<dl class=tiles>\n{''.join(_tile(*tile) for tile in _all_tiles(members))}</dl>\n"


def _tile(name: str, big: str, small: str, kind: str = "") -> str:
    return f'<div><dt>{name}<dd class="big{kind}">{big}<dd class=small>{small}</div>\n'


def _all_tiles(members: Members) -> Iterator[tuple[str, ...]]:
    proxied, fast = members["proxied_requests"], members["fast_lane_requests"]
    lane = figure("fast_lane_requests", fast, words.share(fast, proxied))
    yield "Requests", figure("proxied_requests", proxied, words.count(proxied)), f"{lane} fast lane"
    now = members["requests_per_second"]
    yield "Now", f"{figure('requests_per_second', now, words.rate(now))}/s", _in_words(members["history"])
    outcomes = members["outcomes"]
    bad, all_ = sum(outcomes[name] for name in _BAD), sum(outcomes.values())
    yield "Errors", words.share(bad, all_), f"{words.count(bad)} of {words.count(all_)}", " bad" if bad else ""
    times = members["latency"]["upstream_seconds"]
    p50, p99 = (words.duration(times[name]) for name in ("p50", "p99"))
    yield "Upstream, median", p50, f"99 %: {p99}" if times["count"] else "no answer yet"
    opened = members["open_connections"]
    yield "Connections", figure("open_connections", opened, words.count(opened)), "of clients, now"
    sent, received = members["bytes_sent"], members["bytes_received"]
    took = figure("bytes_received", received, words.size(received))
    yield "Sent to clients", figure("bytes_sent", sent, words.size(sent)), f"{took} received"


def _in_words(told: Members) -> str:
    rates = told["requests_per_second"]
    return f"{words.rate(max(rates))}/s at most" if rates else "since the start"


def _rates(members: Members) -> str:
    rates = members["history"]["requests_per_second"]
    minutes = int(history.LENGTH * history.INTERVAL / 60)
    if any(rates):
        mean = sum(rates) / len(rates)
        said = f"At most {words.rate(max(rates))} a second, {words.rate(mean)} on average."
    else:
        said = "There were none." if rates else f"The first are told after {history.INTERVAL:g} seconds."
    return (
        f"<figure class=panel><h2 id=rates>Requests per second, last {minutes} minutes</h2>\n"
        f"{chart.svg(rates, history.LENGTH)}"
        f"<div class=scale><span>{minutes} minutes ago</span><span>{minutes // 2}</span><span>now</span></div>\n"
        f"<figcaption id=rates-words>{said}</figcaption></figure>\n"
    )


# --- tables


def _panels(members: Members) -> Iterator[str]:
    yield _outcomes(members["outcomes"])
    yield _latency(members["latency"])
    yield _keys(members["keys"], members["reloads"])
    yield _counts("Rules", "rules", "Rule", members["rules"])
    yield _workers(members["workers"], members["ended_workers"])
    yield from (
        _counts(title, name, "Reason", members[name])
        for title, name in (("Why requests failed", "failures"), ("Why requests were refused", "refusals"))
        if members[name]
    )


def _outcomes(outcomes: Members) -> str:
    all_ = sum(outcomes.values())
    rows = "".join(_outcome(name, title, outcomes[name], all_) for name, title in OUTCOMES.items())
    bar = chart.bar([(name, outcomes[name]) for name in OUTCOMES])
    return _panel("Outcomes", f"{bar}{_table(('Outcome', 'Requests', 'Share'), rows)}")


def _outcome(name: str, title: str, count: int, all_: int) -> str:
    code = f" <span class=small>{name}</span>" if name[0].isdigit() else ""
    cells = [figure(f"outcomes.{name}", count, words.count(count)), words.share(count, all_)]
    return _row(f"<span class='dot o{name}'></span>{title}{code}", cells, quiet=not count)


def _latency(latency: Members) -> str:
    rows = "".join(
        _row(title, [_time(f"latency.{name}.{column}", value) for column, value in latency[name].items()])
        for name, title in _TIMES.items()
    )
    note = "<p class=small>Percentiles are estimates. Upstream: until its answer begins.\n"
    return _panel("Latency", _table(("", "Requests", "Mean", "Median", "90 %", "99 %"), rows, "latency") + note)


def _time(member: str, value: Any) -> str:
    return figure(member, value, words.count(value) if member.endswith(".count") else words.duration(value))


def _keys(keys: Sequence[Members], reloads: Members) -> str:
    rows = "".join(
        _row(
            figure(f"keys.{at}.kid", key["kid"], key["kid"] or "without a kid"),
            [
                figure(f"keys.{at}.algorithm", key["algorithm"]),
                figure(f"keys.{at}.not_before", key["not_before"], _date(key["not_before"])),
                figure(f"keys.{at}.not_after", key["not_after"], _date(key["not_after"])),
                figure(f"keys.{at}.signs", key["signs"], "yes" if key["signs"] else "no"),
            ],
            quiet=not key["signs"],
        )
        for at, key in enumerate(keys)
    )
    table = _table(("Key", "Algorithm", "From", "Until", "Signs"), rows, "keys") if keys else "<p>There is no key.\n"
    taken, failed = (figure(f"reloads.{name}", reloads[name]) for name in ("taken", "failed"))
    note = f"<p class=small>Changes of keys and rules: {taken} taken over, {failed} failed.\n"
    return _panel("Keys", table + note)


def _counts(title: str, member: str, what: str, counts: Members) -> str:
    all_ = sum(counts.values())
    rows = "".join(
        _row(
            html.escape(name),
            [figure(f"{member}.{name}", count, words.count(count)), words.share(count, all_)],
            quiet=not count,
        )
        for name, count in counts.items()
    )
    return _panel(title, _table((what, "Requests", "Share"), rows))


_COLUMNS = ("proxied_requests", "fast_lane_requests", "open_connections")


def _workers(workers: Sequence[Members], ended: Members) -> str:
    rows = "".join(
        _row(
            figure(f"workers.{at}.number", worker["number"]),
            [
                figure(f"workers.{at}.pid", worker["pid"]),
                *(figure(f"workers.{at}.{name}", worker[name], words.count(worker[name])) for name in _COLUMNS),
            ],
        )
        for at, worker in enumerate(workers)
    )
    before = [figure(f"ended_workers.{name}", ended[name], words.count(ended[name])) for name in _COLUMNS[:2]]
    if any(ended.values()):
        rows += _row("ended", ["", *before, ""], quiet=True)
    return _panel("Workers", _table(("Worker", "Process", "Requests", "Fast lane", "Open"), rows))


def _limits(limits: Members) -> str:
    reached = {name: limit for name, limit in limits.items() if limit["reached"]}
    rows = "".join(
        _row(
            name,
            [
                figure(f"limits.{name}.value", limit["value"]),
                figure(f"limits.{name}.reached", limit["reached"], words.count(limit["reached"])),
            ],
            quiet=not limit["reached"],
        )
        for name, limit in sorted(limits.items(), key=lambda item: -item[1]["reached"])
    )
    said = f"Limits: {len(reached)} reached" if reached else "Limits: none reached"
    opened = " open" if reached else ""
    table = _table(("Limit", "Value", "Reached"), rows, "limits")
    return f"<section class=panel><details{opened}><summary>{said}</summary>\n{table}</details></section>\n"


# --- several machines


def _instances(members: Members) -> str:
    if "instances" not in members:
        return ""
    rows = "".join(_instance(at, instance) for at, instance in enumerate(members["instances"]))
    total = members.get("total", {})
    cells = [figure(f"total.{name}", total[name], shown(total[name])) for name, shown in _SUMS.items() if name in total]
    live_ = figure("total.instances", total["instances"]) if "instances" in total else ""
    if cells:
        rows += _row(f"all {live_} live", ["", *cells, "", ""])
    redis = members.get("redis")
    note = f"<p class=small>Redis: {figure('redis', redis)}.\n" if redis else ""
    heads = ("Instance", "State", "Requests", "Fast lane", "Received", "Sent", "Seen", "Version")
    return _panel("Instances", _table(heads, rows, "instances") + note)


_SUMS = {
    "proxied_requests": words.count,
    "fast_lane_requests": words.count,
    "bytes_received": words.size,
    "bytes_sent": words.size,
}


def _instance(at: int, instance: Members) -> str:
    member = f"instances.{at}"
    return _row(
        figure(f"{member}.id", instance["id"]),
        [
            figure(f"{member}.state", instance["state"]),
            *(figure(f"{member}.{name}", instance[name], shown(instance[name])) for name, shown in _SUMS.items()),
            figure(f"{member}.seen_at", instance["seen_at"], _date(instance["seen_at"])),
            figure(f"{member}.version", instance["version"]),
        ],
        quiet=instance["state"] != "live",
    )


# --- HTML


def _panel(title: str, content: str) -> str:
    return f"<section class=panel><h2>{title}</h2>\n{content}</section>\n"


def _table(heads: Iterable[str], rows: str, kind: str = "plain") -> str:
    head = "".join(f"<th scope=col>{name}" for name in heads)
    return f"<table class={kind}><thead><tr>{head}<tbody>\n{rows}</table>\n"


def _row(name: str, cells: Iterable[str], *, quiet: bool = False) -> str:
    return f"<tr{' class=none' if quiet else ''}><th scope=row>{name}{''.join(f'<td>{cell}' for cell in cells)}\n"


def _date(rfc3339: str | None) -> str:
    return words.date(rfc3339) if rfc3339 else words.NONE
