"""Each algorithm signs with the keys that fit it, and with no others."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jwtproxy.config.errors import SettingsError
from jwtproxy.tokens.algorithms import ALGORITHMS, AUTO, HMAC_BYTES, OPTIONS, RSA_BITS, fitting, implementation

SECRET = secrets.token_bytes(64)
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
RSA_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]

FITTING: list[tuple[Any, list[str], str]] = [
    (SECRET, ["HS512", "HS384", "HS256"], "a shared secret"),
    (RSA, RSA_ALGORITHMS, "an RSA key"),
    *((ec.generate_private_key(curve), [name], f"a key on the curve {curve.name}") for name, curve in CURVES.items()),
    (ED25519, ["EdDSA", "Ed25519"], "an Ed25519 key"),
]
KINDS = ["secret", "RSA", *CURVES, "Ed25519"]


def _halves(material: Any) -> list[Any]:
    """The private and the public key; of a secret, itself."""
    return [material] if isinstance(material, bytes) else [material, material.public_key()]


def test_these_are_all_of_them() -> None:
    families = [family + bits for family in ("HS", "RS", "PS", "ES") for bits in ("256", "384", "512")]
    assert list(ALGORITHMS) == [*families, "EdDSA", "Ed25519"]
    assert HMAC_BYTES == {"HS256": 32, "HS384": 48, "HS512": 64}
    assert RSA_BITS == 2048
    (option,) = OPTIONS
    assert (option.name, option.default) == ("jwt_algorithm", "auto")
    assert [option.check(name) for name in (*ALGORITHMS, AUTO, "")] == [*ALGORITHMS, AUTO, AUTO]


@pytest.mark.parametrize("value", ["none", "hs512", "ES256K", "HS512 ", "Auto", "ed25519", "Ed448"])
def test_what_is_none_is_no_option(value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^bad value '{value}' for jwt_algorithm$") as caught:
        OPTIONS[0].check(value)
    assert caught.value.hint == f"use one of auto, {', '.join(ALGORITHMS)} (jwt_algorithm or JWT_ALGORITHM)"


@pytest.mark.parametrize(("material", "algorithms", "kind"), FITTING, ids=KINDS)
def test_a_key_fits_some_and_the_first_of_them_by_itself(material: Any, algorithms: list[str], kind: str) -> None:
    for half in _halves(material):
        assert fitting(half, "it", AUTO) == algorithms[0]
        for algorithm in ALGORITHMS:
            if algorithm in algorithms:
                assert fitting(half, "it", algorithm) == algorithm
                continue
            with pytest.raises(SettingsError) as caught:
                fitting(half, "it", algorithm)
            assert str(caught.value) == f"it holds {kind}, which does not fit {algorithm}"
            assert caught.value.hint.endswith(f"an algorithm that it fits: {', '.join(algorithms)}")


@pytest.mark.parametrize(("algorithm", "size"), HMAC_BYTES.items())
def test_a_secret_is_as_long_as_the_hash(algorithm: str, size: int) -> None:
    """RFC 7518 §3.2."""
    assert fitting(SECRET[:size], "it", algorithm) == algorithm
    with pytest.raises(SettingsError) as caught:
        fitting(SECRET[: size - 1], "it", algorithm)
    assert str(caught.value) == f"it has {size - 1} bytes, {algorithm} needs at least {size}"
    assert caught.value.hint == f"make one with: openssl rand -hex {size}"


def test_by_itself_a_short_secret_fits_nothing() -> None:
    """It would be as weak as short: whoever wants HS256 says so."""
    with pytest.raises(SettingsError, match=r"^it has 63 bytes, HS512 needs at least 64$"):
        fitting(SECRET[:63], "it", AUTO)


def test_a_key_in_place_of_a_secret_is_refused() -> None:
    """A verifier that takes its public key for a shared secret is an old hole."""
    pem = ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SettingsError, match=r"^it is not a secret: it looks like a public key$") as caught:
        fitting(pem, "it", AUTO)
    assert "openssl rand -hex 64" in caught.value.hint
    assert caught.value.__cause__ is None


NONE_FIT = [
    (rsa.generate_private_key(65537, 1024), "an RSA key of 1024 bits, which is too weak", "keys new --alg RS256"),
    (ec.generate_private_key(ec.SECP256K1()), "a key on the curve secp256k1, which is not supported", "P-256"),
    (ed448.Ed448PrivateKey.generate(), "a key of the kind Ed448, which cannot sign tokens", "keys new"),
    (x25519.X25519PrivateKey.generate(), "a key of the kind X25519, which cannot sign tokens", "keys new"),
    (dsa.generate_private_key(1024), "a key of the kind DSA, which cannot sign tokens", "keys new"),
]


@pytest.mark.parametrize(("private", "said", "hint"), NONE_FIT, ids=["RSA 1024", "secp256k1", "Ed448", "X25519", "DSA"])
@pytest.mark.parametrize("wanted", [AUTO, "RS256"])
def test_a_key_of_another_kind_is_named(private: Any, said: str, hint: str, wanted: str) -> None:
    for half in _halves(private):
        with pytest.raises(SettingsError) as caught:
            fitting(half, "it", wanted)
        assert str(caught.value) == f"it holds {said}"
        assert hint in caught.value.hint


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_is_implemented_as_what_it_is_called(algorithm: str) -> None:
    (material,) = (material for material, algorithms, _ in FITTING if algorithm in algorithms)
    found = implementation(algorithm)
    public = material if isinstance(material, bytes) else material.public_key()
    signature = found.sign(b"input", found.prepare_key(material))
    assert found.verify(b"input", found.prepare_key(public), signature)
    assert not found.verify(b"other", found.prepare_key(public), signature)


def test_both_names_of_ed25519_are_the_same() -> None:
    """RFC 9864 §2.2, RFC 8032: its signatures are not randomised."""
    signatures = {implementation(name).sign(b"input", ED25519) for name in ("EdDSA", "Ed25519")}
    assert signatures == {ED25519.sign(b"input")}
