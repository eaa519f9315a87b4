"""The script of pages that follow what they show; what it does is seen in a browser (tests/e2e/test_browser.py)."""

from __future__ import annotations

from jwtproxy.observe import live


def test_it_asks_only_the_page_that_it_is_in_and_only_while_that_is_seen() -> None:
    assert live.SCRIPT.count("fetch(") == 1
    assert "fetch(location.pathname" in live.SCRIPT
    assert "document.hidden" in live.SCRIPT


def test_it_makes_nothing_of_text_that_could_run() -> None:
    assert not any(name in live.SCRIPT for name in ("innerHTML", "eval", "Function(", "document.write", "</"))


def test_who_has_no_script_is_not_told_that_the_proxy_is_gone() -> None:
    assert "<p id=gone class=gone role=alert hidden>" in live.END
