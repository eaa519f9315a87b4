"""How the proxy does: as JSON and as a page, which agree."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from jwtproxy.observe import pages, report, status_page
from jwtproxy.observe.counters import Counters, Outcome
from jwtproxy.observe.metrics import Facts, Key

EVIL = '<b onclick="x">&amp;'


@pytest.fixture
def members() -> dict[str, Any]:
    """Those of a proxy with two workers, one of which has ended, keys, rules with odd names, and two instances."""
    counters = Counters(processes=2, limits=["jwt_a", "jwt_b"])
    for process in (1, 2):
        counters.use_cell(process)
        counters.serve(100 + process)
        for outcome in Outcome:
            counters.count()
            counters.count_end(outcome, EVIL, (3, 4000, process == 1), 0.01)
        counters.time_signing(80e-6)
    counters.count_kind("dns_error", refused=False)
    counters.count_reached("jwt_b")
    counters.forget_open(1)
    facts = Facts([Key(f"k{EVIL}", 1e9, 2e9, "ES256", signs=True), Key("", None, None, "HS512")], "", ["unused"])
    limits = {name: {"value": "1k", "reached": count} for name, count in counters.reached.items()}
    return report.members(counters, facts) | {"limits": limits}


SUMS = {"proxied_requests": 1, "fast_lane_requests": 2, "bytes_received": 3, "bytes_sent": 4}
INSTANCES = {
    "redis": "connected",
    "total": {"instances": 1, **SUMS, "outcomes": {"2xx": 1}},
    "instances": [
        {"id": "one", "state": "live", "seen_at": "2026-11-27T13:30:42Z", "version": "0.1.0", **SUMS},
        {"id": "two", "state": "gone", "seen_at": "2026-11-26T13:30:42Z", "version": "0.0.9", **SUMS},
    ],
}


class Figures(HTMLParser):
    """What a page shows of members: what it says that each is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.attributes |= told.keys()
        if tag == "data":
            self.found[str(told["data-member"])] = str(told["value"])


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{at}.{number}")
    else:
        yield at, value


def _as_written(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def test_the_page_shows_each_member_and_no_other_as_json_tells_it(members: dict[str, Any]) -> None:
    told = json.loads(status_page.page({"accept": "*/*"}, members).body)
    shown = Figures(status_page.page({"accept": "text/html"}, members).body).found
    leaves = {name: _as_written(value) for name, value in _leaves(told) if not name.startswith("history.")}
    assert shown == leaves


def test_so_it_does_of_several_instances(members: dict[str, Any]) -> None:
    shown = Figures(status_page.text(members | INSTANCES)).found
    leaves = {name: _as_written(value) for name, value in _leaves(INSTANCES) if "total.outcomes" not in name}
    assert leaves.items() <= shown.items()


def test_json_is_there_unless_html_is_preferred(members: dict[str, Any]) -> None:
    page = status_page.page({}, members)
    assert (page.code, page.headers["Content-Type"], page.headers["Vary"]) == (200, pages.JSON, "Accept")
    assert json.loads(page.body) == members
    page = status_page.page({"accept": "text/html"}, members)
    assert (page.headers["Content-Type"], page.headers["Cache-Control"]) == (pages.HTML, "no-store")


def test_names_are_escaped(members: dict[str, Any]) -> None:
    body = status_page.text(members)
    assert "<b" not in re.sub("<(body|bdi)", "", body.partition("</style>")[2])
    assert body.count("&lt;b onclick=&quot;x&quot;&gt;&amp;amp;") >= 4


def test_the_policy_allows_its_own_style_and_script_and_nothing_else(members: dict[str, Any]) -> None:
    page = status_page.page({"accept": "text/html"}, members)
    policy = page.headers["Content-Security-Policy"]
    for kind in ("style", "script"):
        found = re.findall(f"<{kind}>(.*?)</{kind}>", page.body, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        assert f"{kind}-src {' '.join(f"'sha256-{digest}'" for digest in digests)};" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert not {name for name in Figures(page.body).attributes if name in ("style", "src") or name.startswith("on")}
    assert "http:" not in page.body
    assert "https:" not in page.body


def test_a_proxy_that_has_done_nothing_has_a_page_too() -> None:
    body = status_page.text(report.members(Counters(), Facts()))
    for said in ("The first are told after 5 seconds.", "There is no key.", "no answer yet", "Limits: none reached"):
        assert said in body


def test_the_picture_has_words() -> None:
    members = report.members(Counters(), Facts())
    members["history"]["requests_per_second"] = [0.0, 30.0]
    body = status_page.text(members)
    assert "There were none." in status_page.text(members | {"history": {"requests_per_second": [0.0]}})
    assert "At most 30 a second, 15 on average." in body
    assert "aria-labelledby='rates rates-words'" in body


def test_limits_that_were_reached_come_first_and_are_open(members: dict[str, Any]) -> None:
    body = status_page.text(members)
    assert "<details open><summary>Limits: 1 reached" in body
    assert body.index(">jwt_b<") < body.index(">jwt_a<")
