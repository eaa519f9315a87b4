"""Tokens say what their profile says, signed by the key whose time it is."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jws, jwt
from joserfc.jwk import OctKey

from jwtproxy.tokens.claims import Profile
from jwtproxy.tokens.keyring import Keyring, NoKeyError
from jwtproxy.tokens.keys import Key
from jwtproxy.tokens.token_maker import TokenMaker

NOW = 1_700_000_000.9
ORIGIN = "https://api.example"
SECRET = secrets.token_bytes(64)


def _key(kid: str = "", not_before: float = -math.inf, not_after: float = math.inf) -> Key:
    return Key("HS512", kid, "it", None, SECRET, not_before, not_after)


def _maker(*keys: Key, **profile: Any) -> TokenMaker:
    return TokenMaker(Profile("alice", **profile), Keyring(keys or [_key()]))


def _claims(token: str) -> Mapping[str, Any]:
    claims: dict[str, Any] = json.loads(jws.extract_compact(token.encode()).payload)
    return claims


def test_a_token_has_the_claims_of_its_profile() -> None:
    token = _maker(audience="origin", ttl=60, typ="at+jwt", claims={"scope": "a"}).token(ORIGIN, NOW)
    verified = jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS512"])
    assert verified.header == {"alg": "HS512", "typ": "at+jwt"}
    assert len(verified.claims.pop("jti")) == 32
    assert verified.claims == {
        "iat": 1_700_000_000,
        "payload": {"user": "alice", "date": "2023-11-14"},
        "aud": ORIGIN,
        "nbf": 1_699_999_940,
        "exp": 1_700_000_060,
        "scope": "a",
    }


def test_each_token_is_made_for_its_own_request() -> None:
    maker = _maker(audience="origin")
    first, second = (_claims(maker.token(*request)) for request in ((ORIGIN, NOW), ("http://b", NOW + 1)))
    assert (first["aud"], second["aud"]) == (ORIGIN, "http://b")
    assert second["iat"] - first["iat"] == 1
    assert first["jti"] != second["jti"]


def test_the_key_whose_time_it_is_signs() -> None:
    maker = _maker(_key("a", not_after=NOW + 10), _key("b", NOW + 5, NOW + 20))
    kids = [jws.extract_compact(maker.token("", now).encode()).protected["kid"] for now in (NOW, NOW + 5, NOW + 19)]
    assert kids == ["a", "b", "b"]
    with pytest.raises(NoKeyError):
        maker.token("", NOW + 20)
    with pytest.raises(NoKeyError):
        maker.signer(NOW + 20)


def test_a_key_is_prepared_once() -> None:
    """It takes longer than to sign."""
    maker = _maker(_key("a"), _key("b", NOW + 5))
    assert maker.signer(NOW) is maker.signer(NOW + 4)
    assert maker.signer(NOW + 5) is maker.signer(NOW + 9)
    assert maker.signer(NOW) is not maker.signer(NOW + 5)
    assert maker.signer(NOW).header == {"alg": "HS512", "typ": "JWT", "kid": "a"}


def test_the_field_is_that_of_the_profile() -> None:
    assert _maker().field == b"x-my-jwt"
    assert _maker(header="X_Pay").field == b"X_Pay"
