"""Tokens verify under a library that did not make them."""

from __future__ import annotations

import re
import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import OctKey

from jwtproxy.claims import default_claims
from jwtproxy.keys import HMAC_BYTES
from jwtproxy.signing import Signer

KEY = secrets.token_bytes(64)


@pytest.mark.parametrize("algorithm", HMAC_BYTES)
def test_every_algorithm_verifies(algorithm: str) -> None:
    key = secrets.token_bytes(HMAC_BYTES[algorithm])
    claims = default_claims("alice", time.time())
    token = jwt.decode(Signer(key, algorithm).sign(claims), OctKey.import_key(key), algorithms=[algorithm])
    assert token.header == {"alg": algorithm, "typ": "JWT"}
    assert token.claims == claims


@given(st.text())
def test_any_user_name_survives(user: str) -> None:
    token = jwt.decode(Signer(KEY, "HS512").sign({"user": user}), OctKey.import_key(KEY), algorithms=["HS512"])
    assert token.claims == {"user": user}


@given(st.text())
def test_a_token_is_a_bare_compact_jws(user: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", Signer(KEY, "HS512").sign({"user": user}))


def test_another_key_does_not_verify() -> None:
    with pytest.raises(BadSignatureError):
        jwt.decode(Signer(KEY, "HS512").sign({}), OctKey.import_key(secrets.token_bytes(64)), algorithms=["HS512"])


def test_a_signer_does_not_show_its_key() -> None:
    assert KEY.hex() not in repr(Signer(KEY, "HS512"))
    assert repr(KEY) not in repr(Signer(KEY, "HS512"))
