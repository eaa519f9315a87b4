"""Read keys in every usual form, and say what is wrong with one without ever repeating it."""

import json
import math
import re
import string
from typing import Any

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.exceptions import InvalidKeyError

from ..config.errors import SettingsError
from .algorithms import ALGORITHMS, AUTO, ED25519, GENERATE, NEW_KEY, implementation
from .keys import ANY_KEY, END_OF_TIME, Key, KeyRequest, make

_PRIVATE_KEY = "name the file of the private key; jwtproxy-run keys new makes one"
_CURVES = ("P-256", "P-384", "P-521", "Ed25519")
_LONGEST_NAME = 15
_DEFAULT_ALGORITHMS = {"oct": "HS512", "RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
_PRIVATE = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")  # PKCS#8, PKCS#1, SEC1
_PUBLIC = ("PUBLIC KEY", "RSA PUBLIC KEY")
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)

_IN_A_FILE = "a key in PEM or JWK form belongs in a file: JWT_KEY_FILE"
_NOT_HEX = (
    (re.compile("-----BEGIN"), "holds a key in PEM form", _IN_A_FILE),
    (re.compile(r"^\{"), "holds a key in JWK form", _IN_A_FILE),
    (re.compile("^['\"`\u2018\u201c]"), "is in quotes", "remove them"),
    (re.compile("^0[xX]"), "begins with 0x", "remove that"),
    # Of so many random letters, some are capitals and some not, and there are digits; a phrase is not like that.
    (
        re.compile(r"^(?=.*[A-Z])(?=.*[a-z])(?=.*[0-9])[A-Za-z0-9+/_-]{16,}={0,2}\Z"),
        "looks like base64",
        "turn it into hexadecimal with: base64 -d | od -An -vtx1",
    ),
)
"""What people write for a shared secret that is none, white space removed: how to tell, what it is, what to do."""


def parse(text: str, place: str, request: KeyRequest = ANY_KEY) -> list[Key]:
    """The keys of a file: PEM, JWK, JWKS or a shared secret in hexadecimal. Raises SettingsError."""
    if not text.strip():
        raise SettingsError(f"{place} is empty", NEW_KEY)
    if "-----BEGIN " in text:
        return [_pem(text, place, request)]
    if text.lstrip().startswith("{"):
        return _json(text, place, request)
    if text.strip().strip(string.hexdigits + string.whitespace):
        raise SettingsError(f"{place} holds no key: neither PEM, nor JWK, nor hexadecimal", NEW_KEY)
    return [shared(decode_hex(text, place), place, request)]


def shared(secret: bytes, place: str, request: KeyRequest = ANY_KEY) -> Key:
    """A shared secret as a key. Raises SettingsError where it is shorter than its hash (RFC 7518 §3.2)."""
    return make(secret, place, request)


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
            f"{place} has an odd number of hexadecimal digits ({len(digits)})",
            "is a digit missing at either end?",
        )
    kind, hint = next(
        ((kind, hint) for form, kind, hint in _NOT_HEX if form.search(digits)),
        ("", f"use only the digits 0-9 and a-f; {GENERATE}"),
    )
    raise SettingsError(f"{place} is not hexadecimal{kind and ': it '}{kind}", hint)


def _pem(text: str, place: str, request: KeyRequest) -> Key:
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
        raise SettingsError(
            f"{place} holds something other than a key: {', '.join(labels).lower() or 'an unknown kind of PEM block'}",
            hint,
        )
    label = (private or public)[0]
    if label not in blocks:
        raise SettingsError(f"{place} is cut short", "is it still being written?")
    if private:
        return make(_load_private(blocks[label], label, place, request.passphrase), place, request)
    return make(_load(load_pem_public_key, place, blocks[label].encode()), place, request)


def _load_private(block: str, label: str, place: str, passphrase: bytes | None) -> Any:
    encrypted = label.startswith("ENCRYPTED") or "Proc-Type: 4,ENCRYPTED" in block
    if not encrypted:
        return _load(load_pem_private_key, place, block.encode(), None)
    if passphrase is None:
        raise SettingsError(
            f"{place} is encrypted", "give its passphrase in JWT_KEY_PASSPHRASE or JWT_KEY_PASSPHRASE_FILE"
        )
    try:
        return load_pem_private_key(block.encode(), passphrase)
    except (ValueError, UnsupportedAlgorithm, InternalError):
        hint = "is JWT_KEY_PASSPHRASE or JWT_KEY_PASSPHRASE_FILE the passphrase of this key?"
        raise SettingsError(f"the passphrase does not decrypt {place}", hint) from None


