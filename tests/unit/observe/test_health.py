"""Whether the proxy serves, and whether it takes requests."""

from __future__ import annotations

import pytest

from jwtproxy.observe import health


def test_a_proxy_that_is_ready_says_so_in_a_word() -> None:
    for page in (health.LIVE, health.ready("")):
        assert (page.code, page.body) == (200, "ok\n")
        assert page.headers == {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}


@pytest.mark.parametrize("lacking", [health.STARTING, health.DRAINING, health.UNUSABLE])
def test_one_that_is_not_says_why_in_one_line(lacking: str) -> None:
    page = health.ready(lacking)
    assert (page.code, page.body) == (503, f"jwtproxy: not ready: {lacking}\n")
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Type"].startswith("text/plain")
