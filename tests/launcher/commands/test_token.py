"""`jwtproxy-run token`: what a script gets is a token, or an error."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.commands import token
from jwtproxy.tokens.new_key import generate
from tests.support.harness import token_header, verify

SECRET = secrets.token_hex(64)
RULES = """\
rules:
  - {match: '~m ^POST$ & ~hq "^x-pay: 1$"', audience: pay}
  - {name: quiet, match: ~d ^open\\.example$, sign: false}
  - {name: closed, match: ~d ^closed\\.example$, block: true}
  - {match: ~d ^asks\\.example$, user: proxyauth}
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def settings(pristine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and rules in the working directory."""
    monkeypatch.setenv("JWT_SHARED_SECRET", SECRET)
    Path("rules.yaml").write_text(RULES)


def _token(capsys: Captured, *arguments: str) -> str:
    assert token.run([*arguments]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert printed.count("\n") == 1
    return printed.strip()


def test_it_is_printed_alone(capsys: Captured) -> None:
    claims = verify(_token(capsys, "https://api.example/"), SECRET)
    assert sorted(claims) == ["iat", "jti", "payload"]
    assert abs(float(str(claims["iat"])) - time.time()) < 60


@pytest.mark.parametrize("arguments", [("https://pay.example/x", "--user", "ci"), ("--user", "ci", "GET", "http://x")])
def test_flags_may_stand_anywhere(capsys: Captured, arguments: tuple[str, ...]) -> None:
    claims = verify(_token(capsys, *arguments, "--audience", "origin", "--ttl", "9"), SECRET)
    assert claims["payload"]["user"] == "ci"  # type: ignore[index]
    assert claims["aud"] in ("https://pay.example", "http://x")
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 9


def test_method_and_header_decide_as_for_a_request(capsys: Captured) -> None:
    pay = ("POST", "http://x/", "--rules", "rules.yaml")
    assert verify(_token(capsys, *pay, "-H", "X-Pay: 1"), SECRET)["aud"] == "pay"
    assert "aud" not in verify(_token(capsys, *pay), SECRET)


def test_a_key_may_be_named(capsys: Captured) -> None:
    other = secrets.token_hex(64)
    Path("key").write_text(other)
    made = _token(capsys, "--key", "key", "http://x/", "--set", "jwt_kid=mine")
    assert token_header(made, other)["kid"] == "mine"
    Path("key").write_text(generate("ES256"))
    assert _token(capsys, "--key", "key", "http://x/")


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        ((), "token needs a URL, with or without a method, not ''", "jwtproxy-run token https://api.example/"),
        (("GET", "http://x/", "y"), "token needs a URL, with or without a method", "jwtproxy-run token https"),
        (("x",), "bad URL 'x'", "https://host:port/path"),
        (("http://x/", "GET"), "bad method 'http://x/'", "the method, then the URL"),
        (("CONNECT", "x:443"), "a CONNECT is never signed", "inside the tunnel"),
        (("http://open.example/",), "rule 'quiet' has this request pass without one", "jwtproxy-run explain GET http"),
        (("http://closed.example/",), "refused with 403, blocked by rule 'closed'", "jwtproxy-run explain GET http"),
        (("http://169.254.169.254/",), "refused with 403", "jwtproxy-run explain GET http://169"),
        (("TRACE", "http://x/"), "refused with 405", "jwtproxy-run explain TRACE"),
        (("http://asks.example/",), "puts the user of --proxyauth into the token", "--proxyauth"),
        (("http://x/", "--ttl", "soon"), "bad value 'soon' for jwt_ttl", "seconds"),
        (("http://x/", "--set", "jwt_usr=x"), "unknown option 'jwt_usr'", "jwt_user"),
    ],
)
def test_without_a_token_it_is_an_error(capsys: Captured, arguments: tuple[str, ...], said: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        token.run([*arguments, "--rules", "rules.yaml"])
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert capsys.readouterr() == ("", "")


def test_without_a_key_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JWT_SHARED_SECRET")
    with pytest.raises(SettingsError, match="JWT_SHARED_SECRET is not set"):
        token.run(["http://x/"])
