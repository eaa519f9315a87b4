"""A new key fits its algorithm, in a form that any tool reads, and is another each time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from jwtproxy.tokens.algorithms import ALGORITHMS, HMAC_BYTES
from jwtproxy.tokens.key_formats import parse
from jwtproxy.tokens.keys import KeyRequest
from jwtproxy.tokens.new_key import generate

CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


def _fits(text: str, algorithm: str) -> bool:
    (key,) = parse(text, "it", KeyRequest(algorithm))
    return key.algorithm == algorithm and key.signer().sign({}).count(".") == 2


@pytest.mark.parametrize(("algorithm", "size"), HMAC_BYTES.items())
def test_a_secret_is_hexadecimal_and_as_long_as_it_must_be(algorithm: str, size: int) -> None:
    text = generate(algorithm)
    assert re.fullmatch(rf"[0-9a-f]{{{2 * size}}}\n", text)
    assert _fits(text, algorithm)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in HMAC_BYTES])
def test_any_other_is_pkcs_8_in_pem_form(algorithm: str) -> None:
    text = generate(algorithm)
    assert text.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert text.endswith("-----END PRIVATE KEY-----\n")
    assert _fits(text, algorithm)
    key: Any = load_pem_private_key(text.encode(), None)
    if algorithm in CURVES:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == CURVES[algorithm]
    elif algorithm.startswith("Ed"):
        assert isinstance(key, ed25519.Ed25519PrivateKey)
    else:
        assert isinstance(key, rsa.RSAPrivateKey)
        assert (key.key_size, key.public_key().public_numbers().e) == (2048, 65537)


@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "EdDSA", "Ed25519"])
def test_it_is_another_each_time(algorithm: str) -> None:
    assert len({generate(algorithm) for _ in range(3)}) == 3
