"""A key: what it signs with, what is published of it, and when it may sign."""

import hashlib
import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import algorithms
from .signing import Signer

END_OF_TIME = 253_402_300_800
"""The year 10000, in seconds since 1970."""

# What identifies a key (RFC 7638 §3.2, RFC 8037 §2), and nothing that is private.
_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


@dataclass(frozen=True, eq=False)
class Key:
    """A key that signs, or one that is only published for what it has signed elsewhere or before."""

    algorithm: str
    kid: str
    """Empty for a shared secret that was given none."""
    place: str
    """The file or variable it comes from."""
    public: Mapping[str, str] | None
    """As a public JWK (RFC 7517); None for a shared secret."""
    private: Any = field(default=None, repr=False)
    """bytes, or cryptography's private key; None where there is only the public one."""
    not_before: float = -math.inf
    not_after: float = math.inf
    """When it signs: seconds since the epoch, the first included, the last not."""

    def signer(self, typ: str = "JWT") -> Signer:
        """Something that signs with it, to be kept: this takes a while."""
        return Signer(self.private, self.algorithm, self.kid, typ)


@dataclass(frozen=True)
class KeyRequest:
    """What is asked of a key that its file does not say, or says otherwise."""

    algorithm: str = algorithms.AUTO
    kid: str = ""
    passphrase: bytes | None = field(default=None, repr=False)


ANY_KEY = KeyRequest()
"""Nothing is asked."""


def make(
    material: Any, place: str, request: KeyRequest, not_before: float = -math.inf, not_after: float = math.inf
) -> Key:
    """A key of bytes or of one of cryptography's keys. Raises SettingsError where it does not fit the request."""
    algorithm = algorithms.fitting(material, place, request.algorithm)
    if isinstance(material, bytes):
        return Key(algorithm, request.kid, place, None, material, not_before, not_after)
    signs = hasattr(material, "sign")
    public_key = material.public_key() if signs else material
    jwk: dict[str, str] = algorithms.implementation(algorithm).to_jwk(public_key, as_dict=True)
    public = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    kid = request.kid or thumbprint(public)
    public |= {"use": "sig", "alg": algorithm, "kid": kid}
    return Key(algorithm, kid, place, public, material if signs else None, not_before, not_after)


def thumbprint(public: Mapping[str, str]) -> str:
    """The SHA-256 thumbprint of a public JWK (RFC 7638 §3)."""
    members = {name: public[name] for name in _MEMBERS[public["kty"]]}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