def _load(load: Any, place: str, *arguments: Any) -> Any:
    try:
        return load(*arguments)
    except SettingsError:
        raise
    except UnsupportedAlgorithm:
        raise SettingsError(f"{place} holds a key of an unknown kind", NEW_KEY) from None
    except (ValueError, TypeError, InternalError):  # the last where what OpenSSL says is not known to cryptography
        raise SettingsError(f"{place} holds a damaged key", f"copy it again, or {NEW_KEY}") from None


def _json(text: str, place: str, request: KeyRequest) -> list[Key]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError(f"{place} is not JSON", "is it still being written?") from None
    if "keys" not in found:
        return [_jwk(found, place, request)]
    members = found["keys"]
    if not isinstance(members, list) or not members or not all(isinstance(one, dict) for one in members):
        raise SettingsError(f"{place} holds no keys", 'a JWKS is {"keys": [{…}, …]} (RFC 7517 §5)')
    if request.kid and len(members) > 1:
        raise SettingsError(
            f"{place} holds several keys, but jwt_kid names only one", "give each its own kid in the file"
        )
    return [_jwk(one, f"{place} key {number}", request) for number, one in enumerate(members, 1)]


def _jwk(jwk: dict[str, Any], place: str, request: KeyRequest) -> Key:
    """One key of RFC 7517; `nbf` and `exp`, if there, say when it signs."""
    for name in ("kty", "use", "alg", "kid", "crv"):
        if not isinstance(jwk.get(name, ""), str):
            raise SettingsError(f"{place}: {name!r} is not a string", "see RFC 7517 §4")
    if jwk.get("use", "sig") != "sig":
        raise SettingsError(f"{place} is for {_named(jwk['use'])}, not for signatures", 'its use must be "sig"')
    if jwk.get("alg", ALGORITHMS[0]) not in ALGORITHMS:
        raise SettingsError(
            f"{place} is for {_named(jwk['alg'])}, which cannot sign tokens here", f"use one of {', '.join(ALGORITHMS)}"
        )
    alg = _agreed(jwk.get("alg") or AUTO, request.algorithm)
    if not alg:
        hint = "unset jwt_algorithm, or use another key"
        raise SettingsError(f"{place} is for {jwk['alg']}, not {request.algorithm}", hint)
    times = _number(jwk, "nbf", place, -math.inf), _number(jwk, "exp", place, math.inf)
    request = KeyRequest(alg, request.kid or jwk.get("kid", ""))
    return make(_load(_from_jwk, place, jwk, place), place, request, *times)


def _named(value: str | None) -> str:
    """A name of RFC 7518 as errors show it; what is too long for one may be a part of the key where a quote is lost."""
    return "'…'" if value and len(value) > _LONGEST_NAME else repr(value)


def _agreed(said: str, asked: str) -> str | None:
    """The algorithm of a key that says one and is asked for another; None if these are not the same."""
    if AUTO in (said, asked) or said == asked:
        return said if asked == AUTO else asked
    return asked if said in ED25519 and asked in ED25519 else None


def _from_jwk(jwk: dict[str, Any], place: str) -> Any:
    kty = jwk.get("kty")
    if kty not in _DEFAULT_ALGORITHMS:
        raise SettingsError(f"{place}: bad kty {_named(kty)}", f"use one of {', '.join(_DEFAULT_ALGORITHMS)}")
    if jwk.get("crv", "Ed25519") not in _CURVES:
        said = f"{place} is on the unsupported curve {_named(jwk['crv'])}"
        raise SettingsError(said, f"use one of {', '.join(_CURVES)}")
    try:
        return implementation(_DEFAULT_ALGORITHMS[kty]).from_jwk(jwk)
    except (InvalidKeyError, KeyError, AttributeError) as error:
        raise ValueError from error  # what PyJWT finds wrong is for _load to say


def _number(jwk: dict[str, Any], name: str, place: str, default: float) -> float:
    value = jwk.get(name, default)
    if type(value) not in (int, float) or not (value == default or 0 <= value < END_OF_TIME):
        raise SettingsError(f"{place}: bad {name!r}", "use seconds, not milliseconds, since 1970 (RFC 7519 §2)")
    return float(value)
