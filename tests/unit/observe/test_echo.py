"""What is told of a request as an upstream would have got it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.fields import Fields
from jwtproxy.observe import echo

HEADER: dict[str, Any] = {"alg": "HS512", "typ": "JWT"}
CLAIMS: dict[str, Any] = {"iat": 1, "payload": {"user": "<b>&"}}


def _part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


TOKEN = b".".join((_part(HEADER), _part(CLAIMS), b"c2lnbmF0dXJlLXRoYXQtbm9ib2R5LXNlZXM"))


def _asked(*fields: tuple[bytes, bytes], rule: str | None = None, url: str = "http://jwtproxy.test/") -> echo.Asked:
    names = frozenset((b"x-my-jwt", b"x-other"))
    return echo.Asked("GET", url, "HTTP/1.1", fields, 0, names, rule)


SIGNED: Fields = ((b"Host", b"jwtproxy.test"), (b"X-My-Jwt", TOKEN))


def test_the_token_is_told_decoded_and_itself_never() -> None:
    told = echo.tell(_asked(*SIGNED, rule="a"))
    assert told["token"] == {"field": "X-My-Jwt", "header": HEADER, "claims": CLAIMS}
    assert told["headers"] == {"Host": "jwtproxy.test", "X-My-Jwt": "[token, decoded below]"}
    assert told["rule"] == "a"
    for accept in ("", "text/html"):
        body = echo.page(_asked(*SIGNED), accept).body.encode()
        assert not any(part in body for part in TOKEN.split(b"."))


def test_without_a_token_there_is_none() -> None:
    assert echo.tell(_asked((b"A", b"b")))["token"] is None
    assert "without a token" in echo.page(_asked((b"A", b"b"), rule="x<y"), "text/html").body


@pytest.mark.parametrize("value", [b"", b"abc", b"!.!.!", b"e30", b".", b"\xff.\xff.\xff"])
def test_what_is_no_token_is_not_shown_either(value: bytes) -> None:
    told = echo.tell(_asked((b"x-my-jwt", value)))
    assert told["headers"] == {"x-my-jwt": "[token, decoded below]"}
    assert told["token"]["claims"] is None


@pytest.mark.parametrize(
    "name",
    "Authorization authorization Proxy-Authorization Cookie COOKIE Proxy_Authorization X-Api-Key X-Auth-Token "
    "X-Amz-Security-Token X_My_Jwt".split(),
)
def test_credentials_are_hidden(name: str) -> None:
    told = echo.tell(_asked((name.encode(), b"s3cret"), (b"A", b"b")))
    assert "s3cret" not in json.dumps(told)
    assert told["headers"]["A"] == "b"


def test_a_token_is_hidden_wherever_it_stands() -> None:
    told = json.dumps(
        echo.tell(_asked((b"Referer", b"http://a/?" + TOKEN), url=f"http://a/?t={TOKEN.decode()}&sig=xyz"))
    )
    assert "eyJ" not in told
    assert "xyz" not in told


def test_fields_of_one_name_are_one_and_any_bytes_are_shown() -> None:
    told = echo.tell(_asked((b"A", b"1"), (b"a", b"2"), (b"B", b"caf\xc3\xa9 \xff")))
    assert told["headers"] == {"A": "1, 2", "B": "café \\xff"}


def test_a_page_for_a_person_is_escaped_and_may_load_nothing() -> None:
    asked = _asked(*SIGNED, (b"X", b"<script>alert(1)</script>"), rule="<r>", url="http://jwtproxy.test/<i>'\"")
    page = echo.page(asked, "text/html")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert not any(raw in page.body for raw in ("<script>", "<r>", "<i>", "<b>"))
    assert "&lt;b&gt;&amp;" in page.body


@pytest.mark.parametrize(("length", "said"), [(0, "0 bytes"), (7, "7 bytes"), (None, "of unknown length")])
def test_of_a_body_only_the_length_is_told(length: int | None, said: str) -> None:
    asked = _asked(*SIGNED)._replace(length=length)
    assert echo.tell(asked)["body_bytes"] == length
    assert f"<td>{said}\n" in echo.page(asked, "text/html").body


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary())), st.text(), st.text())
def test_any_request_can_be_told(fields: list[tuple[bytes, bytes]], url: str, accept: str) -> None:
    page = echo.page(_asked(*fields, url=url), accept)
    assert page.code == 200
    assert page.headers["Cache-Control"] == "no-store"
