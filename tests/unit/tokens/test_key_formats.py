"""A signing key is read in every usual form; what is wrong with one is said, and nothing of it repeated."""

from __future__ import annotations

import functools
import json
import math
import re
import secrets
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from jwt.algorithms import RSAAlgorithm

from jwtproxy.config.errors import SettingsError
from jwtproxy.tokens.algorithms import ALGORITHMS
from jwtproxy.tokens.key_formats import decode_hex, parse, shared
from jwtproxy.tokens.keys import Key, KeyRequest

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864, in favour of a new name

PLACE = "JWT_KEY_FILE 'key'"
PHRASE = b"open sesame"
NOTHING_ASKED, OPENS = KeyRequest(), KeyRequest(passphrase=PHRASE)
SECRET = secrets.token_bytes(64)
BASE64 = b64encode(b"+/" + bytes(range(60, 122))).decode()

RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
P256, P384, P521 = (ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1))
ED25519 = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": P256, "ES384": P384, "ES512": P521, "EdDSA": ED25519}
"""By what signs with them unless something else is asked."""

EC_PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
"""What `openssl ecparam -genkey` puts before a key on P-256."""


def _pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, phrase: bytes | None = None) -> str:
    encryption: KeySerializationEncryption = BestAvailableEncryption(phrase) if phrase else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, form, encryption).decode())


def _public_pem(key: Any, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, form).decode())


def _jwk(key: Any, *, private: bool = True, **members: Any) -> dict[str, Any]:
    """As a library other than ours writes it."""
    return {**_members(key, private), **members}


@functools.cache
def _members(key: Any, private: bool) -> dict[str, Any]:
    kind: Any = ECKey
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        kind = RSAKey if isinstance(key, rsa.RSAPrivateKey) else OKPKey
    found = dict(kind.import_key(_pem(key)).as_dict(private=private))
    found.pop("kid", None)
    return found


def _oct(secret: bytes, **members: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": urlsafe_b64encode(secret).rstrip(b"=").decode(), **members}


def _one(text: str | dict[str, Any], request: KeyRequest = NOTHING_ASKED) -> Key:
    (key,) = parse(json.dumps(text) if isinstance(text, dict) else text, PLACE, request)
    return key


def _verifies(key: Key, public: Any) -> bool:
    """Whether another library accepts what the key signs."""
    token = jwt.decode(key.signer().sign({"a": 1}), public, algorithms=[key.algorithm])
    assert token.header == {"alg": key.algorithm, "typ": "JWT"} | ({"kid": key.kid} if key.kid else {})
    return bool(token.claims == {"a": 1})


def _imported(public: Any) -> Any:
    kinds: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    return kinds[public["kty"]].import_key(public)


# --- forms


def _forms() -> Iterator[Any]:
    """Every private key in every form it has."""
    for algorithm, key in KEYS.items():
        pem = _pem(key)
        forms = {
            "PKCS#8": (pem, KeyRequest()),
            "PKCS#8 encrypted": (_pem(key, phrase=PHRASE), OPENS),
            "not encrypted though there is a phrase": (pem, OPENS),
            "CRLF": (pem.replace("\n", "\r\n"), KeyRequest()),
            "with remarks": (f"Bag Attributes\n  friendlyName: x\n{pem}\nthat is all\n", KeyRequest()),
            "with its public key": (pem + _public_pem(key), KeyRequest()),
            "after its public key": (_public_pem(key) + pem, KeyRequest()),
            "JWK": (json.dumps(_jwk(key)), KeyRequest()),
            "JWKS": ("\n " + json.dumps({"keys": [_jwk(key)]}, indent=1), KeyRequest()),
        }
        if key is not ED25519:  # PKCS#1 and SEC1
            forms["traditional"] = (_pem(key, PrivateFormat.TraditionalOpenSSL), KeyRequest())
            locked = _pem(key, PrivateFormat.TraditionalOpenSSL, PHRASE)
            assert "Proc-Type: 4,ENCRYPTED" in locked
            forms["traditional encrypted"] = (locked, OPENS)
        if key is P256:
            forms["openssl ecparam"] = (EC_PARAMETERS + forms["traditional"][0], KeyRequest())
        for name, (text, request) in forms.items():
            yield pytest.param(algorithm, text, request, id=f"{algorithm} {name}")


@pytest.mark.parametrize(("algorithm", "text", "asked"), list(_forms()))
def test_every_form_is_the_same_key(algorithm: str, text: str, asked: KeyRequest) -> None:
    key = _one(text, asked)
    assert (key.algorithm, key.place.startswith(PLACE)) == (algorithm, True)
    assert (key.not_before, key.not_after) == (-math.inf, math.inf)
    assert key.public
    assert _verifies(key, _imported(_jwk(KEYS[algorithm], private=False)))
    assert key.kid == _imported(key.public).thumbprint(), "RFC 7638, as others compute it"


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_is_published_and_signs_nothing(algorithm: str) -> None:
    private = KEYS[algorithm]
    texts = [_public_pem(private), json.dumps(_jwk(private, private=False))]
    if private is RSA:
        texts.append(_public_pem(private, PublicFormat.PKCS1))
    signing = _one(_pem(private))
    for text in texts:
        key = _one(text)
        assert key.private is None
        assert key.public == signing.public


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_public_jwk_holds_what_verifies_and_nothing_else(algorithm: str) -> None:
    members = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}
    for text in (_pem(KEYS[algorithm]), json.dumps(_jwk(KEYS[algorithm], key_ops=["sign"], exp=9e9, other="x"))):
        public = _one(text).public
        assert public
        assert set(public) == members[public["kty"]] | {"kty", "use", "alg", "kid"}
        assert (public["use"], public["alg"]) == ("sig", algorithm)
        assert public.items() >= _jwk(KEYS[algorithm], private=False).items()


