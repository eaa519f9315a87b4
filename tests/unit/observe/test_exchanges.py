"""What is told of a request names its token, and holds nothing that is of use to who reads it."""

from __future__ import annotations

import base64
import json

import pytest

from jwtproxy.observe.counters import Outcome
from jwtproxy.observe.exchanges import Exchange, Row, claims_of, in_words, jti_of, kid_of, lane, public_path


def _token(header: object, claims: object) -> bytes:
    parts = (
        base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).rstrip(b"=")
        for part in (header, claims)
    )
    return b".".join((*parts, b"c2lnbmF0dXJl"))


@pytest.mark.parametrize(
    ("token", "kid", "jti"),
    [
        (_token({"kid": "K1"}, {"jti": "42"}), "K1", "42"),
        (_token({"alg": "HS512"}, {"iat": 1}), None, None),
        (
            _token({"kid": "K1"}, {"iat": 1795807978, "jti": "0123456789abcdef" * 2, "x": 1}),
            "K1",
            "0123456789abcdef" * 2,
        ),
        (_token({"kid": "K1"}, {"iat": 1795807978, "jti": "0123456789abcdef" * 2}), "K1", "0123456789abcdef" * 2),
        (_token({"kid": "K1"}, {"iat": 1795807978, "jti": "0123456789abcde_" * 2}), "K1", "0123456789abcde_" * 2),
        (_token({"kid": "K1"}, {"iat": 1795807978, "jti": "0123"}), "K1", "0123"),
        (_token({"kid": "K1"}, {"iat": 1795807978, "jti": "x" * 33}), "K1", "x" * 33),
        (_token({"kid": "K1"}, {"iat": 1795807978.5, "jti": "x" * 32}), "K1", "x" * 32),
        (_token({}, {"iat": 1795807978, "exp": "x" * 32}), None, None),
        (_token({"kid": 1}, {"jti": ["x"]}), None, None),
        (_token(["kid"], "jti"), None, None),
        (b"", None, None),
        (b"no token", None, None),
        (b"!.\xff.", None, None),
    ],
)
def test_key_and_number_are_read_from_a_token(token: bytes, kid: str | None, jti: str | None) -> None:
    header, _, claims = token.rpartition(b".")[0].partition(b".")
    assert (kid_of(header), jti_of(claims)) == (kid, jti)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/a/b", ("/a/b", False)),
        ("/a?password=x", ("/a", True)),
        ("/a?", ("/a", True)),
        ("/a#x?y", ("/a", True)),
        ("*", ("*", False)),
        ("/eyJhbGciOiJIUzUxMiJ9.eyJ4Ijo.abc/x", ("/[token]/x", False)),
    ],
)
def test_no_query_fragment_or_token_of_a_path_is_told(path: str, told: tuple[str, bool]) -> None:
    assert public_path(path) == told


def _exchange(scheme: str, path: str, *, has_query: bool, fast: bool = False) -> Exchange:
    return Exchange(
        *(1.0, "192.0.2.1", "GET", scheme, "a.example", path, has_query, 200, Outcome.SUCCESS, "", "default"),
        *(None, None, fast, 0.5, None, 0, 0),
    )


def test_a_url_shows_that_there_is_a_query() -> None:
    assert _exchange("https", "/x", has_query=True).url == "https://a.example/x?…"
    assert _exchange("http", "/x", has_query=False).url == "http://a.example/x"
    assert _exchange("", "", has_query=False).url == "a.example"


def test_lanes_have_names() -> None:
    assert [lane(fast) for fast in (True, False)] == ["fast", "mitmproxy"]


ROW = Row(
    *(10.0, 14.5, "192.0.2.1", b"GET", b"https", "a.example", 8443, b"/x", True, 0, int(Outcome.FAILED)),
    *("gone", "pay", _token({"kid": "K1"}, {"jti": "42"}).rpartition(b".")[0], 0.5, 3, 4, True),
)


def test_what_is_kept_is_put_into_words() -> None:
    assert in_words(ROW) == Exchange(
        *(10.0, "192.0.2.1", "GET", "https", "a.example:8443", "/x", True, None, Outcome.FAILED, "gone", "pay"),
        *("K1", "42", True, 4.5, 0.5, 3, 4),
    )
    assert in_words(ROW._replace(ended=9.0)).duration == 0
    assert in_words(ROW._replace(path=b"/x#y", has_query=False)).url == "https://a.example:8443/x?…"


def test_claims_are_read_from_a_token_without_its_signature() -> None:
    assert claims_of(ROW.token) == {"jti": "42"}
    assert claims_of(b"") is None
    assert claims_of(b"x") is None
    assert claims_of(b"x.!") is None
