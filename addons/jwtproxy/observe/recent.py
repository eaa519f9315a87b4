"""The last requests, for who looks for what has become of theirs: no token, nothing of a query, no credential.

What is kept of each is what costs little to keep. It is put into words when somebody asks.
"""

import html
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from . import live, pages, words
from .counters import NO_RULE
from .exchanges import Row, claims_of, in_words, lane
from .pages import Page
from .status_page import STYLE

OFF = pages.text(404, "recent requests are not kept here (jwt_recent=0)")

LONGEST = 256
"""Characters that are kept of anything but these."""
LONGEST_PATH = 1024
LONGEST_TOKEN = 4096
"""Bytes of a token, of which all is kept or nothing."""
_USUAL = 512
"""What is no longer, all in all, needs no closer look."""
LARGEST = 2 * LONGEST + 3 * 4 * LONGEST + LONGEST_PATH + LONGEST_TOKEN + 256
"""Bytes that a row takes at most once it is shortened: two parts of bytes, three of characters, and what is short."""


def shortened(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A Row as a plain tuple, cut to what is worth keeping of it."""
    _, _, _, method, scheme, host, _, path, _, _, _, reason, rule, token = row[:14]
    if len(method) + len(scheme) + len(host) + len(path) + len(reason) + len(rule) + len(token) <= _USUAL:
        return row
    return (
        *(*row[:3], method[:LONGEST], scheme[:LONGEST], host[:LONGEST], row[6], path[:LONGEST_PATH], *row[8:11]),
        *(reason[:LONGEST], rule[:LONGEST], token if len(token) <= LONGEST_TOKEN else b"", *row[14:]),
    )


def page(headers: Mapping[str, str], rows: Iterable[tuple[Any, ...]], most: int) -> Page:
    """The last of these as JSON, or as HTML where the client prefers that; the newest first."""
    last = sorted(rows, key=lambda row: float(row[1]), reverse=True)[:most]
    told = [tell(Row._make(row)) for row in last]
    own = {
        "Cache-Control": "no-store",
        "Vary": "Accept, Host",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if pages.prefers_html(headers.get("accept", "")):
        return Page(200, text(told, most), {"Content-Type": pages.HTML, "Content-Security-Policy": _POLICY, **own})
    return Page(200, json.dumps({"most": most, "requests": told}) + "\n", {"Content-Type": pages.JSON, **own})


def tell(row: Row) -> dict[str, Any]:
    """A request in members that can be written as JSON; those that the log has are called as there."""
    told = in_words(row)
    return {
        "time": datetime.fromtimestamp(told.began, UTC).isoformat(timespec="milliseconds"),
        "client": told.client or None,
        "method": _shown(told.method),
        "scheme": _shown(told.scheme) or None,
        "host": _shown(told.authority),
        "path": _shown(told.path) or None,
        "query": told.has_query,
        "status": told.status,
        "outcome": told.outcome.label,
        "reason": _shown(told.reason) or None,
        "duration_ms": round(1000 * told.duration, 3),
        "bytes_received": told.received,
        "bytes_sent": told.sent,
        "rule": told.rule,
        "claims": claims_of(row.token),
        "lane": lane(told.fast),
        "websocket": told.websocket,
    }


def _shown(text: str) -> str:
    """With bytes that are no text written as such."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# --- for a person

_POLICY = pages.policy(STYLE, live.SCRIPT)


def text(told: Iterable[Mapping[str, Any]], most: int) -> str:
    """The page in HTML."""
    entries = "".join(_entry(one) for one in told)
    if not entries:
        entries = f"<p class=note>No request has passed yet. <a href={pages.HOME_PATH}>How to send one</a>\n"
    lead = (
        f"<p class=lead>The last {most} at most, the newest first, at times in UTC; each opens to what its token said."
        f" · <a href={pages.STATUS_PATH}>status</a> · <a href={pages.HOME_PATH}>how to use it</a>\n"
    )
    content = f"<main>\n{lead}<div class=recent>{entries}</div>\n</main>\n{live.END}"
    return pages.document("Recent requests", content, style=STYLE)


def _entry(told: Mapping[str, Any]) -> str:
    url = f"{told['scheme']}://" if told["scheme"] else ""
    url += f"{told['host']}{told['path'] or ''}{'?…' if told['query'] else ''}"
    rule = f" <span class=small>{html.escape(told['rule'])}</span>" if told["rule"] != NO_RULE else ""
    status, outcome = told["status"] or words.NONE, told["outcome"]
    name = f"r{told['time'][11:23]}{told['client'] or ''}{told['duration_ms']}"
    return (
        f'<details id="{html.escape(name)}"><summary><span class=small>{told["time"][11:19]}</span> '
        f"<span class='badge o{outcome}'>{status}</span> "
        f"<span class=url><b>{html.escape(told['method'])}</b> {html.escape(url)}{rule}</span> "
        f"<span class=small>{words.duration(told['duration_ms'] / 1000)}</span></summary>\n"
        f"{_claims(told['claims'])}{pages.table(dict(_facts(told)))}</details>"
    )


def _claims(claims: Any) -> str:
    if claims is None:
        return "<p class=small>No token.\n"
    return f"<pre>{html.escape(json.dumps(claims, indent=2, ensure_ascii=False))}</pre>\n"


def _facts(told: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield "time", told["time"]
    yield "client", told["client"] or "none"
    yield "outcome", told["outcome"] + (f": {told['reason']}" if told["reason"] else "")
    yield "rule", told["rule"]
    yield "bytes", f"{told['bytes_received']:,} received, {told['bytes_sent']:,} sent"
    yield "lane", told["lane"] + (", as a WebSocket" if told["websocket"] else "")
