"""Read signing keys in every usual form, and say what is wrong with one without ever repeating it."""

import hashlib
import json
import math
import re
import string
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import InvalidKeyError

from .errors import SettingsError
from .settings import ALGORITHMS
from .signing import Signer

RSA_BITS = 2048
"""RFC 7518 §3.3."""

GENERATE = "make one with: openssl rand -hex 64"
_NEW = "make one with: jwtproxy-run keys new"
_PRIVATE_KEY = "name the file of the private key; jwtproxy-run keys new makes one"
_CURVES: dict[str, tuple[str, ...]] = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
END_OF_TIME = 253_402_300_800
"""The year 10000, in seconds since 1970."""
_CURVE_NAMES = ("P-256", "P-384", "P-521", "Ed25519")
_RSA = tuple(name for name in ALGORITHMS if name[:2] in ("RS", "PS"))
# RFC 2104 takes any key; RFC 7518 §3.2 wants one at least as long as the hash. The first is what `auto` takes.
HMAC_BYTES = {"HS512": 64, "HS384": 48, "HS256": 32}
_PRIVATE = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")  # PKCS#8, PKCS#1, SEC1
_PUBLIC = ("PUBLIC KEY", "RSA PUBLIC KEY")
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
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
class Wish:
    """What is asked of a key that its file does not say, or says otherwise."""

    algorithm: str = "auto"
    kid: str = ""
    passphrase: bytes | None = field(default=None, repr=False)


def parse(text: str, place: str, wish: Wish = Wish()) -> list[Key]:
    """The keys of a file: PEM, JWK, JWKS or a shared secret in hexadecimal. Raises SettingsError."""
    if not text.strip():
        raise SettingsError(f"{place} is empty", _NEW)
    if "-----BEGIN " in text:
        return [_pem(text, place, wish)]
    if text.lstrip().startswith("{"):
        return _json(text, place, wish)
    if text.strip().strip(string.hexdigits + string.whitespace):
        raise SettingsError(f"{place} holds no key: neither PEM, nor JWK, nor hexadecimal", _NEW)
    return [shared(decode_hex(text, place), place, wish)]


def shared(secret: bytes, place: str, wish: Wish = Wish()) -> Key:
    """A shared secret as a key. Raises SettingsError where it is shorter than its hash (RFC 7518 §3.2)."""
    return _key(secret, place, wish)


def decode_hex(text: str, place: str) -> bytes:
    """A shared secret written in hexadecimal, white space ignored. Raises SettingsError."""
    digits = "".join(text.split())
    if not digits:
        raise SettingsError(f"{place} is empty", GENERATE)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        pass  # raised below, outside this block: the exception's context would carry the secret's position
    if len(digits) % 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise SettingsError(
            f"{place} has an odd number of hexadecimal digits ({len(digits)})", "is one missing at an end?"
        )
    if text.lstrip().startswith(("-----BEGIN ", "{")):
        raise SettingsError(f"{place} is not hexadecimal", "a key in PEM or JWK form belongs in a file: JWT_KEY_FILE")
    raise SettingsError(f"{place} is not hexadecimal", f"use the digits 0-9 and a-f only; {GENERATE}")


def thumbprint(public: Mapping[str, str]) -> str:
    """The SHA-256 thumbprint of a public JWK (RFC 7638 §3)."""
    members = {name: public[name] for name in _MEMBERS[public["kty"]]}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _pem(text: str, place: str, wish: Wish) -> Key:
    blocks = {match[1]: match[0] for match in _BLOCK.finditer(text)}
    labels = re.findall("-----BEGIN ([A-Z0-9 ]+)-----", text)
    private = [label for label in labels if label in _PRIVATE]
    public = [label for label in labels if label in _PUBLIC]
    if len(private) > 1 or (not private and len(public) > 1):
        raise SettingsError(f"{place} holds several keys", "use one file for each key, in a folder: jwt_key_dir")
    if not private and not public:
        hint = (
            "turn it into PEM with: ssh-keygen -p -m PKCS8 -f FILE" if "OPENSSH PRIVATE KEY" in labels else _PRIVATE_KEY
        )
        raise SettingsError(f"{place} holds no key but: {', '.join(labels).lower() or 'something else'}", hint)
    label = (private or public)[0]
    if label not in blocks:
        raise SettingsError(f"{place} is cut short", "is it still being written?")
    if private:
        return _key(_load_private(blocks[label], label, place, wish.passphrase), place, wish)
    return _key(_load(load_pem_public_key, place, blocks[label].encode()), place, wish)


def _load_private(block: str, label: str, place: str, passphrase: bytes | None) -> Any:
    encrypted = label.startswith("ENCRYPTED") or "Proc-Type: 4,ENCRYPTED" in block
    if not encrypted:
        return _load(load_pem_private_key, place, block.encode(), None)
    if passphrase is None:
        raise SettingsError(
            f"{place} is encrypted", "give its pass phrase in JWT_KEY_PASSPHRASE or JWT_KEY_PASSPHRASE_FILE"
        )
    try:
        return load_pem_private_key(block.encode(), passphrase)
    except (ValueError, UnsupportedAlgorithm):
        hint = "is what JWT_KEY_PASSPHRASE or JWT_KEY_PASSPHRASE_FILE says that of this key?"
        raise SettingsError(f"the pass phrase does not open {place}", hint) from None


def _load(load: Any, place: str, *arguments: Any) -> Any:
    try:
        return load(*arguments)
    except SettingsError:
        raise
    except UnsupportedAlgorithm:
        raise SettingsError(f"{place} holds a key of an unknown kind", _NEW) from None
    except (ValueError, TypeError):
        raise SettingsError(f"{place} holds a key that is damaged", f"copy it anew, or {_NEW}") from None


