"""Turn claims into a token."""

from typing import Any

import jwt


class Signer:
    """Signs with one key. Never shows it."""

    def __init__(self, key: bytes, algorithm: str) -> None:
        self._key = key
        self._algorithm = algorithm

    def sign(self, claims: dict[str, Any]) -> str:
        """The claims as a compact JWS (RFC 7515 §7.1)."""
        return jwt.encode(claims, self._key, self._algorithm)
