"""Turn claims into a token."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


class Signer:
    """Signs with one key, prepared once: PyJWT checks the key and hashes it anew for each token. Never shows it."""

    def __init__(self, key: bytes, algorithm: str) -> None:
        self._head = _base64url(json.dumps({"alg": algorithm, "typ": "JWT"}, separators=(",", ":")).encode()) + b"."
        self._mac = hmac.new(key, digestmod=_HASHES[algorithm])

    def sign(self, claims: dict[str, Any]) -> str:
        """The claims as a compact JWS (RFC 7515 §7.1)."""
        signing_input = self._head + _base64url(_encode(claims).encode())
        mac = self._mac.copy()
        mac.update(signing_input)
        return (signing_input + b"." + _base64url(mac.digest())).decode()


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
