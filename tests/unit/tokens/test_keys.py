"""A key knows how and when it signs, and what of it may be published."""

from __future__ import annotations

import math
import secrets
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from jwtproxy.config.errors import SettingsError
from jwtproxy.tokens.keys import ANY_KEY, END_OF_TIME, Key, KeyRequest, make, thumbprint

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864, in favour of a new name

SECRET = secrets.token_bytes(64)
RSA = rsa.generate_private_key(65537, 2048)
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()

KINDS: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
MADE: list[tuple[Any, str, str, set[str]]] = [
    # the key, what is asked, how it signs then, what is published beside what all have
    (RSA, "auto", "RS256", {"n", "e"}),
    (RSA, "PS512", "PS512", {"n", "e"}),
    (P521, "auto", "ES512", {"crv", "x", "y"}),
    (ED25519, "auto", "EdDSA", {"crv", "x"}),
    (ED25519, "EdDSA", "EdDSA", {"crv", "x"}),
    (ED25519, "Ed25519", "Ed25519", {"crv", "x"}),
]


@pytest.mark.parametrize(("private", "asked", "algorithm", "members"), MADE)
def test_a_key_is_published_as_what_verifies_and_nothing_else(
    private: Any, asked: str, algorithm: str, members: set[str]
) -> None:
    for material in (private, private.public_key()):
        key = make(material, "it", KeyRequest(asked))
        assert (key.algorithm, key.place) == (algorithm, "it")
        assert key.private is (private if material is private else None)
        assert key.public
        assert set(key.public) == members | {"kty", "use", "alg", "kid"}
        assert (key.public["use"], key.public["alg"], key.public["kid"]) == ("sig", algorithm, key.kid)
        assert key.kid == thumbprint(key.public) == KINDS[key.public["kty"]].import_key(dict(key.public)).thumbprint()


@pytest.mark.parametrize(("private", "asked", "algorithm", "members"), MADE)
def test_another_library_verifies_what_it_signs(private: Any, asked: str, algorithm: str, members: set[str]) -> None:
    key = make(private, "it", KeyRequest(asked, "k1"))
    assert key.public
    published = KINDS[key.public["kty"]].import_key(dict(key.public))
    token = jwt.decode(key.signer("at+jwt").sign({"a": 1}), published, algorithms=[algorithm])
    assert (token.header, token.claims) == ({"alg": algorithm, "typ": "at+jwt", "kid": "k1"}, {"a": 1})
    assert key.signer().header["typ"] == "JWT"


@pytest.mark.parametrize(("asked", "algorithm"), [("auto", "HS512"), ("HS256", "HS256")])
def test_a_shared_secret_has_no_kid_and_is_not_published(asked: str, algorithm: str) -> None:
    key = make(SECRET, "it", KeyRequest(asked))
    assert (key.algorithm, key.kid, key.place, key.public, key.private) == (algorithm, "", "it", None, SECRET)
    token = jwt.decode(key.signer().sign({}), OctKey.import_key(SECRET), algorithms=[algorithm])
    assert token.header == {"alg": algorithm, "typ": "JWT"}
    assert make(SECRET, "it", KeyRequest(kid="k1")).kid == "k1"


@pytest.mark.parametrize("material", [SECRET, ED25519], ids=["secret", "Ed25519"])
def test_a_key_signs_always_unless_it_is_said_when(material: Any) -> None:
    key = make(material, "it", ANY_KEY)
    assert (key.not_before, key.not_after) == (-math.inf, math.inf)
    key = make(material, "it", ANY_KEY, 5, END_OF_TIME)
    assert (key.not_before, key.not_after) == (5, 253_402_300_800)


@pytest.mark.parametrize("material", [SECRET, RSA, RSA.public_key()], ids=["secret", "private", "public"])
def test_one_that_does_not_fit_what_is_asked_is_refused(material: Any) -> None:
    with pytest.raises(SettingsError, match=r"^it holds a.*, which does not fit ES256$"):
        make(material, "it", KeyRequest("ES256"))


def test_a_key_is_itself_alone() -> None:
    """Two of the same content are not equal: signers are kept by key."""
    one, other = (make(SECRET, "it", ANY_KEY) for _ in range(2))
    assert one != other
    assert len({one, other}) == 2


def test_neither_key_nor_request_show_what_is_secret() -> None:
    said = repr(make(SECRET, "it", ANY_KEY)) + repr(make(P521, "it", ANY_KEY)) + repr(KeyRequest(passphrase=b"sesame"))
    assert repr(SECRET) not in said
    assert "sesame" not in said
    assert "private" not in said
    assert "object at" not in said


def test_nothing_is_asked_of_any_key() -> None:
    assert KeyRequest("auto", "", None) == ANY_KEY
    assert Key("HS512", "", "it", None).private is None


# --- the thumbprint


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    """Its §3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6q"
        "MQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awap"
        "JzKnqDKgw"
    )
    jwk = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    expected = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert thumbprint(jwk) == expected
    assert thumbprint({"d": "ignored", **dict(reversed(jwk.items()))}) == expected


def test_that_of_ed25519_is_that_of_rfc_8037() -> None:
    """Its §A.3."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
