"""Tokens of every algorithm, with keys in every form, verify in three libraries that did not make them."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from joserfc import jwk

from tests.support import verifiers
from tests.support.clients import Raw, message
from tests.support.harness import Proxy, StartProxy
from tests.support.upstreams import Recorder

PASSPHRASE = "correct horse é"

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Make = Callable[[str], tuple[str, jwk.Key]]
"""Makes a key for an algorithm: the text of its file, and the key."""


def pem(form: PrivateFormat, *, encrypted: bool = False) -> Make:
    def make(algorithm: str) -> tuple[str, jwk.Key]:
        key = _private(algorithm)
        protection: KeySerializationEncryption = NoEncryption()
        if encrypted:
            protection = BestAvailableEncryption(PASSPHRASE.encode())
        text = key.private_bytes(Encoding.PEM, form, protection).decode()
        return text, _jwk(key, algorithm)

    return make


def json_form(*, in_set: bool = False, names_algorithm: bool = False, kid: str = "") -> Make:
    """A JWK, alone or in a JWKS."""

    def make(algorithm: str) -> tuple[str, jwk.Key]:
        key = _generated(algorithm)
        members = {"alg": algorithm if names_algorithm else "", "kid": kid}
        found = {**key.as_dict(private=True), **{name: value for name, value in members.items() if value}}
        return json.dumps({"keys": [found]} if in_set else found), key

    return make


def hexadecimal(algorithm: str) -> tuple[str, jwk.Key]:
    secret = secrets.token_bytes(int(algorithm[2:]) // 8)
    return secret.hex(" ", 8) + "\n", jwk.OctKey.import_key(secret)


PKCS1 = SEC1 = PrivateFormat.TraditionalOpenSSL
PKCS8 = PrivateFormat.PKCS8

_IMPORT: Mapping[str, Callable[[bytes], jwk.Key]] = {
    "RS": jwk.RSAKey.import_key,
    "PS": jwk.RSAKey.import_key,
    "ES": jwk.ECKey.import_key,
    "Ed": jwk.OKPKey.import_key,
}
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


class Case(NamedTuple):
    """One algorithm."""

    make: Make
    settings: Mapping[str, str] = {}
    kid: str | None = None
    """Given with the key; otherwise it is the thumbprint, and a shared secret has none."""


CASES = {
    "HS256": Case(hexadecimal, {"JWT_ALGORITHM": "HS256"}),
    "HS384": Case(json_form(names_algorithm=True)),
    "HS512": Case(json_form(in_set=True, kid="the secret"), kid="the secret"),
    "RS256": Case(pem(PKCS1)),
    "RS384": Case(pem(PKCS8), {"JWT_ALGORITHM": "RS384"}),
    "RS512": Case(pem(PKCS8, encrypted=True), {"JWT_ALGORITHM": "RS512", "JWT_KEY_PASSPHRASE": PASSPHRASE}),
    "PS256": Case(json_form(), {"JWT_ALGORITHM": "PS256", "JWT_KID": "mine"}, kid="mine"),
    "PS384": Case(json_form(in_set=True, names_algorithm=True)),
    "PS512": Case(pem(PKCS1, encrypted=True), {"JWT_ALGORITHM": "PS512", "JWT_KEY_PASSPHRASE_FILE": "passphrase"}),
    "ES256": Case(pem(SEC1)),
    "ES384": Case(pem(SEC1, encrypted=True), {"JWT_KEY_PASSPHRASE_FILE": "passphrase"}),
    "ES512": Case(json_form(kid="2026-11"), kid="2026-11"),
    "EdDSA": Case(pem(PKCS8)),
}


@pytest.mark.parametrize(("algorithm", "case"), CASES.items(), ids=CASES)
def test_a_token_verifies_in_three_libraries_and_a_changed_one_in_none(
    start_proxy: StartProxy, recorder: Recorder, tmp_path: Path, algorithm: str, case: Case
) -> None:
    text, key = case.make(algorithm)
    (tmp_path / "key").write_text(text)
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    proxy = start_proxy(
        env={"JWT_KEY_FILE": "key", **case.settings},
        secret=None,
        cwd=tmp_path,
    )
    token = _token(proxy, recorder)
    page = verifiers.published(proxy)
    shared = key.key_type == "oct"
    kid = case.kid if case.kid is not None else "" if shared else key.thumbprint()
    header = {"alg": algorithm, "typ": "JWT"} | ({"kid": kid} if kid else {})

    _check_page(page, key, kid, algorithm)
    keys = {"keys": [{**key.as_dict(), "kid": kid}]} if shared else page
    tokens = {"good": token, **_changed(token)}
    for verify in (verifiers.joserfc, verifiers.authlib):
        assert _results(verify, tokens, algorithm, keys) == _expected(tokens, header, "bad_signature")

    if shared:
        found = verifiers.jose(algorithm, tokens, secret=_decode(str(key.as_dict()["k"])).hex())
    else:
        found = verifiers.jose(algorithm, tokens, url=f"{proxy.url}/.well-known/jwks.json")
        assert found["thumbprints"] == [key.thumbprint()]
    assert found["results"] == _expected(tokens, header, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED")


def _check_page(page: dict[str, Any], key: jwk.Key, kid: str, algorithm: str) -> None:
    """The public key alone; never a symmetric one, which a verifier could be talked into."""
    if key.key_type == "oct":
        assert page == {"keys": []}
    else:
        assert page == {"keys": [{**key.as_dict(private=False), "kid": kid, "alg": algorithm, "use": "sig"}]}


def _results(
    verify: Callable[[str, str, verifiers.Jwks], dict[str, Any]],
    tokens: Mapping[str, str],
    algorithm: str,
    keys: verifiers.Jwks,
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, token in tokens.items():
        try:
            results[name] = verify(token, algorithm, keys)
        except Exception as error:
            results[name] = getattr(error, "error", repr(error))
    return results


def _expected(tokens: Mapping[str, str], header: dict[str, Any], refusal: str) -> dict[str, Any]:
    return dict.fromkeys(tokens, refusal) | {"good": header}


def _changed(token: str) -> dict[str, str]:
    """The token with one byte changed, in each of its parts; what is JSON stays JSON."""
    head, body, signature = map(_decode, token.split("."))
    changed = {
        "header": (head.replace(b'"JWT"', b'"JWU"'), body, signature),
        "payload": (head, body.replace(b'"username"', b'"usernbme"'), signature),
        "signature": (head, body, signature[:-1] + bytes([signature[-1] ^ 1])),
    }
    tokens = {name: ".".join(map(_encode, parts)) for name, parts in changed.items()}
    assert token not in tokens.values()
    return tokens


def _token(proxy: Proxy, recorder: Recorder) -> str:
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")).status == 200
    return recorder.only().token


def _private(algorithm: str) -> Private:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(65537, 2048)


def _generated(algorithm: str) -> jwk.Key:
    if algorithm.startswith("HS"):
        return jwk.OctKey.import_key(secrets.token_bytes(64))
    return _jwk(_private(algorithm), algorithm)


def _jwk(key: Private, algorithm: str) -> jwk.Key:
    return _IMPORT[algorithm[:2]](key.private_bytes(Encoding.PEM, PKCS8, NoEncryption()))


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "==")


def _encode(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()
