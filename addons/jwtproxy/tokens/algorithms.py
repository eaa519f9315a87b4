"""Which algorithms sign tokens, and which keys fit them (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2)."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from ..config.errors import SettingsError
from ..config.options import Option, one_of

AUTO = "auto"
"""Whatever fits the key best."""
ED25519 = ("EdDSA", "Ed25519")
"""Two names of one algorithm; RFC 9864 prefers the second, most verifiers know the first."""
ALGORITHMS = (*(f"{family}{bits}" for family in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)), *ED25519)

RSA_BITS = 2048
"""RFC 7518 §3.3."""
HMAC_BYTES = {"HS512": 64, "HS384": 48, "HS256": 32}
"""RFC 2104 takes any key; RFC 7518 §3.2 wants one at least as long as the hash."""

GENERATE = "make one with: openssl rand -hex 64"
NEW_KEY = "make one with: jwtproxy-run keys new"

OPTIONS = (
    Option(
        "jwt_algorithm",
        AUTO,
        one_of(AUTO, *ALGORITHMS),
        "keys",
        "How tokens are signed: HS, RS, PS or ES with 256, 384 or 512, EdDSA or Ed25519; auto is HS512 for a shared "
        "secret, else what fits the key.",
    ),
)

_RSA = tuple(name for name in ALGORITHMS if name[:2] in ("RS", "PS"))
_CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}


def implementation(algorithm: str) -> Algorithm:
    """PyJWT's part for this algorithm."""
    return get_default_algorithms()["EdDSA" if algorithm in ED25519 else algorithm]


def fitting(material: Any, place: str, wanted: str) -> str:
    """The algorithm to use this key with, bytes or one of cryptography's. Raises SettingsError if `wanted` is none."""
    kind, algorithms = _kind(material, place)
    algorithm = algorithms[0] if wanted == AUTO else wanted
    if algorithm not in algorithms:
        hint = f"use auto, or an algorithm that it fits: {', '.join(algorithms)}"
        raise SettingsError(f"{place} holds {kind}, which does not fit {algorithm}", hint)
    if isinstance(material, bytes) and len(material) < HMAC_BYTES[algorithm]:
        raise SettingsError(
            f"{place} has {len(material)} bytes, {algorithm} needs at least {HMAC_BYTES[algorithm]}",
            f"make one with: openssl rand -hex {HMAC_BYTES[algorithm]}",
        )
    try:
        implementation(algorithm).prepare_key(material)
    except InvalidKeyError:
        raise SettingsError(f"{place} is not a secret: it looks like a public key", GENERATE) from None
    return algorithm


def _kind(material: Any, place: str) -> tuple[str, tuple[str, ...]]:
    """What a key is called, and the algorithms that it fits; the first is what `auto` takes. Raises SettingsError."""
    if isinstance(material, bytes):
        return "a shared secret", tuple(HMAC_BYTES)
    if isinstance(material, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        if material.key_size < RSA_BITS:
            hint = f"use {RSA_BITS} bits or more (RFC 7518 §3.3); jwtproxy-run keys new --alg RS256"
            raise SettingsError(f"{place} holds an RSA key of {material.key_size} bits, which is too weak", hint)
        return "an RSA key", _RSA
    if isinstance(material, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        if material.curve.name in _CURVES:
            return f"a key on the curve {material.curve.name}", _CURVES[material.curve.name]
        hint = "use P-256, P-384 or P-521; jwtproxy-run keys new --alg ES256"
        raise SettingsError(f"{place} holds a key on the curve {material.curve.name}, which is not supported", hint)
    if isinstance(material, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)):
        return "an Ed25519 key", ED25519
    kind = type(material).__name__.removesuffix("PrivateKey").removesuffix("PublicKey").lstrip("_")
    raise SettingsError(f"{place} holds a key of the kind {kind}, which cannot sign tokens", NEW_KEY)
