"""The last requests, as JSON and as a page."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.observe import pages, recent
from jwtproxy.observe.counters import Outcome
from jwtproxy.observe.exchanges import Row

CLAIMS = {"iat": 1, "jti": "x", "payload": {"user": "<b>é</b>"}}
PAYLOAD = base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).rstrip(b"=")
ROW = Row(
    *(1_000_000_000.5, 1_000_000_000.5124, "192.0.2.1", b"GET", b"https", "a.example", 443, b"/x", True, 200),
    *(int(Outcome.SUCCESS), "", "pay", b"e30." + PAYLOAD, 0.5, 3, 4, True),
)


def _told(*rows: Row, most: int = 100) -> list[dict[str, Any]]:
    page = recent.page({}, rows, most)
    assert (page.code, page.headers["Content-Type"]) == (200, pages.JSON)
    said = json.loads(page.body)
    assert said["most"] == most
    return list(said["requests"])


def test_a_request_is_told_with_its_claims() -> None:
    assert _told(ROW) == [
        {
            "time": "2001-09-09T01:46:40.500+00:00",
            "client": "192.0.2.1",
            "method": "GET",
            "scheme": "https",
            "host": "a.example",
            "path": "/x",
            "query": True,
            "status": 200,
            "outcome": "2xx",
            "reason": None,
            "duration_ms": 12.4,
            "bytes_received": 3,
            "bytes_sent": 4,
            "rule": "pay",
            "claims": CLAIMS,
            "lane": "fast",
            "websocket": False,
        }
    ]


def test_what_there_is_not_is_null() -> None:
    row = ROW._replace(client="", scheme=b"", path=b"", port=8443, status=0, token=b"", fast=False, has_query=False)
    (told,) = _told(row._replace(outcome=int(Outcome.FAILED), reason="no way"))
    assert [told[name] for name in ("client", "scheme", "path", "status", "claims")] == [None] * 5
    assert [told[name] for name in ("host", "outcome", "reason", "lane", "query")] == [
        *("a.example:8443", "failed", "no way", "mitmproxy", False)
    ]


def test_the_last_come_first_and_no_more_than_that() -> None:
    rows = [ROW._replace(ended=ROW.ended + number, status=200 + number) for number in (2, 0, 3, 1)]
    assert [told["status"] for told in _told(*rows, most=3)] == [203, 202, 201]


@pytest.mark.parametrize("payload", [b"!", b"e30", b"W10", b"", b"\xff", PAYLOAD[:-9]])
def test_any_payload_can_be_told(payload: bytes) -> None:
    (told,) = _told(ROW._replace(token=b"e30." + payload))
    assert told["claims"] in (None, {}, [])


@given(st.binary(), st.binary(), st.binary(), st.text(), st.text())
def test_any_request_can_be_told(method: bytes, scheme: bytes, path: bytes, host: str, reason: str) -> None:
    row = ROW._replace(method=method, scheme=scheme, path=path, host=host, reason=reason)
    _told(row)
    assert recent.page({"accept": "text/html"}, [row], 1).body.encode(errors="replace")


TOKEN = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3OTU3NzY4NDV9.c2lnbmF0dXJlc2lnbmF0dXJl"


def test_a_path_that_has_a_token_or_a_fragment_keeps_it() -> None:
    (told,) = _told(ROW._replace(path=f"/a/{TOKEN}/b#secret".encode(), has_query=False))
    assert TOKEN not in told["path"]
    assert "secret" not in told["path"]
    assert told["query"]


def _page(*rows: Row) -> str:
    page = recent.page({"accept": "text/html"}, rows, 100)
    assert page.headers["Content-Type"] == pages.HTML
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    return page.body.partition("<main>")[2].partition("</main>")[0]


def test_people_see_the_same_escaped() -> None:
    body = _page(ROW)
    for said in ("01:46:40", "<b>GET</b> https://a.example/x?…", "12.4 ms", "200", "pay", "192.0.2.1", "fast"):
        assert said in body
    assert "&lt;b&gt;é&lt;/b&gt;" in body
    assert not re.search(r"\s(style|on\w+)=", body)


def test_names_that_make_trouble_make_none() -> None:
    evil = '"><script>x'
    row = ROW._replace(client=evil, method=evil.encode(), path=evil.encode(), rule=evil, reason=evil, host=evil)
    assert "<script" not in _page(row)
    assert '"><' not in _page(row).replace('"><summary>', "")


def test_before_the_first_request_it_says_how_to_send_one() -> None:
    assert "No request has passed yet." in _page()
    assert "No token." in _page(ROW._replace(token=b""))


def test_nobody_else_may_keep_or_embed_it() -> None:
    page = recent.page({}, [], 1)
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Vary"] == "Accept, Host"
    assert page.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert recent.OFF.code == 404


def test_what_is_long_is_cut_and_a_long_token_left_out() -> None:
    assert recent.shortened(ROW) == ROW
    long = ROW._replace(
        method=b"m" * 999, scheme=b"s" * 999, host="h" * 999, path=b"p" * 9999, reason="r" * 999, rule="u" * 999
    )
    cut = Row._make(recent.shortened(long))
    lengths = [len(part) for part in (cut.method, cut.scheme, cut.host, cut.path, cut.reason, cut.rule)]
    assert lengths == [256, 256, 256, 1024, 256, 256]
    assert cut.token == ROW.token
    assert Row._make(recent.shortened(ROW._replace(token=b"e30." + b"x" * 4093))).token == b""
    assert cut[14:] == ROW[14:]