def _json(text: str, place: str, wish: Wish) -> list[Key]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError(f"{place} is not JSON", "is it still being written?") from None
    if "keys" not in found:
        return [_jwk(found, place, wish)]
    members = found["keys"]
    if not isinstance(members, list) or not members or not all(isinstance(one, dict) for one in members):
        raise SettingsError(f"{place} holds no keys", 'a JWKS is {"keys": [{…}, …]} (RFC 7517 §5)')
    if wish.kid and len(members) > 1:
        raise SettingsError(f"{place} holds several keys, jwt_kid names one", "give each its own kid in the file")
    return [_jwk(one, f"{place} key {number}", wish) for number, one in enumerate(members, 1)]


def _jwk(jwk: dict[str, Any], place: str, wish: Wish) -> Key:
    """One key of RFC 7517; `nbf` and `exp`, if there, say when it signs."""
    for name in ("kty", "use", "alg", "kid", "crv"):
        if not isinstance(jwk.get(name, ""), str):
            raise SettingsError(f"{place}: {name!r} is not a text", "see RFC 7517 §4")
    if jwk.get("use", "sig") != "sig":
        raise SettingsError(f"{place} is for {jwk['use']!r}, not for signatures", 'its use must be "sig"')
    alg = jwk.get("alg") or wish.algorithm
    if jwk.get("alg", ALGORITHMS[0]) not in ALGORITHMS:
        raise SettingsError(
            f"{place} is for {alg!r}, which signs no tokens here", f"use one of {', '.join(ALGORITHMS)}"
        )
    if alg != "auto" and wish.algorithm not in ("auto", alg):
        raise SettingsError(f"{place} is for {alg}, not {wish.algorithm}", "unset jwt_algorithm, or take another key")
    times = _number(jwk, "nbf", place, -math.inf), _number(jwk, "exp", place, math.inf)
    wish = Wish(alg, wish.kid or jwk.get("kid", ""))
    return _key(_load(_from_jwk, place, jwk, place), place, wish, *times)


def _from_jwk(jwk: dict[str, Any], place: str) -> Any:
    algorithms = {"oct": "HS512", "RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
    kty = jwk.get("kty")
    if kty not in algorithms:
        raise SettingsError(f"{place}: bad kty {kty!r}", f"use one of {', '.join(algorithms)}")
    if jwk.get("crv", "Ed25519") not in _CURVE_NAMES:
        raise SettingsError(f"{place} is on the curve {jwk['crv']!r}", f"use one of {', '.join(_CURVE_NAMES)}")
    try:
        return get_default_algorithms()[algorithms[kty]].from_jwk(jwk)
    except (InvalidKeyError, KeyError, AttributeError) as error:
        raise ValueError from error  # what PyJWT finds wrong is for _load to say


def _number(jwk: dict[str, Any], name: str, place: str, default: float) -> float:
    value = jwk.get(name, default)
    if type(value) not in (int, float) or not (value == default or 0 <= value < END_OF_TIME):
        raise SettingsError(f"{place}: bad {name!r}", "use seconds, not milliseconds, since 1970 (RFC 7519 §2)")
    return float(value)


def _key(material: Any, place: str, wish: Wish, not_before: float = -math.inf, not_after: float = math.inf) -> Key:
    algorithm = _fitting(material, place, wish.algorithm)
    if isinstance(material, bytes):
        return Key(algorithm, wish.kid, place, None, material, not_before, not_after)
    signs = hasattr(material, "sign")
    public = get_default_algorithms()[algorithm].to_jwk(material.public_key() if signs else material, as_dict=True)
    public = {name: public[name] for name in _MEMBERS[public["kty"]]}
    kid = wish.kid or thumbprint(public)
    public |= {"use": "sig", "alg": algorithm, "kid": kid}
    return Key(algorithm, kid, place, public, material if signs else None, not_before, not_after)


def _fitting(material: Any, place: str, wanted: str) -> str:
    """The algorithm to use this key with (RFC 7518 §3.1, RFC 8037 §3.1). Raises SettingsError."""
    kind, algorithms = _kind(material, place)
    algorithm = algorithms[0] if wanted == "auto" else wanted
    if algorithm not in algorithms:
        hint = f"it fits {', '.join(algorithms)}: use one of these as the algorithm, or auto"
        raise SettingsError(f"{place} holds {kind}, which does not fit {algorithm}", hint)
    if isinstance(material, bytes) and len(material) < HMAC_BYTES[algorithm]:
        raise SettingsError(
            f"{place} has {len(material)} bytes, {algorithm} wants at least {HMAC_BYTES[algorithm]}",
            f"make one with: openssl rand -hex {HMAC_BYTES[algorithm]}",
        )
    try:
        get_default_algorithms()[algorithm].prepare_key(material)
    except InvalidKeyError:
        raise SettingsError(f"{place} is not a secret: it is a public key or the like", GENERATE) from None
    return algorithm


def _kind(material: Any, place: str) -> tuple[str, tuple[str, ...]]:
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
        raise SettingsError(f"{place} holds a key on the curve {material.curve.name}, which is not used here", hint)
    if isinstance(material, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)):
        return "an Ed25519 key", ("EdDSA",)
    kind = type(material).__name__.removesuffix("PrivateKey").removesuffix("PublicKey").lstrip("_")
    raise SettingsError(f"{place} holds a key of the kind {kind}, which signs no tokens", _NEW)
