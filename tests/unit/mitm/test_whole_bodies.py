"""What is held of bodies is bounded, each and together."""

from __future__ import annotations

import pytest
from mitmproxy.options import Options

from jwtproxy.mitm import limits
from jwtproxy.mitm.whole_bodies import Held, refusal


@pytest.fixture
def options() -> Options:
    made = Options()
    limits.hang(made, {**limits.DEFAULT._asdict(), "max_body": 10, "max_bodies": 25})
    return made


def test_one_body_is_bounded(options: Options) -> None:
    body = Held(options)
    assert body.change(10) == ""
    assert body.change(1) == "jwt_max_body"
    assert body.change(-1) == ""


def test_all_together_are_bounded_until_they_are_forgotten(options: Options) -> None:
    bodies = [Held(options), Held(options)]
    assert [body.change(10) for body in bodies] == ["", ""]
    another = Held(options)
    assert another.change(6) == "jwt_max_bodies"
    bodies.pop()
    assert another.change(1) == ""


@pytest.mark.parametrize(
    ("exceeded", "of_request", "code", "error"),
    [
        ("jwt_max_body", True, 413, "http_request_error"),
        ("jwt_max_body", False, 502, "http_response_body_size"),
        ("jwt_max_bodies", True, 503, "http_request_denied"),
        ("jwt_max_bodies", False, 503, "http_response_body_size"),
    ],
)
def test_the_client_is_told(exceeded: str, of_request: bool, code: int, error: str) -> None:
    page = refusal(exceeded, of_request=of_request)
    assert (page.code, page.headers["Proxy-Status"]) == (code, f"jwtproxy; error={error}")
