"""Tokens verify under a library that did not make them."""

from __future__ import annotations

import hmac
import re
import secrets
import time
import warnings
from base64 import urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import OctKey, OKPKey

from jwtproxy.tokens.algorithms import HMAC_BYTES
from jwtproxy.tokens.claims import default_claims
from jwtproxy.tokens.signing import Signer

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


def test_header_and_claims_are_compact_json() -> None:
    """Every request carries them: no space in them, and nothing that is not ASCII."""
    claims = {"iat": 1, "payload": {"user": "é ", "list": [1, None, True, 1.5]}}
    head, body, _ = Signer(KEY, "HS512", "k1", "at+jwt").sign(claims).split(".")
    assert _decoded(head) == b'{"alg":"HS512","typ":"at+jwt","kid":"k1"}'
    assert _decoded(body) == rb'{"iat":1,"payload":{"user":"\u00e9 ","list":[1,null,true,1.5]}}'
    assert _decoded(Signer(KEY, "HS512").sign({}).split(".")[0]) == b'{"alg":"HS512","typ":"JWT"}'


def _decoded(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def test_the_header_is_told() -> None:
    assert Signer(KEY, "HS256").header == {"alg": "HS256", "typ": "JWT"}
    assert Signer(KEY, "HS256", "k1", "T").header == {"alg": "HS256", "typ": "T", "kid": "k1"}


def test_each_signature_is_for_its_own_input() -> None:
    """The MAC is begun once, and each goes on from there."""
    signer = Signer(KEY, "HS512")
    first = signer.signature(b"a")
    assert first == hmac.digest(KEY, b"a", "sha512")
    assert signer.signature(b"b") == hmac.digest(KEY, b"b", "sha512")
    assert signer.signature(b"a") == first


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
def test_either_name_of_ed25519_signs_and_is_told(algorithm: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    token = Signer(key, algorithm).sign({"a": 1})
    head, body, signature = token.split(".")
    assert _decoded(head) == f'{{"alg":"{algorithm}","typ":"JWT"}}'.encode()
    key.public_key().verify(_decoded(signature), f"{head}.{body}".encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc calls the older name deprecated
        public = OKPKey.import_key(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        assert jwt.decode(token, public, algorithms=[algorithm]).claims == {"a": 1}
