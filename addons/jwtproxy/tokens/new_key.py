"""Make a new key."""

import secrets

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from .algorithms import ED25519, HMAC_BYTES, RSA_BITS

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def generate(algorithm: str) -> str:
    """A new key for this algorithm as the text of its file: PKCS#8 in PEM form, or hexadecimal."""
    if algorithm in HMAC_BYTES:
        return secrets.token_hex(HMAC_BYTES[algorithm]) + "\n"
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm in _CURVES:
        key = ec.generate_private_key(_CURVES[algorithm])
    elif algorithm in ED25519:
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = rsa.generate_private_key(65537, RSA_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
