"""The page at the root."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from jwtproxy.observe import home, pages


def _body(accept: str = "", proxy: str = "http://localhost:8080") -> str:
    page = home.page({"accept": accept}, proxy)
    assert page.code == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Type"].startswith("text/html" if "html" in accept else "text/plain")
    return page.body


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "text/html"])
def test_it_tells_how_to_use_this_very_proxy(accept: str) -> None:
    body = _body(accept, "http://proxy.example:81")
    assert "curl --proxy http://proxy.example:81 http://jwtproxy.test/" in body
    assert "jwtproxy-run exec --proxy http://proxy.example:81 -- COMMAND" in body
    assert "jwtproxy-run env --proxy http://proxy.example:81" in body
    assert all(path in body and own.what in body for path, own in pages.PAGES.items() if path != "/")


def test_text_stays_text_where_that_is_preferred() -> None:
    assert home.page({"accept": "text/html;q=0.5, text/plain"}, "http://a:1").body.startswith("jwtproxy ")


def test_by_tls_only_what_understands_that_is_shown() -> None:
    body = _body(proxy="https://localhost:8080")
    assert "curl --proxy https://localhost:8080" in body
    assert "jwtproxy-run" not in body


def test_a_browser_lets_it_have_its_own_style_and_nothing_else() -> None:
    page = home.page({"accept": "text/html"}, "http://a:1")
    style = re.findall("<style>(.*?)</style>", page.body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    policy = page.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(style) == 1
    assert "style=" not in page.body
    assert "<a href=/status>/status</a>" in page.body


def test_in_front_of_a_server_nobody_is_told_to_name_it() -> None:
    for accept in ("", "text/html"):
        assert "--proxy" not in _body(accept, "")
        assert "/ca.pem" in _body(accept, "")
        assert "/proxy.pac" not in _body(accept, ""), "there is none"
