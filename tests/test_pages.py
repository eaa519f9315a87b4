"""The proxy's own pages."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy import pages

MEMBERS = {"proxied_requests": 7, "version": "<1&2>"}
CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def _status() -> dict[str, Any]:
    return MEMBERS


def _unasked() -> NoReturn:
    raise AssertionError("nobody wants the status")


@pytest.mark.parametrize(
    ("accept", "is_html"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        (CHROME, True),
        (FIREFOX, True),
        ("text/html, application/json", False),
        ("text/html;q=0.5, application/json", False),
        ("text/html, application/json;q=0.5", True),
        ("text/html;q=0", False),
        ("text/plain", False),
        ("image/png", False),
        ("nonsense", False),
        ("text/html;q=x, ;;,", False),
    ],
)
def test_json_unless_html_is_preferred(accept: str, is_html: bool) -> None:
    page = pages.answer("GET", "/status", accept, _status)
    assert page.code == 200
    assert page.headers["Content-Type"] == ("text/html; charset=utf-8" if is_html else "application/json")
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Vary"] == "Accept"
    if is_html:
        assert page.body.startswith("<!doctype html>")
    else:
        assert json.loads(page.body) == MEMBERS


def test_html_shows_every_member_escaped() -> None:
    body = pages.answer("GET", "/status", "text/html", _status).body
    assert "proxied_requests" in body
    assert ">7\n" in body
    assert "&lt;1&amp;2&gt;" in body
    assert "<1&2>" not in body


@pytest.mark.parametrize("path", ["/status", "/status?", "/status?x=/y?z"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_status_may_be_asked_with_a_query(method: str, path: str) -> None:
    assert pages.is_own(path)
    assert pages.answer(method, path, "", _status) == pages.answer("GET", "/status", "", _status)


@pytest.mark.parametrize(
    "path", ["/", "", "*", "/nope", "/status/", "/Status", "//status", "/status/x", "/status%3F", "status"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_other_paths_do_not_exist(method: str, path: str) -> None:
    assert not pages.is_own(path)
    page = pages.answer(method, path, "text/html", _unasked)
    assert (page.code, "Allow" in page.headers) == (404, False)
    assert page.body.startswith("jwtproxy: ")
    assert "/status" in page.body


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "get", ""])
def test_status_can_only_be_read(method: str) -> None:
    page = pages.answer(method, "/status", "", _unasked)
    assert (page.code, page.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert page.body.startswith("jwtproxy: ")


@pytest.mark.parametrize("path", ["*", "/status"])
def test_options_says_what_is_allowed(path: str) -> None:
    assert pages.answer("OPTIONS", path, "", _unasked) == pages.Page(204, "", {"Allow": "GET, HEAD, OPTIONS"})


def test_options_of_an_unknown_path_is_404() -> None:
    assert pages.answer("OPTIONS", "/nope", "", _unasked).code == 404


@given(st.text(), st.text(), st.text())
def test_any_request_has_an_answer(method: str, path: str, accept: str) -> None:
    assert pages.answer(method, path, accept, _status).code in (200, 204, 404, 405)
    assert pages.answer("GET", "/status", accept, _status).code == 200


def test_a_short_answer_speaks_in_our_voice() -> None:
    page = pages.text(502, "no way", Allow="GET")
    assert page == pages.Page(502, "jwtproxy: no way\n", {"Content-Type": "text/plain; charset=utf-8", "Allow": "GET"})
    assert pages.NONE.code == 404
