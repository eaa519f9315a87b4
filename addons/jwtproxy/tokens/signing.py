"""Turn claims into a token."""

import hmac
import json.encoder
from binascii import b2a_base64
from collections.abc import Callable
from functools import partial
from typing import Any

from jwt.algorithms import Algorithm, HMACAlgorithm

from .algorithms import implementation


class Signer:
    """Signs with one key, prepared once: PyJWT's `encode` prepares it anew for each token. Never shows it.

    The key is one that fits the algorithm (algorithms.py sees to that): bytes, or cryptography's private key.
    """

    def __init__(self, key: Any, algorithm: str, kid: str = "", typ: str = "JWT") -> None:
        header = {"alg": algorithm, "typ": typ, **({"kid": kid} if kid else {})}
        self.header = header
        """The JOSE header (RFC 7515 §4)."""
        self.signature = _prepare(implementation(algorithm), key)
        """Sign a JWS signing input (RFC 7515 §5.1)."""
        self._head = _base64url(_encode(header).encode()) + b"."

    def sign(self, claims: dict[str, Any]) -> str:
        """The claims as a compact JWS (RFC 7515 §7.1)."""
        signing_input = self._head + _base64url(_encode(claims).encode())
        return (signing_input + b"." + _base64url(self.signature(signing_input))).decode()


def _prepare(algorithm: Algorithm, key: Any) -> Callable[[bytes], bytes]:
    if not isinstance(algorithm, HMACAlgorithm):
        return partial(algorithm.sign, key=algorithm.prepare_key(key))
    prepared = hmac.new(algorithm.prepare_key(key), digestmod=algorithm.hash_alg)

    def mac(signing_input: bytes) -> bytes:
        copy = prepared.copy()
        copy.update(signing_input)
        return copy.digest()

    return mac


_pieces: Any = json.encoder.c_make_encoder(  # type: ignore[attr-defined] # JSONEncoder makes one anew for each value
    None, None, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)


def _encode(value: dict[str, Any]) -> str:
    """As compact JSON, in ASCII."""
    return "".join(_pieces(value, 0))


_URL_SAFE = bytes.maketrans(b"+/", b"-_")  # RFC 4648 §5


def _base64url(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=")  # as base64.urlsafe_b64encode, shorter
