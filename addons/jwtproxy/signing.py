"""Turn claims into a token."""

import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

from jwt.algorithms import HMACAlgorithm, get_default_algorithms


class Signer:
    """Signs with one key, prepared once: PyJWT's `encode` prepares it anew for each token. Never shows it."""

    def __init__(self, key: bytes, algorithm: str) -> None:
        hmac_algorithm = get_default_algorithms()[algorithm]
        assert isinstance(hmac_algorithm, HMACAlgorithm)
        self._head = _base64url(json.dumps({"alg": algorithm, "typ": "JWT"}, separators=(",", ":")).encode()) + b"."
        self._mac = hmac.new(hmac_algorithm.prepare_key(key), digestmod=hmac_algorithm.hash_alg)

    def sign(self, claims: dict[str, Any]) -> str:
        """The claims as a compact JWS (RFC 7515 §7.1)."""
        signing_input = self._head + _base64url(_encode(claims).encode())
        mac = self._mac.copy()
        mac.update(signing_input)
        return (signing_input + b"." + _base64url(mac.digest())).decode()


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
