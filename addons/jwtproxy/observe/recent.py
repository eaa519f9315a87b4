"""The last requests, for who looks for what has become of theirs: no token, nothing of a query, no credential.

What is kept of each is what costs little to keep. It is put into words when somebody asks.
"""

import html
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..conduct.destination import Destination
from . import live, pages, words
from .counters import NO_RULE, Outcome
from .exchanges import claims_of, public_path
from .pages import Page
from .status_page import STYLE

OFF = pages.text(404, "recent requests are not kept here (jwt_recent=0)")

LONGEST_PATH = 1024
LONGEST_PAYLOAD = 4096
"""Bytes that are kept of a path, and of the part of a token that has its claims: all of it or nothing."""


class Row(NamedTuple):
    """What is kept of a request; where many are, as a plain tuple of what is in it."""

    began: float
    """Seconds since the epoch."""
    ended: float
    client: str
    method: bytes
    scheme: bytes
    """Empty of a CONNECT."""
    host: str
    port: int
    path: bytes
    """Without its query."""
    has_query: bool
    status: int
    """0: there was no answer."""
    outcome: int
    reason: str
    rule: str
    payload: bytes
    """The part of its token that has the claims, without the signature; empty if it has none."""
    received: int
    sent: int
    fast: bool
    websocket: bool


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
    path, hidden = public_path(row.path.decode("utf-8", "backslashreplace"))
    scheme = row.scheme.decode("utf-8", "backslashreplace")
    return {
        "time": datetime.fromtimestamp(row.began, UTC).isoformat(timespec="milliseconds"),
        "client": row.client or None,
        "method": row.method.decode("utf-8", "backslashreplace"),
        "scheme": scheme or None,
        "host": Destination(scheme, row.host, row.port).authority,
        "path": path or None,
        "query": row.has_query or hidden,
        "status": row.status or None,
        "outcome": Outcome(row.outcome).label,
        "reason": row.reason or None,
        "duration_ms": round(1000 * max(0.0, row.ended - row.began), 3),
        "bytes_received": row.received,
        "bytes_sent": row.sent,
        "rule": row.rule,
        "claims": claims_of(row.payload),
        "lane": "fast" if row.fast else "mitmproxy",
        "websocket": row.websocket,
    }


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
