"""People do not get to read tokens."""

from __future__ import annotations

import io
import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.observe.redaction import RedactedStream, redact
from jwtproxy.tokens.algorithms import HMAC_BYTES
from jwtproxy.tokens.claims import default_claims
from jwtproxy.tokens.signing import Signer

KEY = secrets.token_bytes(64)


@given(st.text().filter(lambda text: "eyJ" not in text), st.text(), st.text(), st.sampled_from(sorted(HMAC_BYTES)))
def test_no_token_is_left_in_any_text(before: str, user: str, after: str, algorithm: str) -> None:
    token = Signer(KEY, algorithm).sign(default_claims(user, time.time()))
    shown = redact(f"{before}{token}{after}")
    assert token not in shown
    assert token.rpartition(".")[2] not in shown, "nor its signature"


@given(st.text().filter(lambda text: "eyJ" not in text))
def test_text_without_a_token_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", ["eyJ", "eyJ.eyJ.eyJ", "HeyJude. a. b"])
def test_what_only_begins_like_a_token_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", ["eyJhbGciOiJIUzUxMiJ9", "eyJhbGciOiJIUzUxMiJ9.e30", "eyJhbGciOiJIUzUxMiJ9.e30."])
def test_a_token_cut_short_is_replaced(text: str) -> None:
    assert redact(text) == "[token]"


def test_each_of_several_tokens_is_replaced() -> None:
    token = Signer(KEY, "HS512").sign({"user": "alice"})
    assert redact(f"    x-my-jwt: {token}\n{token},{token}") == "    x-my-jwt: [token]\n[token],[token]"


def test_a_stream_redacts_what_is_written_and_is_the_original_in_all_else() -> None:
    original = io.StringIO()
    stream = RedactedStream(original)
    assert stream.write("a " + Signer(KEY, "HS512").sign({})) == len("a [token]")
    print("printed", Signer(KEY, "HS512").sign({}), file=stream)
    stream.flush()
    assert stream.getvalue() == "a [token]printed [token]\n"
    assert stream.isatty() is False
    with pytest.raises(AttributeError):
        _ = stream.nonsense