def test_coordinates_have_their_full_length() -> None:
    """RFC 7518 §6.2.1.2: also those that begin with zeros, as every second on P-521 does."""
    for _ in range(8):
        public = _one(_pem(ec.generate_private_key(ec.SECP521R1()))).public
        assert public
        assert [len(urlsafe_b64decode(public[name] + "==")) for name in "xy"] == [66, 66]


@pytest.mark.parametrize(
    "text",
    [SECRET.hex(), SECRET.hex().upper() + "\n", "\n".join(re.findall(".{8}", SECRET.hex())), _oct(SECRET)],
    ids=["hexadecimal", "upper case", "wrapped", "JWK"],
)
def test_a_shared_secret_has_no_kid_and_is_not_published(text: str | dict[str, Any]) -> None:
    key = _one(text)
    assert (key.algorithm, key.kid, key.public, key.private) == ("HS512", "", None, SECRET)
    assert _verifies(key, OctKey.import_key(SECRET))
    named = _one(text, KeyRequest(kid="k1"))
    assert named.kid == "k1"
    assert _verifies(named, OctKey.import_key(SECRET))
    assert shared(SECRET, PLACE).private == SECRET


def test_a_jwks_holds_any_number_in_order() -> None:
    members = [_jwk(P256, kid="a"), _oct(SECRET, kid="b"), _jwk(ED25519, private=False), _jwk(RSA, alg="PS384")]
    found = parse(json.dumps({"keys": members}), PLACE)
    assert [key.algorithm for key in found] == ["ES256", "HS512", "EdDSA", "PS384"]
    assert [key.kid for key in found][:2] == ["a", "b"]
    assert [key.place for key in found] == [f"{PLACE} key {number}" for number in (1, 2, 3, 4)]
    assert [key.private is None for key in found] == [False, False, True, False]


# --- which algorithm

FITTING = {
    **{family + bits: RSA for family in ("RS", "PS") for bits in ("256", "384", "512")},
    **{algorithm: key for algorithm, key in KEYS.items() if key is not RSA},
    "Ed25519": ED25519,
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_signs_with_a_key_that_fits(algorithm: str) -> None:
    if algorithm.startswith("HS"):
        secret = SECRET[: int(algorithm[2:]) // 8]
        assert _verifies(_one(secret.hex(), KeyRequest(algorithm)), OctKey.import_key(secret))
        return
    key = _one(_pem(FITTING[algorithm]), KeyRequest(algorithm))
    assert (key.algorithm, key.public and key.public["alg"]) == (algorithm, algorithm)
    assert _verifies(key, _imported(key.public))
    assert key.kid == _one(_pem(FITTING[algorithm])).kid, "the algorithm is no part of a thumbprint"


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_that_does_not_fit_is_refused(key: Any, algorithm: str) -> None:
    if FITTING.get(algorithm) is key:
        return
    for text in (_pem(key), _public_pem(key), json.dumps(_jwk(key))):
        with pytest.raises(SettingsError, match=rf" holds a.*, which does not fit {algorithm}$") as caught:
            _one(text, KeyRequest(algorithm))
        assert "an algorithm that it fits: " in caught.value.hint


@pytest.mark.parametrize("algorithm", FITTING)
def test_a_shared_secret_fits_hmac_alone(algorithm: str) -> None:
    for text in (SECRET.hex(), json.dumps(_oct(SECRET)), json.dumps(_oct(SECRET, alg=algorithm))):
        with pytest.raises(SettingsError, match=rf" holds a shared secret, which does not fit {algorithm}$"):
            _one(text, KeyRequest(algorithm))


@pytest.mark.parametrize("algorithm", ["none", "None", "ES256K", "RSA-OAEP", "A128KW", "HS1"])
@pytest.mark.parametrize("jwk", [_jwk(RSA), _jwk(P256, private=False), _oct(SECRET)], ids=["RSA", "EC", "oct"])
def test_what_signs_no_tokens_is_no_algorithm(algorithm: str, jwk: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=algorithm):
        _one(jwk | {"alg": algorithm})


# --- what a JWK says of itself


def test_a_jwk_says_how_it_signs_under_which_name_and_when() -> None:
    key = _one(_jwk(RSA, alg="PS256", kid="2026", use="sig", nbf=5, exp=7.5))
    assert (key.algorithm, key.kid, key.not_before, key.not_after) == ("PS256", "2026", 5.0, 7.5)
    assert key.public
    assert (key.public["alg"], key.public["kid"]) == ("PS256", "2026")
    assert _verifies(key, _imported(_jwk(RSA, private=False)))


def test_what_is_asked_counts_where_the_jwk_is_silent() -> None:
    assert _one(_jwk(RSA), KeyRequest("RS512")).algorithm == "RS512"
    assert _one(_jwk(RSA, alg="RS512"), KeyRequest("RS512")).algorithm == "RS512"
    assert _one(_oct(SECRET, alg="HS256")).algorithm == "HS256"
    assert _one(_jwk(RSA, kid="own"), KeyRequest(kid="asked")).kid == "asked"
    assert _one(_jwk(RSA, kid="")).kid == _one(_pem(RSA)).kid


@pytest.mark.parametrize("asked", ["auto", "EdDSA", "Ed25519"])
@pytest.mark.parametrize("said", ["", "EdDSA", "Ed25519"])
def test_an_ed25519_key_has_two_names_for_its_algorithm(said: str, asked: str) -> None:
    """RFC 9864 §2.2: one algorithm. Tokens and JWKS have the name that was asked for, else what the key says."""
    members: dict[str, Any] = {"alg": said} if said else {}
    for private in (True, False):
        key = _one(_jwk(ED25519, private=private) | members, KeyRequest(asked))
        expected = asked if asked != "auto" else said or "EdDSA"
        assert key.public
        assert (key.algorithm, key.public["alg"]) == (expected, expected)
        assert key.kid == _one(_pem(ED25519)).kid
    key = _one(_jwk(ED25519) | members, KeyRequest(asked))
    assert _verifies(key, _imported(key.public))


@pytest.mark.parametrize("asked", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize(("jwk", "said"), [(_jwk(P256, alg="ES256"), "ES256"), (_jwk(RSA, alg="PS256"), "PS256")])
def test_no_other_algorithm_is_taken_for_either(jwk: dict[str, Any], said: str, asked: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{PLACE} is for {said}, not {asked}$"):
        _one(jwk, KeyRequest(asked))
    with pytest.raises(SettingsError, match=rf" is for {asked}, not {said}$"):
        _one(_jwk(ED25519, alg=asked), KeyRequest(said))


# --- a shared secret in hexadecimal


@pytest.mark.parametrize("text", ["00ff", "00 FF\n", "\t0\r\n0 f\vF\f"])
def test_white_space_and_case_do_not_matter(text: str) -> None:
    assert decode_hex(text, "it") == b"\x00\xff"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("", "it is empty", "openssl rand -hex 64"),
        (" \n", "it is empty", "openssl rand -hex 64"),
        ("abc", "it has an odd number of hexadecimal digits (3)", "is a digit missing at either end?"),
        ("ABCDEF0123456789a", "it has an odd number of hexadecimal digits (17)", "is a digit missing at either end?"),
        ("xyz", "it is not hexadecimal", "use only the digits 0-9 and a-f; make one with: openssl rand -hex 64"),
        ("xy", "it is not hexadecimal", "use only the digits 0-9 and a-f"),
        ("٣٣", "it is not hexadecimal", "use only the digits 0-9 and a-f"),
        ("٣", "it is not hexadecimal", "use only the digits 0-9 and a-f"),
        (" -----BEGIN PRIVATE KEY-----", "it is not hexadecimal: it holds a key in PEM form", "JWT_KEY_FILE"),
        ('"-----BEGIN PRIVATE KEY-----"', "it is not hexadecimal: it holds a key in PEM form", "JWT_KEY_FILE"),
        ('\n{"kty": "oct"}', "it is not hexadecimal: it holds a key in JWK form", "JWT_KEY_FILE"),
        (f'"{"ab" * 64}"', "it is not hexadecimal: it is in quotes", "remove them"),
        (f"'{'ab' * 64}'\n", "it is not hexadecimal: it is in quotes", "remove them"),
        (f"\u201c{'ab' * 64}\u201d", "it is not hexadecimal: it is in quotes", "remove them"),
        (f"'{'ab' * 64}", "it is not hexadecimal: it is in quotes", "remove them"),
        (f"0x{'ab' * 64}", "it is not hexadecimal: it begins with 0x", "remove that"),
        (BASE64, "it is not hexadecimal: it looks like base64", "base64 -d | od -An -vtx1"),
        (f"{BASE64[:44]}\n{BASE64[44:]}\n", "it is not hexadecimal: it looks like base64", "base64 -d"),
        (BASE64.rstrip("=").translate({43: 45, 47: 95}), "it is not hexadecimal: it looks like base64", "base64 -d"),
        ("correct-horse-battery-staple" * 5, "it is not hexadecimal", "use only the digits"),
        ("Tr0ub4dor&3, and what else there is", "it is not hexadecimal", "use only the digits"),
        ("ab" * 63 + "ag", "it is not hexadecimal", "use only the digits"),
    ],
)
def test_what_is_not_hexadecimal_is_said(text: str, said: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        decode_hex(text, "it")
    assert str(caught.value) == said
    assert hint in caught.value.hint
    assert caught.value.__context__ is None, "which would tell where the secret has what"


# --- refusals


def _without(jwk: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


def _openssh(key: Any) -> str:
    return _pem(key, PrivateFormat.OpenSSH)


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n"
WRONG = KeyRequest(passphrase=b"open barley")
CUT = _pem(RSA)[:400]
X448_TOO_SHORT = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VvBCIEIJ6DuVaybsQ27+Kp4gN35ir17aN1J4SS+AoFtYHePqt/
-----END PRIVATE KEY-----
"""
DAMAGED = "\n".join(line for number, line in enumerate(_pem(RSA).splitlines()) if number != 3)
UNLIKE = {"x": _jwk(ed25519.Ed25519PrivateKey.generate())["x"]}
UNLIKE_EC = {name: _jwk(ec.generate_private_key(ec.SECP256R1()))[name] for name in ("x", "y")}
WEAK = rsa.generate_private_key(65537, 1024)
WEAK_JWK = RSAAlgorithm.to_jwk(WEAK, as_dict=True)  # joserfc will not touch it

REFUSED: dict[str, tuple[Any, KeyRequest, str, str]] = {
    # what it is
    "nothing": ("", KeyRequest(), "is empty", "keys new"),
    "blank": (" \n", KeyRequest(), "is empty", "keys new"),
    "prose": ("correct horse battery staple", KeyRequest(), "holds no key: neither PEM, nor JWK, nor hex", "keys new"),
    "base64": (
        urlsafe_b64encode(SECRET).decode(),
        KeyRequest(),
        "holds no key: neither PEM, nor JWK, nor hex",
        "keys new",
    ),
    "odd hexadecimal": (SECRET.hex()[1:], KeyRequest(), "odd number of hexadecimal digits (127)", "missing"),
    "short secret": (SECRET.hex()[2:], KeyRequest(), "has 63 bytes, HS512 needs at least 64", "openssl rand -hex 64"),
    "short for HS256": (
        SECRET.hex()[:62],
        KeyRequest("HS256"),
        "has 31 bytes, HS256 needs at least 32",
        "rand -hex 32",
    ),
    "short oct": (_oct(SECRET[:63]), KeyRequest(), "has 63 bytes, HS512 needs at least 64", "openssl rand -hex 64"),
    "short oct by its alg": (
        _oct(SECRET[:47], alg="HS384"),
        KeyRequest(),
        "has 47 bytes, HS384 needs at least 48",
        "48",
    ),
    # kinds of keys
    "RSA 1024": (_pem(WEAK), KeyRequest(), "an RSA key of 1024 bits, which is too", "2048"),
    "RSA 1024, public": (_public_pem(WEAK), KeyRequest(), "an RSA key of 1024 bits, which is too weak", "2048"),
    "RSA 1024 as JWK": (WEAK_JWK, KeyRequest(), "an RSA key of 1024 bits, which is too weak", "2048"),
    "secp256k1": (_pem(ec.generate_private_key(ec.SECP256K1())), KeyRequest(), "the curve secp256k1", "P-256"),
    "Ed448": (
        _pem(ed448.Ed448PrivateKey.generate()),
        KeyRequest(),
        "of the kind Ed448, which cannot sign tokens",
        "keys new",
    ),
    "X25519": (
        _pem(x25519.X25519PrivateKey.generate()),
        KeyRequest(),
        "of the kind X25519, which cannot sign",
        "keys new",
    ),
    "DSA": (
        _pem(dsa.generate_private_key(1024)),
        KeyRequest(),
        "of the kind DSA, which cannot sign tokens",
        "keys new",
    ),
    "a certificate": (CERTIFICATE, KeyRequest(), "holds something other than a key: certificate", "keys new"),
    "OpenSSH": (
        _openssh(ED25519),
        KeyRequest(),
        "holds something other than a key: openssh private key",
        "ssh-keygen -p -m PKCS8",
    ),
    # PEM
    "two keys": (_pem(RSA) + _pem(P256), KeyRequest(), "holds several keys", "jwt_key_dir"),
    "two public keys": (_public_pem(RSA) + _public_pem(P256), KeyRequest(), "holds several keys", "jwt_key_dir"),
    "cut short": (CUT, KeyRequest(), "is cut short", "still being written"),
    "cut short in its last line": (_pem(RSA)[:-10], KeyRequest(), "is cut short", "still being written"),
    "a line missing": (DAMAGED, KeyRequest(), "holds a damaged key", "copy it again"),
    "no passphrase": (_pem(RSA, phrase=PHRASE), KeyRequest(), "is encrypted", "JWT_KEY_PASSPHRASE_FILE"),
    "wrong passphrase": (_pem(RSA, phrase=PHRASE), WRONG, "the passphrase does not decrypt", "JWT_KEY_PASSPHRASE"),
    "traditional, no passphrase": (
        _pem(P256, PrivateFormat.TraditionalOpenSSL, PHRASE),
        KeyRequest(),
        "is encrypted",
        "JWT_KEY_PASSPHRASE",
    ),
    "traditional, wrong passphrase": (
        _pem(P256, PrivateFormat.TraditionalOpenSSL, PHRASE),
        WRONG,
        "the passphrase does not decrypt",
        "JWT_KEY_PASSPHRASE",
    ),
    # JWK
    "JSON cut short": (json.dumps(_jwk(RSA))[:-9], KeyRequest(), "is not JSON", "still being written"),
    "JSON nested without end": ('{"keys":' + "[" * 100_000, KeyRequest(), "is not JSON", "still being written"),
    "an empty object": ({}, KeyRequest(), "", ""),
    "no keys": ({"keys": []}, KeyRequest(), "holds no keys", "RFC 7517"),
    "keys that is none": ({"keys": _jwk(RSA)}, KeyRequest(), "holds no keys", "RFC 7517"),
    "keys of texts": ({"keys": ["x"]}, KeyRequest(), "holds no keys", "RFC 7517"),
    "several, one kid": (
        {"keys": [_jwk(RSA), _jwk(P256)]},
        KeyRequest(kid="k"),
        "jwt_kid names only one",
        "its own kid",
    ),
    "unknown kty": (_jwk(RSA, kty="XXX"), KeyRequest(), "bad kty 'XXX'", "RSA, EC, OKP"),
    "kty that runs on": (_jwk(RSA, kty="RSA" + 16 * "x"), KeyRequest(), "bad kty '…'", "RSA, EC, OKP"),
    "crv that runs on": (_jwk(P256, crv="P-25" + 16 * "x"), KeyRequest(), "unsupported curve '…'", "P-256"),
    "alg that runs on": (_jwk(RSA, alg="RS25" + 16 * "x"), KeyRequest(), "is for '…', which", "RS256"),
    "use that runs on": (_jwk(RSA, use="sig" + 16 * "x"), KeyRequest(), "is for '…', not", '"sig"'),
    "no kty": (_without(_jwk(P256), "kty"), KeyRequest(), "kty", "RSA, EC, OKP"),
    "kty of another kind": (_jwk(P256, kty="RSA"), KeyRequest(), "holds a damaged key", "copy it again"),
    "for encryption": (_jwk(RSA, use="enc"), KeyRequest(), "is for 'enc', not for signatures", '"sig"'),
    "another algorithm": (_jwk(RSA, alg="PS256"), KeyRequest("RS256"), "is for PS256, not RS256", "jwt_algorithm"),
    "alg none": (_jwk(RSA, alg="none"), KeyRequest(), "none", ""),
    "alg of another kind": (_jwk(RSA, alg="ES256"), KeyRequest(), "holds an RSA key, which does not fit ES256", ""),
    "HS512 with a public key": (_jwk(RSA, private=False, alg="HS512"), KeyRequest(), "does not fit HS512", ""),
    "kid that is no text": (_jwk(RSA, kid=5), KeyRequest(), "'kid' is not a string", "RFC 7517"),
    "alg that is no text": (_jwk(RSA, alg=["RS256"]), KeyRequest(), "'alg' is not a string", "RFC 7517"),
    "kty that is no text": (_jwk(RSA, kty=[]), KeyRequest(), "'kty' is not a string", "RFC 7517"),
    "use that is no text": (_jwk(RSA, use=None), KeyRequest(), "'use' is not a string", "RFC 7517"),
    "nbf that is no number": (_jwk(RSA, nbf="2026-01-01"), KeyRequest(), "'nbf'", "since 1970"),
    "exp that is no number": (_jwk(RSA, exp=True), KeyRequest(), "'exp'", "since 1970"),
    "no k": ({"kty": "oct"}, KeyRequest(), "holds a damaged key", "copy it again"),
    "k that is no text": ({"kty": "oct", "k": 5}, KeyRequest(), "holds a damaged key", "copy it again"),
    "no n": (_without(_jwk(RSA), "n"), KeyRequest(), "holds a damaged key", "copy it again"),
    "n that is no text": (_jwk(RSA, n=7), KeyRequest(), "holds a damaged key", "copy it again"),
    "d that is not base64": (_jwk(P256, d="ö"), KeyRequest(), "holds a damaged key", "copy it again"),
    "half of the primes": (_without(_jwk(RSA), "q"), KeyRequest(), "holds a damaged key", "copy it again"),
    "n of another": (_jwk(RSA, n=_jwk(OTHER_RSA)["n"]), KeyRequest(), "holds a damaged key", "copy it again"),
    "d of another RSA": (
        _jwk(RSA, d=_jwk(OTHER_RSA)["d"]),
        KeyRequest(),
        "holds a damaged key",
        "copy it again",
    ),
    "x, y of another": (_jwk(P256) | UNLIKE_EC, KeyRequest(), "holds a damaged key", "copy it again"),
    "y that is not on the curve": (
        _jwk(P256, y=_jwk(P256)["x"]),
        KeyRequest(),
        "holds a damaged key",
        "copy it",
    ),
    "x of another curve": (_jwk(P256, crv="P-384"), KeyRequest(), "holds a damaged key", "copy it again"),
    "x of another Ed25519": (_jwk(ED25519) | UNLIKE, KeyRequest(), "holds a damaged key", "copy it again"),
    "no x": (_without(_jwk(ED25519), "x"), KeyRequest(), "holds a damaged key", "copy it again"),
    "short d": (_jwk(ED25519, d="AAAA"), KeyRequest(), "holds a damaged key", "copy it again"),
    "X448 of another length": (X448_TOO_SHORT, KeyRequest(), "holds a damaged key", "copy it again"),
    "a bad one among good ones": (
        {"keys": [_jwk(RSA), _jwk(P256, d="")]},
        KeyRequest(),
        f"{PLACE} key 2",
        "copy it again",
    ),
}


def _material(text: Any) -> set[str]:
    """Every run of eight characters of what must not be repeated."""
    if isinstance(text, dict):
        names = {"k", "d", "p", "q", "dp", "dq", "qi", "n", "x", "y"}
        values = [text, *text["keys"]] if isinstance(text.get("keys"), list) else [text]
        bodies = [str(value.get(name, "")) for value in values if isinstance(value, dict) for name in names]
    else:
        bodies = re.sub(r"-----[A-Z0-9 ]+-----|Proc-Type: 4,ENCRYPTED|DEK-Info: \S+", "", text).split("\n\n")
    bodies = ["".join(body.split()) for body in bodies]
    return {body[start : start + 8] for body in bodies for start in range(len(body) - 7) if "[[[[" not in body}


@pytest.mark.parametrize(("text", "asked", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_and_not_repeated(
    text: Any, asked: KeyRequest, message: str, hint: str, shown: Callable[[BaseException], str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        _one(text, asked)
    error = caught.value
    assert PLACE in str(error)
    assert message in str(error)
    assert hint in error.hint
    assert error.hint
    for line in (str(error), error.hint):
        assert "\n" not in line
        assert not line[0].isupper() or line.startswith("JWT_")
    everything = shown(error)
    assert not [run for run in _material(text) if run in everything]
    assert PHRASE.decode() not in everything
    assert "barley" not in everything


@pytest.mark.parametrize("curve", ["X25519", "P-192", ""])
def test_a_curve_that_is_not_used_here_is_not_called_damaged(curve: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _one(_jwk(ED25519 if curve == "X25519" else P256, crv=curve))
    assert PLACE in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_a_private_key_in_hexadecimal_is_no_shared_secret() -> None:
    """`xxd -p key.pem >secret` is a slip: what signs with it would fail for each request."""
    with pytest.raises(SettingsError):
        _one(_pem(ED25519).encode().hex())


@pytest.mark.parametrize("value", ["1893456000000", "1e18", "NaN", pytest.param("9" * 400, id="400 digits")])
@pytest.mark.parametrize("name", ["nbf", "exp"])
def test_a_time_that_is_none_is_refused(name: str, value: str) -> None:
    """Milliseconds are the usual slip."""
    text = json.dumps(_jwk(ED25519))[:-1] + f', "{name}": {value}}}'
    with pytest.raises(SettingsError, match=f"'{name}'"):
        _one(text)


def test_a_key_does_not_show_itself() -> None:
    for text, request in ((_pem(P256), OPENS), (SECRET.hex(), OPENS), (json.dumps(_jwk(RSA)), OPENS)):
        said = repr(_one(text, request)) + repr(request)
        assert repr(SECRET) not in said
        assert PHRASE.decode() not in said
        assert "private" not in said
        assert "object at" not in said


names = st.sampled_from("kty use alg kid crv key_ops n e d p q x y k nbf exp keys".split())
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 9) | st.text(max_size=9)
objects = st.dictionaries(names, scalars | st.lists(scalars, max_size=2), max_size=4)


@settings(max_examples=50)  # a key is not read in no time
@given(st.sampled_from(list(KEYS)), st.booleans(), objects)
def test_nothing_but_a_settings_error_is_ever_raised(algorithm: str, private: bool, changes: dict[str, Any]) -> None:
    text = json.dumps(_jwk(KEYS[algorithm], private=private) | changes)
    try:
        found = parse(text, PLACE)
    except SettingsError:
        return
    assert all(key.algorithm in ALGORITHMS for key in found)


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, PLACE)
    assert caught.value.hint
