"""Every mistake with keys, claims and rules is told at the start: status 2, one error, one hint, nothing of the key.

Most starts here are forks of one process that has imported everything (mistakes.py); those of `FRESH` are processes of
their own.
"""

from __future__ import annotations

import json
import socket
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.bare import never_unsigned, told
from tests.support.harness import SECRET, StartBare, rows, run_launcher, thorough
from tests.support.mistakes import Mistake, RunLauncher, Start, check
from tests.support.upstreams import Recorder

# --- keys, good ones and others

P256, P256_OTHER, P384 = (ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP256R1(), ec.SECP384R1()))
SECP256K1 = ec.generate_private_key(ec.SECP256K1())
RSA, RSA_OTHER, RSA_1024 = (rsa.generate_private_key(65537, bits) for bits in (2048, 2048, 1024))
ED25519, ED448 = ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()
X25519, DSA = x25519.X25519PrivateKey.generate(), dsa.generate_private_key(1024)
PHRASE, OTHER_PHRASE = "correct horse battery staple", "wrong horse battery staple"

PKCS8, PKCS1, OPENSSH = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL, PrivateFormat.OpenSSH


def pem(key: Any, form: PrivateFormat = PKCS8, phrase: str = "") -> str:
    """A private key in PEM form."""
    encryption = BestAvailableEncryption(phrase.encode()) if phrase else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, form, encryption)).decode()


def public(key: Any) -> str:
    """Its public key in PEM form."""
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).decode()


def certificate(key: Any) -> str:
    """Its public key in a certificate."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jwtproxy")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2050, 1, 1, tzinfo=UTC))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def jwk(key: Any, without: str = "", **more: Any) -> dict[str, Any]:
    """A private JWK without one member, and with others."""
    kinds: dict[type, Any] = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    kind = next((kind for of, kind in kinds.items() if isinstance(key, of)), OKPAlgorithm)
    members = {**kind.to_jwk(key, as_dict=True), **more}
    return {name: value for name, value in members.items() if name not in (without, "key_ops")}


def octets(key: Any) -> dict[str, str]:
    """`x` and `d` of a key that joserfc does not know, as RFC 8037 spells them."""
    raw = {"x": key.public_key().public_bytes_raw(), "d": key.private_bytes_raw()}
    return {name: urlsafe_b64encode(value).rstrip(b"=").decode() for name, value in raw.items()}


def jwks(*keys: Mapping[str, Any]) -> str:
    """A JWKS."""
    return json.dumps({"keys": keys})


# --- mistakes, by where they are made


def key(content: str | bytes | Mapping[str, Any], says: str, hint: str = "", **env: str) -> Mistake:
    """In the key file `key`."""
    content = json.dumps(content) if isinstance(content, Mapping) else content
    return Mistake(says, env={"JWT_KEY_FILE": "key", **env}, files={"key": content}, secret=None, hint=hint)


def folder(content: Mapping[str, str], says: str, hint: str = "", **env: str) -> Mistake:
    """In the folder of keys `keys`."""
    files = {f"keys/{name}": text for name, text in content.items()}
    return Mistake(says, env={"JWT_KEY_DIR": "keys", **env}, files=files, secret=None, hint=hint)


def manifest(text: str, says: str, hint: str = "") -> Mistake:
    """In its manifest, beside two good keys."""
    return folder({"a.pem": pem(P256), "b.pem": pem(P256_OTHER), "keys.yaml": text}, says, hint)


def option(says: str, hint: str = "", **env: str) -> Mistake:
    """In an option; where `says` is its name, the error names the value as well."""
    if (variable := says.upper()) in env:
        says = f"bad value {env[variable]!r} for {says}"
    return Mistake(says, env=env, hint=hint)


def rules(text: str | bytes, says: str, hint: str = "", **env: str) -> Mistake:
    """In the rules file."""
    return Mistake(says, env={"JWT_RULES": "rules.yaml", **env}, files={"rules.yaml": text}, hint=hint)


def rule(lines: str, says: str, hint: str = "", files: Mapping[str, str] | None = None, **env: str) -> Mistake:
    """In the only rule, whose `match` is in line 2, and these lines in those after it."""
    text = "rules:\n  - match: ~all\n" + "".join(f"    {line}\n" for line in lines.splitlines())
    made = rules(text, f"rules.yaml:{says}", hint, **env)
    return replace(made, files={**made.files, **(files or {})})


def match(text: str, says: str, hint: str = "") -> Mistake:
    """In a rule's filter."""
    return rules(f"rules:\n  - match: {text}\n", f"rules.yaml:2: {says}", hint)


CUT = pem(P256)[:120]
EC, OKP = jwk(P256), jwk(ED25519)
ALGORITHMS = "use one of auto, HS256, HS384, HS512, RS256"

SOURCES = {
    "none": Mistake("JWT_SHARED_SECRET is not set", secret=None, hint="JWT_KEY_FILE"),
    "secret-and-secret-file": Mistake(
        "both JWT_SHARED_SECRET and JWT_SHARED_SECRET_FILE", env={"JWT_SHARED_SECRET_FILE": "x"}, hint="keep one"
    ),
    "secret-and-file": Mistake("both JWT_SHARED_SECRET and JWT_KEY_FILE", env={"JWT_KEY_FILE": "x"}, hint="keep one"),
    "secret-and-folder": Mistake("both JWT_SHARED_SECRET and JWT_KEY_DIR", env={"JWT_KEY_DIR": "x"}, hint="keep one"),
    "empty-secret-and-file": key(
        pem(P256), "JWT_SHARED_SECRET is set but empty, and so conflicts with JWT_KEY_FILE", JWT_SHARED_SECRET=""
    ),
    "secret-file-and-file": key("", "both JWT_SHARED_SECRET_FILE and JWT_KEY_FILE", JWT_SHARED_SECRET_FILE="x"),
    "secret-file-and-folder": folder({}, "both JWT_SHARED_SECRET_FILE and JWT_KEY_DIR", JWT_SHARED_SECRET_FILE="x"),
    "file-and-folder": key("", "both JWT_KEY_FILE and JWT_KEY_DIR are set", "keep one", JWT_KEY_DIR="x"),
    "file-and-folder-flags": Mistake(
        "both JWT_KEY_FILE and JWT_KEY_DIR are set", ["--set", "jwt_key_file=x", "--set", "jwt_key_dir=y"]
    ),
    "file-and-folder-.env": Mistake(
        "both JWT_KEY_FILE and JWT_KEY_DIR are set", files={".env": "JWT_KEY_FILE=x\nJWT_KEY_DIR=y\n"}, secret=None
    ),
    "file-and-folder-config": Mistake(
        "both JWT_KEY_FILE and JWT_KEY_DIR are set",
        files={".mitmproxy/config.yaml": "jwt_key_file: x\njwt_key_dir: y\n"},
        secret=None,
    ),
    "empty-flag": Mistake("JWT_SHARED_SECRET is not set", ["--set", "jwt_key_file="], secret=None),
    "pass-phrase-as-option": Mistake("unknown option 'jwt_key_passphrase'", ["--set", f"jwt_key_passphrase={PHRASE}"]),
    # a flag beats all variables, a variable all of .env: the weaker one, which is good, must not be taken
    "flag-beats-variable": Mistake("'nowhere'", ["--set", "jwt_key_file=nowhere"]),
    "flag-beats-file-variable": replace(key(pem(P256), "'nowhere'"), args=["--set", "jwt_key_file=nowhere"]),
    "flag-beats-.env": Mistake(
        "'nowhere'", ["--set", "jwt_key_dir=nowhere"], files={".env": f"JWT_SHARED_SECRET={SECRET}"}, secret=None
    ),
    "variable-beats-.env": Mistake(
        "JWT_KEY_FILE 'nowhere'",
        env={"JWT_KEY_FILE": "nowhere"},
        files={".env": f"JWT_SHARED_SECRET={SECRET}"},
        secret=None,
    ),
    ".env-beats-config": Mistake(
        "JWT_KEY_DIR 'nowhere'",
        files={".env": "JWT_KEY_DIR=nowhere", ".mitmproxy/config.yaml": "jwt_key_file: key", "key": pem(P256)},
        secret=None,
    ),
    "config": Mistake("'nowhere'", files={".mitmproxy/config.yaml": "jwt_key_file: nowhere"}, secret=None),
}

KEY_FILES = {
    "missing": Mistake("cannot read JWT_KEY_FILE 'key': no such file", env={"JWT_KEY_FILE": "key"}, secret=None),
    "folder-without-keys": Mistake("no key in JWT_KEY_FILE '.'", env={"JWT_KEY_FILE": "."}, secret=None, hint="new"),
    "of-nobody": Mistake("JWT_KEY_FILE '~nobody-such/x'", env={"JWT_KEY_FILE": "~nobody-such/x"}, secret=None),
    "name-too-long": Mistake("cannot read JWT_KEY_FILE '....", env={"JWT_KEY_FILE": "." * 300}, secret=None),
    "empty": key("", "JWT_KEY_FILE 'key' is empty", "jwtproxy-run keys new"),
    "blank": key(" \n", "JWT_KEY_FILE 'key' is empty", "jwtproxy-run keys new"),
    "der": key(P256.private_bytes(Encoding.DER, PKCS8, NoEncryption()), "JWT_KEY_FILE 'key' is not text", "DER"),
    "garbage": key("quite private, but no key\n", "JWT_KEY_FILE 'key' holds no key", "jwtproxy-run keys new"),
    "ssh-public": key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHG me\n", "JWT_KEY_FILE 'key' holds no key"),
    "cut": key(CUT, "JWT_KEY_FILE 'key' is cut short", "still being written"),
    "line-lost": key(
        "".join(pem(RSA).splitlines(True)[::2][:-1]) + pem(RSA).splitlines()[-1], "key' holds a damaged key"
    ),
    "first-line-lost": key(pem(RSA).partition("\n")[2], "JWT_KEY_FILE 'key' holds no key"),
    "line-ends-spelled": key(pem(P256).replace("\n", "\\n"), "JWT_KEY_FILE 'key' holds a damaged key", "copy"),
    "certificate": key(certificate(P256), "'key' holds something other than a key: certificate", "private key"),
    "public": key(public(P256), "JWT_KEY_FILE 'key' holds only a public key", "private key"),
    "certificate-and-public": key(certificate(P256) + public(P256), "'key' holds only a public key", "private key"),
    "two": key(pem(P256) + pem(P256_OTHER), "JWT_KEY_FILE 'key' holds several keys", "jwt_key_dir"),
    "openssh": key(pem(ED25519, OPENSSH), "something other than a key: openssh private key", "ssh-keygen -p -m PKCS8"),
    "rsa-1024": key(pem(RSA_1024), "JWT_KEY_FILE 'key' holds an RSA key of 1024 bits", "2048"),
    "rsa-1024-pkcs1": key(pem(RSA_1024, PKCS1), "JWT_KEY_FILE 'key' holds an RSA key of 1024 bits", "2048"),
    "secp256k1": key(pem(SECP256K1), "'key' holds a key on the curve secp256k1", "use P-256, P-384 or P-521"),
    "ed448": key(pem(ED448), "'key' holds a key of the kind Ed448", "jwtproxy-run keys new"),
    "x25519": key(pem(X25519), "'key' holds a key of the kind X25519", "jwtproxy-run keys new"),
    "dsa": key(pem(DSA), "'key' holds a key of the kind DSA", "jwtproxy-run keys new"),
    "dsa-of-its-own-form": key(pem(DSA, PKCS1), "dsa private key", "jwtproxy-run keys new"),
    "hex-odd": key(SECRET[1:], "JWT_KEY_FILE 'key' has an odd number of hexadecimal digits (127)"),
    "hex-prefixed": key(f"0x{SECRET}", "JWT_KEY_FILE 'key' holds no key"),
    "hex-short": key(SECRET[2:], "JWT_KEY_FILE 'key' has 63 bytes, HS512 needs at least 64", "openssl rand -hex 64"),
    "pem-as-secret": Mistake("JWT_SHARED_SECRET is not hexadecimal", secret=pem(P256), hint="JWT_KEY_FILE"),
    "pem-in-secret-file": Mistake(
        "'key' is not hexadecimal",
        env={"JWT_SHARED_SECRET_FILE": "key"},
        files={"key": pem(P256)},
        secret=None,
        hint="JWT_KEY_FILE",
    ),
    # the key where the name of its file should be
    "pem-as-name": Mistake("JWT_KEY_FILE", env={"JWT_KEY_FILE": pem(P256)}, secret=None, hint="file"),
    "long-pem-as-name": Mistake("JWT_KEY_FILE", env={"JWT_KEY_FILE": pem(RSA)}, secret=None, hint="file"),
    "pem-as-flag": Mistake("JWT_KEY_FILE", ["--set", f"jwt_key_file={pem(P256)}"], hint="file"),
    "pem-as-folder": Mistake("JWT_KEY_DIR", env={"JWT_KEY_DIR": pem(P256)}, secret=None, hint="file"),
    "jwk-as-name": Mistake("JWT_KEY_FILE", env={"JWT_KEY_FILE": json.dumps(EC)}, secret=None, hint="file"),
    "hex-as-name": Mistake("JWT_SHARED_SECRET_FILE", env={"JWT_SHARED_SECRET_FILE": SECRET}, secret=None, hint="file"),
}

LOCKED = pem(P256, phrase=PHRASE)


def locked(says: str, hint: str = "", phrase_file: str | bytes | None = None, **env: str) -> Mistake:
    """With an encrypted key, and the file `phrase`."""
    made = key(LOCKED, says, hint, **env)
    return made if phrase_file is None else replace(made, files={"key": LOCKED, "phrase": phrase_file})


FROM_FILE = {"JWT_KEY_PASSPHRASE_FILE": "phrase"}
PASS_PHRASES = {
    "none": locked("JWT_KEY_FILE 'key' is encrypted", "JWT_KEY_PASSPHRASE"),
    "none-pkcs1": key(pem(RSA, PKCS1, PHRASE), "JWT_KEY_FILE 'key' is encrypted", "JWT_KEY_PASSPHRASE"),
    "empty": locked("JWT_KEY_FILE 'key' is encrypted", "JWT_KEY_PASSPHRASE", JWT_KEY_PASSPHRASE=""),
    "wrong": locked("the passphrase does not decrypt JWT_KEY_FILE 'key'", JWT_KEY_PASSPHRASE=OTHER_PHRASE),
    "wrong-pkcs1": key(pem(RSA, PKCS1, PHRASE), "the passphrase does not decrypt", JWT_KEY_PASSPHRASE=OTHER_PHRASE),
    "wrong-by-a-space": locked("the passphrase does not decrypt JWT_KEY_FILE 'key'", JWT_KEY_PASSPHRASE=f"{PHRASE} "),
    "cut": key(LOCKED[:150], "JWT_KEY_FILE 'key' is cut short", JWT_KEY_PASSPHRASE=PHRASE),
    "file-missing": locked("cannot read the file that JWT_KEY_PASSPHRASE_FILE names: no such file", **FROM_FILE),
    "file-is-a-folder": locked("JWT_KEY_PASSPHRASE_FILE names: is a directory", JWT_KEY_PASSPHRASE_FILE="."),
    "file-empty": locked("the file that JWT_KEY_PASSPHRASE_FILE names is empty", "phrase", "\n", **FROM_FILE),
    "file-wrong": locked("the passphrase does not decrypt JWT_KEY_FILE 'key'", "", f"{OTHER_PHRASE}\n", **FROM_FILE),
    "file-binary": locked("the passphrase does not decrypt JWT_KEY_FILE 'key'", "", b"\xff\xfe\x00", **FROM_FILE),
    "both": locked(
        "both JWT_KEY_PASSPHRASE and JWT_KEY_PASSPHRASE_FILE",
        "keep one",
        PHRASE,
        JWT_KEY_PASSPHRASE=PHRASE,
        **FROM_FILE,
    ),
    "both-for-a-key-that-is-open": key(
        pem(P256), "both JWT_KEY_PASSPHRASE and JWT_KEY_PASSPHRASE_FILE", JWT_KEY_PASSPHRASE=PHRASE, **FROM_FILE
    ),
}

ALGORITHM = {
    "none": option("jwt_algorithm", ALGORITHMS, JWT_ALGORITHM="none"),
    "None": option("jwt_algorithm", ALGORITHMS, JWT_ALGORITHM="None"),
    "HS1024": option("jwt_algorithm", ALGORITHMS, JWT_ALGORITHM="HS1024"),
    "ES256K": option("jwt_algorithm", ALGORITHMS, JWT_ALGORITHM="ES256K"),
    "in-.env": Mistake("bad value 'none' for jwt_algorithm", files={".env": "JWT_ALGORITHM=none"}, hint=ALGORITHMS),
    "hs512-p256": key(pem(P256), "secp256r1, which does not fit HS512", "ES256", JWT_ALGORITHM="HS512"),
    "hs512-ed25519": key(pem(ED25519), "an Ed25519 key, which does not fit HS512", "EdDSA", JWT_ALGORITHM="HS512"),
    "hs256-public-as-secret": key(public(RSA), "an RSA key, which does not fit HS256", JWT_ALGORITHM="HS256"),
    "es256-rsa": key(pem(RSA), "an RSA key, which does not fit ES256", "RS256, RS384", JWT_ALGORITHM="ES256"),
    "es256-p384": key(pem(P384), "secp384r1, which does not fit ES256", "ES384", JWT_ALGORITHM="ES256"),
    "es256-secret": option("a shared secret, which does not fit ES256", "HS512", JWT_ALGORITHM="ES256"),
    "es256-hex-file": key(SECRET, "a shared secret, which does not fit ES256", "HS512", JWT_ALGORITHM="ES256"),
    "rs256-ed25519": key(pem(ED25519), "an Ed25519 key, which does not fit RS256", "EdDSA", JWT_ALGORITHM="RS256"),
    "eddsa-p256": key(pem(P256), "secp256r1, which does not fit EdDSA", "ES256", JWT_ALGORITHM="EdDSA"),
    **{
        f"short-{bits}": replace(
            option(
                f"has {least - 1} bytes, HS{bits} needs at least {least}", f"-hex {least}", JWT_ALGORITHM=f"HS{bits}"
            ),
            secret=SECRET[: 2 * least - 2],
        )
        for bits, least in ((256, 32), (384, 48), (512, 64))
    },
}

DAMAGED = "JWT_KEY_FILE 'key' holds a damaged key"
JWKS = {
    "not-json": key(json.dumps(EC)[:-1], "JWT_KEY_FILE 'key' is not JSON"),
    "nested-for-ever": key('{"a":' * 100_000, "JWT_KEY_FILE 'key' is not JSON"),
    "array": key(json.dumps([EC]), "JWT_KEY_FILE 'key' holds no key"),
    "no-kty": key(jwk(P256, "kty"), "JWT_KEY_FILE 'key': bad kty None", "use one of oct, RSA, EC, OKP"),
    "kty-unknown": key(EC | {"kty": "AKP"}, "JWT_KEY_FILE 'key': bad kty 'AKP'", "use one of oct, RSA, EC, OKP"),
    "kty-number": key(EC | {"kty": 1}, "JWT_KEY_FILE 'key': 'kty' is not a string", "RFC 7517"),
    "for-encryption": key(EC | {"use": "enc"}, "JWT_KEY_FILE 'key' is for 'enc', not for signatures", '"sig"'),
    "alg-misfit": key(EC | {"alg": "RS256"}, "secp256r1, which does not fit RS256", "ES256"),
    "alg-of-another-curve": key(EC | {"alg": "ES384"}, "secp256r1, which does not fit ES384", "ES256"),
    "alg-none": key(EC | {"alg": "none"}, "JWT_KEY_FILE 'key' is for 'none'", "use one of HS256"),
    "alg-not-ours": key(jwk(RSA, alg="RS256"), "'key' is for RS256, not PS256", JWT_ALGORITHM="PS256"),
    "d-of-another": key(EC | {"d": jwk(P256_OTHER)["d"]}, DAMAGED, "copy it again"),
    "d-of-another-okp": key(OKP | {"d": octets(ed25519.Ed25519PrivateKey.generate())["d"]}, DAMAGED, "copy it again"),
    "d-of-another-rsa": key(jwk(RSA, d=jwk(RSA_OTHER)["d"]), DAMAGED, "copy it again"),
    "no-x": key(jwk(P256, "x"), DAMAGED),
    "no-y": key(jwk(P256, "y"), DAMAGED),
    "no-q": key(jwk(RSA, "q"), DAMAGED),
    "no-d": key(jwk(P256, "d"), "JWT_KEY_FILE 'key' holds only a public key", "private key"),
    "no-crv": key(jwk(P256, "crv"), DAMAGED),
    "x-short": key(EC | {"x": "AQ"}, DAMAGED),
    "d-number": key(EC | {"d": 5}, DAMAGED),
    "crv-unknown": key(EC | {"crv": "P-999"}, "JWT_KEY_FILE 'key' is on the unsupported curve 'P-999'", "P-256"),
    "crv-secp256k1": key(jwk(P256, "d") | {"crv": "secp256k1"}, "JWT_KEY_FILE 'key'"),
    "crv-ed448": key({"kty": "OKP", "crv": "Ed448", **octets(ED448)}, "'Ed448'", "Ed25519"),
    "crv-x25519": key({"kty": "OKP", "crv": "X25519", **octets(X25519)}, "'X25519'", "Ed25519"),
    "rsa-1024": key(jwk(RSA_1024), "'key' holds an RSA key of 1024 bits", "2048"),
    "oct-no-k": key({"kty": "oct"}, DAMAGED),
    "oct-short": key({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0"}, "'key' has 18 bytes, HS512 needs at least 64"),
    "kid-number": key(EC | {"kid": 5}, "JWT_KEY_FILE 'key': 'kid' is not a string", "RFC 7517"),
    "nbf-text": key(EC | {"nbf": "tomorrow"}, "JWT_KEY_FILE 'key': bad 'nbf'", "since 1970"),
    "nbf-nan": key(EC | {"nbf": float("nan")}, "JWT_KEY_FILE 'key': bad 'nbf'"),
    "nbf-endless": key(EC | {"nbf": 10**400}, "JWT_KEY_FILE 'key': bad 'nbf'"),
    "nbf-beyond-the-calendar": key(EC | {"nbf": 1e300}, "JWT_KEY_FILE 'key': bad 'nbf'"),
    "nbf-to-come": key(EC | {"nbf": 9_999_999_999}, "no key may sign now", "2286-11-20"),
    "exp-past": key(EC | {"exp": 1000}, "no key may sign now", "1970-01-01"),
    "jwks-empty": key(jwks(), "JWT_KEY_FILE 'key' holds no keys", "RFC 7517"),
    "jwks-no-list": key({"keys": {}}, "JWT_KEY_FILE 'key' holds no keys", "RFC 7517"),
    "jwks-of-numbers": key({"keys": [1]}, "JWT_KEY_FILE 'key' holds no keys", "RFC 7517"),
    "jwks-public": key(jwks(jwk(P256, "d"), jwk(P384, "d")), "JWT_KEY_FILE 'key' holds only a public key", "private"),
    "jwks-one-bad": key(jwks(EC, EC | {"use": "enc"}), "JWT_KEY_FILE 'key' key 2 is for 'enc'"),
    "jwks-kid-twice": key(
        jwks(EC | {"kid": "a"}, jwk(P256_OTHER, kid="a")), "key 1 and JWT_KEY_FILE 'key' key 2 give the kid 'a'"
    ),
    "jwks-and-kid": key(jwks(EC, jwk(P256_OTHER)), "several keys, but jwt_kid names only one", "kid", JWT_KID="a"),
}

FOLDERS = {
    "missing": Mistake("JWT_KEY_DIR 'keys': no such folder", env={"JWT_KEY_DIR": "keys"}, secret=None, hint="folder"),
    "a-file": Mistake(
        "JWT_KEY_DIR 'key': not a folder",
        env={"JWT_KEY_DIR": "key"},
        files={"key": pem(P256)},
        secret=None,
        hint="JWT_KEY_FILE",
    ),
    "name-too-long": Mistake("cannot read JWT_KEY_DIR '....", env={"JWT_KEY_DIR": "." * 300}, secret=None),
    "empty": folder({".a.pem.swp": pem(P256)}, "there is no key in JWT_KEY_DIR 'keys'", "keys new --out keys/"),
    "manifest-alone": folder({"keys.yaml": "a.pem: {}"}, "there is no key in JWT_KEY_DIR 'keys'", "keys new"),
    "one-cut": folder({"a.pem": pem(P256), "b.pem": CUT}, "'keys/b.pem' is cut short"),
    "one-no-key": folder({"a.pem": pem(P256), "README": "private!"}, "'keys/README' holds no key"),
    "one-weak": folder({"a.pem": pem(P256), "b.pem": pem(RSA_1024)}, "'keys/b.pem' holds an RSA key of 1024 bits"),
    "one-locked": folder({"a.pem": LOCKED}, "'keys/a.pem' is encrypted", "JWT_KEY_PASSPHRASE"),
    "one-misfit": folder({"a.pem": pem(RSA), "b.pem": pem(P256)}, "'keys/b.pem' holds a key", JWT_ALGORITHM="RS256"),
    "public-only": folder({"a.pem": public(P256)}, "no key may sign now", "'keys/a.pem' is public only"),
    "kid-given": folder({"a.pem": pem(P256)}, "jwt_kid is set, but 'keys' is a folder", "keys.yaml", JWT_KID="a"),
    "kid-twice": folder(
        {"a.jwk": json.dumps(EC | {"kid": "one"}), "b.jwk": json.dumps(jwk(P256_OTHER, kid="one"))},
        "'keys/a.jwk' and 'keys/b.jwk' give the kid 'one'",
        "keys.yaml",
    ),
    "key-twice-for-two-algorithms": folder(
        {"a.jwk": json.dumps(jwk(RSA, kid="a", alg="RS256")), "b.jwk": json.dumps(jwk(RSA, kid="a", alg="PS256"))},
        "'keys/a.jwk' and 'keys/b.jwk' give the kid 'a'",
        "kid",
    ),
    "manifest-kid-twice": manifest("a.pem: {kid: x}\nb.pem: {kid: x}\n", "give the kid 'x' to two keys", "keys.yaml"),
    "manifest-no-yaml": manifest("a.pem: {kid: [\n", "keys/keys.yaml:2: bad YAML", "brackets"),
    "manifest-empty": manifest("", "keys/keys.yaml:1: the file is empty"),
    "manifest-list": manifest("- a.pem\n", "keys/keys.yaml:1: the file must be a mapping", "not_before"),
    "manifest-of-a-text": manifest("a.pem: x\n", "keys/keys.yaml:1: a.pem must be a mapping", "key: value"),
    "manifest-is-a-key": manifest(pem(P384), "keys/keys.yaml:1: the file must be a mapping"),
    "manifest-unknown-file": manifest(
        "a.pem: {}\nc.pem: {kid: x}\n", "keys.yaml:2: there is no key file 'c.pem'", "a.pem, b.pem"
    ),
    "manifest-unknown-key": manifest(
        "a.pem:\n  notbefore: 2026-01-01\n", "keys.yaml:2: unknown key 'notbefore'", "not_before"
    ),
    "manifest-twice": manifest("a.pem: {}\na.pem: {}\n", "keys/keys.yaml:2: the key 'a.pem' appears twice"),
    "manifest-bad-time": manifest("a.pem:\n  not_before: tomorrow\n", "keys.yaml:2: bad time 'tomorrow'", "2026-12-31"),
    "manifest-no-such-day": manifest(
        "a.pem: {not_after: 2026-02-30}", "keys.yaml:1: bad time '2026-02-30'", "2026-12-31"
    ),
    "manifest-time-as-number": manifest(
        "a.pem: {not_after: 1767225600}", "keys.yaml:1: bad time '1767225600'", "2026-12-31"
    ),
    "manifest-time-before-the-calendar": manifest(
        "a.pem: {not_after: 0001-01-01T00:00:00+12:00}\nb.pem: {not_after: 2020-01-01}", "keys/keys.yaml:1: bad time"
    ),
    "manifest-times-swapped": manifest(
        "a.pem:\n  not_before: 2030-01-01\n  not_after: 2029-01-01\n",
        "keys.yaml:1: not_after is not later than not_before",
        "swap",
    ),
    "manifest-bad-algorithm": manifest(
        "a.pem: {algorithm: ES999}", "keys.yaml:1: bad algorithm 'ES999'", "use one of HS256"
    ),
    "manifest-none": manifest("a.pem: {algorithm: none}", "keys.yaml:1: bad algorithm 'none'", "use one of HS256"),
    "manifest-misfit": manifest(
        "a.pem: {algorithm: RS256}", "'keys/a.pem' holds a key on the curve secp256r1", "ES256"
    ),
    "manifest-blank-kid": manifest("a.pem: {kid: ''}", "keys/keys.yaml:1: kid is blank"),
    "manifest-kid-list": manifest("a.pem: {kid: [a]}", "keys/keys.yaml:1: kid must be a string, not a list", "kid"),
    "manifest-alias": manifest("a.pem: &one {kid: x}\nb.pem: *one\n", "keys/keys.yaml:1: anchors and aliases (&one)"),
    "nobody-may-sign": manifest(
        "a.pem: {not_before: 2090-01-01}\nb.pem: {not_after: 2020-01-01}", "no key may sign now", "'keys/b.pem' is"
    ),
}

OWN = "is the proxy's own"
OPTIONS = {
    "claims-no-json": option("jwt_claims", "use a JSON object", JWT_CLAIMS="{scope: read}"),
    "claims-array": option("jwt_claims", '{"scope": "read"}', JWT_CLAIMS="[1]"),
    "claims-text": option("jwt_claims", '{"scope": "read"}', JWT_CLAIMS='"x"'),
    "claims-null": option("jwt_claims", '{"scope": "read"}', JWT_CLAIMS="null"),
    "claims-cut": option("jwt_claims", "use a JSON object", JWT_CLAIMS='{"a": 1'),
    "claims-nan": option("jwt_claims", "NaN is not JSON", JWT_CLAIMS='{"a": NaN}'),
    "claims-infinity": option("jwt_claims", "use a JSON object", JWT_CLAIMS='{"a": 1e999}'),
    "claims-twice": option("jwt_claims", "twice", JWT_CLAIMS='{"a": 1, "a": 2}'),
    "claims-twice-inside": option("jwt_claims", "twice", JWT_CLAIMS='{"a": {"b": 1, "b": 2}}'),
    **{
        f"claims-{name}": option(f"the claim '{name}' {OWN}", "remove it", JWT_CLAIMS=json.dumps({"a": 1, name: 1}))
        for name in ("iat", "jti", "payload", "nbf", "exp")
    },
    "claims-iss-number": option("the claim 'iss' is 5", "RFC 7519", JWT_CLAIMS='{"iss": 5}'),
    "claims-aud-number": option("the claim 'aud' is 5", "RFC 7519", JWT_CLAIMS='{"aud": 5}'),
    "claims-aud-mixed": option("the claim 'aud' is ['a', 5]", "RFC 7519", JWT_CLAIMS='{"aud": ["a", 5]}'),
    "claims-aud-empty": option("the claim 'aud' is []", "RFC 7519", JWT_CLAIMS='{"aud": []}'),
    "iss-twice": option("the claim 'iss' is set twice", "jwt_issuer", JWT_CLAIMS='{"iss": "a"}', JWT_ISSUER="b"),
    "sub-twice": option("the claim 'sub' is set twice", "jwt_subject", JWT_CLAIMS='{"sub": "a"}', JWT_SUBJECT="b"),
    "aud-twice": option("the claim 'aud' is set twice", "jwt_audience", JWT_CLAIMS='{"aud": "a"}', JWT_AUDIENCE="b"),
    "claims-mapping-in-config": Mistake("jwt_claims", files={".mitmproxy/config.yaml": "jwt_claims: {a: 1}"}),
    **{
        f"ttl-{ttl}": option("jwt_ttl", "whole number of seconds", JWT_TTL=ttl)
        for ttl in ("0", "-1", "1.5", "abc", "1e9999", "5m", "٣")
    },
    "ttl-a-millennium": option("jwt_ttl", "seconds", JWT_TTL="31536000000"),
    "ttl-endless": option("for jwt_ttl", "seconds", JWT_TTL="9" * 5000),
    "ttl-fraction-in-config": Mistake("bad value '1.5' for jwt_ttl", files={".mitmproxy/config.yaml": "jwt_ttl: 1.5"}),
    "typ-with-space": option("jwt_typ", "at+jwt", JWT_TYP="a b"),
    "typ-not-ascii": option("jwt_typ", "at+jwt", JWT_TYP="jé"),
    "host-mismatch": option("jwt_host_mismatch", "use one of refuse, allow", JWT_HOST_MISMATCH="ignore"),
    "max-age-negative": option("jwt_jwks_max_age", "whole number of seconds", JWT_JWKS_MAX_AGE="-1"),
    "max-age-word": option("jwt_jwks_max_age", "whole number of seconds", JWT_JWKS_MAX_AGE="day"),
    "max-age-fraction": option("jwt_jwks_max_age", "whole number of seconds", JWT_JWKS_MAX_AGE="1.5"),
    "max-age-endless": option("for jwt_jwks_max_age", "seconds", JWT_JWKS_MAX_AGE="9" * 5000),
    "no-such-option": Mistake("unknown option 'jwt_keyfile'", ["--set", "jwt_keyfile=x"], hint="jwt_key_file"),
}

USABLE = "use ~d, ~u, ~m"
RULES = {
    "missing": option("cannot read 'nowhere.yaml': no such file", "file", JWT_RULES="nowhere.yaml"),
    "a-folder": option("cannot read '.': is a directory", "file", JWT_RULES="."),
    "empty": rules("", "rules.yaml:1: the file is empty"),
    "comments-alone": rules("# nothing yet\n", "rules.yaml:1: the file is empty"),
    "binary": rules(b"\xff\xfe\x00", "rules.yaml:1: not UTF-8 text", "UTF-8"),
    "control-character": rules("rules:\n  - match: ~d a\x01b\n", "rules.yaml:2: not text", "remove it"),
    "no-yaml": rules("rules: [\n", "rules.yaml:2: bad YAML", "brackets"),
    "tab": rules("rules:\n\t- match: ~all\n", "rules.yaml:2: bad YAML", "spaces, not tabs"),
    "indentation": rules("rules:\n  - match: ~all\n   ttl: 5\n", "rules.yaml:3: bad YAML", "indentation"),
    "quote-open": rules('rules:\n  - match: "~d x\n', "rules.yaml:3: bad YAML", "never closed"),
    "backslash": match('"~d x\\.y"', "bad YAML", "single quotes"),
    "list-at-top": rules("- match: ~all\n", "rules.yaml:1: the file must be a mapping", "write 'rules:'"),
    "words": rules("block all\n", "rules.yaml:1: the file must be a mapping", "write 'rules:'"),
    "two-documents": rules("rules:\n  - match: ~all\n---\nrules: []\n", "rules.yaml:3: a second document", "'---'"),
    "unknown-at-top": rules("rule:\n  - match: ~all\n", "rules.yaml:1: unknown key 'rule'", "did you mean rules?"),
    "unknown-second-at-top": rules(
        "rules:\n  - match: ~all\nbloc: x\n", "rules.yaml:3: unknown key 'bloc'", "default, rules"
    ),
    "no-rules": rules("default: block\n", "rules.yaml:1: there are no rules", "write 'rules:'"),
    "rules-empty": rules("default: block\nrules: []\n", "rules.yaml:2: the list of rules is empty"),
    "rules-null": rules("rules:\n", "rules.yaml:1: rules has no value", "'- '"),
    "rules-mapping": rules("rules:\n  match: ~all\n", "rules.yaml:1: rules must be a list, not a mapping", "'- '"),
    "default-refuse": rules(
        "default: refuse\nrules: [{match: ~all}]", "rules.yaml:1: bad value 'refuse' for default", "sign or block"
    ),
    "default-true": rules("default: true\nrules: [{match: ~all}]", "rules.yaml:1: default must be"),
    "default-null": rules("default:\nrules: [{match: ~all}]", "rules.yaml:1: default has no value", "block"),
    "rule-text": rules("rules:\n  - block\n", "rules.yaml:2: an item of rules must be a mapping", "key: value"),
    "unknown-key": rule("ttl: 5\naudiense: x", "4: unknown key 'audiense'", "did you mean audience?"),
    "unknown-key-far-off": rule("action: block", "3: unknown key 'action'", "keys are name, match, sign, block"),
    "key-twice": rule("ttl: 5\nttl: 6", "4: the key 'ttl' appears twice", "line 3"),
    "merge": rule("<<: {ttl: 5}", "3: unknown key '<<'"),
    "anchor": rules(
        "rules:\n  - &a\n    match: ~d x\n  - *a\n", "rules.yaml:2: anchors and aliases (&a)", "write the value out"
    ),
    "tag": match("!!str ~all", "the value begins with a YAML tag", "single quotes"),
    "nested": rule("claims: {a: " + "[" * 50 + "]" * 50 + "}", "3: values are nested more than 32 deep"),
    # match
    "no-match": rules("rules:\n  - audience: x\n", "rules.yaml:2: the rule has no match", "~all"),
    "match-null": match("~", "match has no value", "quotes"),
    "match-blank": match("' '", "match is blank"),
    "match-list": match("[~all]", "match must be a string, not a list", "~all"),
    "match-bad-regex": match("'~d ['", "bad filter '~d [': '[' is not a regular expression", "any characters"),
    "match-unknown": match("~frob x", "bad filter '~frob x'", USABLE),
    "match-answer": match("~c 200", "bad filter '~c 200': ~c cannot decide", USABLE),
    "match-answer-header": match("~hs server", "bad filter '~hs server': ~hs cannot decide", USABLE),
    "match-body": match("~b pay", "bad filter '~b pay': ~b cannot decide", USABLE),
    "match-request-body": match("~d x & ~bq pay", "bad filter '~d x & ~bq pay': ~bq cannot decide", USABLE),
    "match-websocket": match("~websocket", "bad filter '~websocket'", "~hq"),
    "match-mark": match("'! ~d x | ~marked'", "bad filter '! ~d x | ~marked': ~marked cannot decide", USABLE),
    "match-open": match("'(~d x'", "bad filter '(~d x': it ends too early", "( )"),
    "match-closed": match("'~d x)'", "bad filter '~d x)': it cannot be parsed from ')' on", "( )"),
    "match-nothing": match("~d", "bad filter '~d': it ends too early", USABLE),
    "match-and": match("~d x and ~m GET", "bad filter '~d x and ~m GET': 'and' is a pattern", "&"),
    "match-bang": match("!~d x", "the value begins with a YAML tag, '!~d'", "single quotes"),
    "match-url-as-host": match("~d https://x", "bad filter '~d https://x': ~d matches the host alone", "~u"),
    "match-idn": match("~d bücher", "bad filter '~d bücher': no host matches 'bücher'", "xn--bcher-kva"),
    # what it does
    "sign-and-block": rule("sign: true\nblock: true", "3: sign contradicts block: true", "keep one"),
    "pass-and-block": rule("block: true\nsign: false", "4: sign contradicts block: true", "keep one"),
    "block-with-audience": rule("block: true\naudience: x", "4: audience has no effect with block: true", "keep one"),
    "pass-with-ttl": rule("sign: false\nttl: 5", "4: ttl has no effect with sign: false", "keep one"),
    "block-with-key": rule("block: true\nkey: x", "4: key has no effect with block: true", "keep one"),
    "sign-no": rule("sign: no", "3: sign must be true or false, not 'no'", "YAML 1.2"),
    "block-quoted": rule("block: 'true'", "3: block must be true or false, not 'true'"),
    "never-decides": rules(
        "rules:\n  - match: ~all\n  - match: ~d x\n", "rules.yaml:3: the rule never applies", "rules.yaml:2"
    ),
    "same-match": rules(
        "rules:\n  - match: ~d x\n  - match: ~d  x\n", "rules.yaml:3: the rule never applies", "rules.yaml:2"
    ),
    "name-taken": rules(
        "rules:\n  - name: a\n    match: ~d x\n  - name: a\n    match: ~d y\n",
        "rules.yaml:4: the name 'a' is taken",
        "rules.yaml:2",
    ),
    "name-default": rule("name: default", "3: a rule must not be called 'default'", "another name"),
    "name-of-two-lines": rule('name: "a\\nb"', "3: bad value 'a\\nb' for name", "one line"),
    # the token
    "claims-reserved": rule("claims:\n  a: 1\n  exp: 5", f"3: the claim 'exp' {OWN}", "remove it"),
    "claims-list": rule("claims: [a]", "3: claims must be a mapping", "key: value"),
    "claims-json": rule("claims: '{}'", "3: claims must be a mapping", "key: value"),
    "claims-infinity": rule("claims: {a: .inf}", "3: a is .inf, which is not a number in JSON", "quotes"),
    "claims-aud": rule("claims: {aud: 5}", "3: the claim 'aud' is 5", "RFC 7519"),
    "claims-iss-twice": rule("issuer: x\nclaims: {iss: y}", "2: the claim 'iss' is set twice", "not both"),
    "claims-iss-and-option": rule("claims: {iss: y}", "2: the claim 'iss' is set twice", "not both", JWT_ISSUER="z"),
    "audience-of-nobody": rule("audience: []", "3: audience has no items", "remove it"),
    "audience-mapping": rule("audience: {a: b}", "3: audience must be a string, not a mapping", "audience"),
    "header-of-http": rule("header: Host", "3: bad value 'Host' for header", "another name"),
    "header-of-framing": rule("header: content_length", "3: bad value 'content_length' for header", "another name"),
    "header-with-space": rule("header: a b", "3: bad value 'a b' for header", "letters"),
    "header-null": rule("header:", "3: header has no value", "header"),
    "ttl-negative": rule("ttl: -1", "3: bad value '-1' for ttl", "whole number of seconds"),
    "ttl-fraction": rule("ttl: 1.5", "3: bad value '1.5' for ttl", "whole number of seconds"),
    "ttl-unit": rule("ttl: 5m", "3: bad value '5m' for ttl", "whole number of seconds"),
    "ttl-list": rule("ttl: [5]", "3: ttl must be a", "seconds"),
    "ttl-endless": rule("ttl: 31536000000", "3: bad value '31536000000' for ttl", "seconds"),
    "typ-with-space": rule("typ: a b", "3: bad value 'a b' for typ", "at+jwt"),
    "header-rule": replace(
        rule("header: x-partner", ""),
        says="modify_headers '/x-partner/forged' names the token's own header",
        args=["--modify-headers", "/x-partner/forged"],
    ),
}

PARTNER = {"partner.pem": pem(P256_OTHER)}
RULE_KEYS = {
    "missing": rule("key: partner.pem", "2: cannot read key 'partner.pem': no such file", "file"),
    "cut": rule("key: partner.pem", "2: key 'partner.pem' is cut short", files={"partner.pem": CUT}),
    "empty": rule("key: partner.pem", "2: key 'partner.pem' is empty", "keys new", files={"partner.pem": ""}),
    "public": rule(
        "key: partner.pem", "2: key 'partner.pem' holds only a public key", files={"partner.pem": public(P256)}
    ),
    "locked": rule(
        "key: partner.pem", "2: key 'partner.pem' is encrypted", "JWT_KEY_PASSPHRASE", files={"partner.pem": LOCKED}
    ),
    "weak": rule(
        "key: partner.pem", "2: key 'partner.pem' holds an RSA key of 1024", files={"partner.pem": pem(RSA_1024)}
    ),
    "short": rule("key: partner.hex", "2: key 'partner.hex' has 20 bytes", "-hex 64", files={"partner.hex": "ab" * 20}),
    "misfit": rule(
        "key: partner.pem\nalgorithm: RS256",
        "2: key 'partner.pem' holds a key on the curve secp256r1, which does not fit RS256",
        "ES256",
        files=PARTNER,
    ),
    "none": rule("key: partner.pem\nalgorithm: none", "4: bad value 'none' for algorithm", ALGORITHMS, files=PARTNER),
    "algorithm-alone": rule("algorithm: ES256", "3: algorithm without key", "remove algorithm"),
    "of-nobody": rule("key: ~nobody-such/x", "3: bad value '~nobody-such/x' for key: no home", "whole path"),
    "name-too-long": rule(f"key: {'.' * 300}", "2: cannot read"),
    "written-out": rule("key: |\n" + "".join(f"  {line}\n" for line in pem(P256).splitlines()), "", "file"),
    "folder-empty": rule(
        "key: partner", "2: there is no key in key 'partner'", "keys new --out partner/", files={"partner/.x": ""}
    ),
    "folder-cut": rule("key: partner", "2: 'partner/a.pem' is cut short", files={"partner/a.pem": CUT}),
    "folder-manifest": rule(
        "key: partner",
        "2: partner/keys.yaml:1: there is no key file 'b.pem'",
        "a.pem",
        files={"partner/a.pem": pem(P256), "partner/keys.yaml": "b.pem: {}"},
    ),
    "folder-nobody": rule(
        "key: partner",
        "2: no key may sign now",
        "'partner/a.pem'",
        files={"partner/a.pem": pem(P256), "partner/keys.yaml": "a.pem: {not_after: 2020-01-01}"},
    ),
    "kid-taken": replace(
        rule(
            "key: partner.jwk",
            "",
            files={"partner.jwk": json.dumps(jwk(P256_OTHER, kid="same")), "key": json.dumps(EC | {"kid": "same"})},
            JWT_KEY_FILE="key",
        ),
        says="give the kid 'same' to two keys",
        hint="kid",
        secret=None,
    ),
}

# --- each is refused

TABLES = {
    "source": SOURCES,
    "file": KEY_FILES,
    "phrase": PASS_PHRASES,
    "algorithm": ALGORITHM,
    "jwk": JWKS,
    "folder": FOLDERS,
    "option": OPTIONS,
    "rules": RULES,
    "rule-key": RULE_KEYS,
}
ALL = {f"{table}-{name}": mistake for table, mistakes in TABLES.items() for name, mistake in mistakes.items()}

# One of each kind, and what concerns several parts at once; the others differ in what tests of keys, rules and settings
# by themselves show.
ALWAYS = """
source-none source-secret-and-file source-flag-beats-variable file-missing file-rsa-1024 file-pem-as-name
file-hex-as-name phrase-wrong phrase-file-missing algorithm-hs512-p256 algorithm-es256-secret jwk-d-of-another
folder-missing folder-one-cut folder-kid-twice folder-manifest-is-a-key folder-manifest-bad-time folder-nobody-may-sign
option-claims-exp option-iss-twice option-ttl-0 option-host-mismatch rules-missing rules-unknown-key rules-match-body
rules-header-rule rule-key-missing rule-key-cut rule-key-folder-nobody
""".split()


@pytest.mark.parametrize("mistake", rows(ALL, *ALWAYS[::3]))
def test_a_mistake_is_refused(
    run: RunLauncher[Start], tmp_path: Path, mistake: Mistake, request: pytest.FixtureRequest
) -> None:
    """One line names the value, file or line, one the way out; nothing of a key is shown, and no port is touched."""
    assert not check(run, mistake, tmp_path).bound


COMMANDS = {
    "check": ["--check"],
    "workers": ["--workers", "3"],
    "verbose": ["-v"],
    "explain": ["explain", "GET", "http://api.example/"],
    "keys-list": ["keys", "list"],
    "keys-jwks": ["keys", "jwks"],
}
SOME = """source-none file-rsa-1024 phrase-wrong folder-one-cut option-claims-exp rules-unknown-key rules-header-rule
rule-key-missing""".split()


@pytest.fixture(scope="module")
def refusals(run: RunLauncher[Start], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a start says of SOME mistakes."""
    return {name: check(run, ALL[name], tmp_path_factory.mktemp("start")).stderr for name in SOME}


@pytest.mark.parametrize("command", rows(COMMANDS, "check"))
def test_every_command_says_the_same(
    run: RunLauncher[Start], tmp_path: Path, refusals: Mapping[str, str], command: Sequence[str]
) -> None:
    """What a start refuses, `explain` and `keys` refuse in the same words."""
    for name, refusal in refusals.items():
        folder = tmp_path / name
        folder.mkdir()
        done = check(run, replace(ALL[name], args=[*command, *ALL[name].args]), folder)
        assert done.stderr == refusal, name
        assert not done.bound


KEYS_COMMANDS = {
    "unknown": Mistake("unknown command 'keys show'", ["keys", "show"], hint="keys list"),
    "new-none": Mistake("bad value 'none' for --alg", ["keys", "new", "--alg", "none"], hint="use one of HS256"),
    "new-over-a-key": Mistake("cannot write 'key': file exists", ["keys", "new", "--out", "key"], files={"key": "x"}),
    "new-under-a-file": Mistake("cannot write 'key", ["keys", "new", "--out", "key/"], files={"key": "x"}),
    "new-of-what": Mistake("unrecognized arguments: es256", ["keys", "new", "es256"]),
    "list-of-what": Mistake("unrecognized arguments: es256", ["keys", "list", "es256"]),
    "list-before-the-calendar": Mistake(
        "bad time",
        ["keys", "list"],
        {"JWT_KEY_DIR": "keys"},
        {
            "keys/a.pem": pem(P256),
            "keys/b.pem": pem(P384),
            "keys/keys.yaml": "a.pem: {not_before: 0001-01-01T00:00:00+12:00}",
        },
        secret=None,
    ),
}


@pytest.mark.parametrize("mistake", rows(KEYS_COMMANDS, "unknown", "new-over-a-key"))
def test_a_mistake_with_the_keys_command_is_refused(
    run: RunLauncher[Start], tmp_path: Path, mistake: Mistake, request: pytest.FixtureRequest
) -> None:
    """It has mistakes of its own."""
    check(run, mistake, tmp_path)
    for name, content in mistake.files.items():
        assert (tmp_path / name).read_text() == content


FRESH = {
    name: ALL[name]
    for name in """source-none source-flag-beats-.env file-rsa-1024 phrase-wrong algorithm-es256-p384 jwk-d-of-another
    folder-manifest-bad-time folder-nobody-may-sign option-claims-exp option-iss-twice rules-unknown-key
    rules-match-answer rule-key-cut""".split()
}


@pytest.mark.parametrize("workers", ["1", pytest.param("3", marks=thorough)])
@pytest.mark.parametrize("mistake", rows(FRESH, "rules-unknown-key"))
def test_a_fresh_process_refuses_it_and_never_listens(tmp_path: Path, mistake: Mistake, workers: str) -> None:
    """The same once more with nothing imported beforehand. Had it come to listening, it would say the port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        env = {**mistake.env, "HTTP_PORT": str(taken.getsockname()[1]), "WORKERS": workers}
        check(partial(run_launcher, fresh=True), replace(mistake, env=env), tmp_path)


BARE = {
    name: ALL[name]
    for name in """source-secret-and-file source-file-and-folder file-missing file-rsa-1024 phrase-wrong
    algorithm-es256-rsa jwk-no-d folder-one-cut folder-nobody-may-sign option-claims-exp option-ttl-0 rules-missing
    rules-unknown-key rules-match-body rule-key-missing""".split()
}


@pytest.mark.parametrize(
    "mistake", rows(BARE, "file-rsa-1024", "folder-one-cut", "option-claims-exp", "rules-match-body")
)
def test_stock_mitmdump_refuses_every_request(
    start_bare: StartBare, recorder: Recorder, tmp_path: Path, mistake: Mistake
) -> None:
    """As a script, the addon says the same once, and no request leaves."""
    mistake.make(tmp_path)
    process = start_bare(*mistake.args, env=mistake.env, secret=mistake.secret, cwd=tmp_path, wait=False)
    never_unsigned(process, recorder)
    process.stop()
    told(process, mistake.says)
    mistake.not_shown_in(process.output)


# --- what wins, where nothing is wrong

OWN_FILES = {"key": pem(P256), "keys/a.pem": pem(P256_OTHER), "hex": SECRET}
DOTENV = {".env": "JWT_KEY_FILE=key"}
CONFIG = {".mitmproxy/config.yaml": "jwt_key_dir: keys"}
PRECEDENCE: dict[str, tuple[Sequence[str], Mapping[str, str], Mapping[str, str], str | None, str]] = {
    "flag-secret": (["--set", "jwt_key_file=key"], {}, {}, SECRET, "JWT_KEY_FILE 'key'"),
    "flag-variable": (["--set", "jwt_key_dir=keys"], {"JWT_KEY_FILE": "key"}, {}, None, "'keys/a.pem'"),
    "flag-itself": (["--set", "jwt_key_file=key"], {"JWT_KEY_FILE": "nowhere"}, {}, None, "JWT_KEY_FILE 'key'"),
    "flag-all": (["--set", "jwt_key_file=hex"], {}, {**DOTENV, **CONFIG}, SECRET, "JWT_KEY_FILE 'hex'"),
    "secret-.env": ([], {}, DOTENV, SECRET, "JWT_SHARED_SECRET"),
    "secret-config": ([], {}, CONFIG, SECRET, "JWT_SHARED_SECRET"),
    "variable-.env": ([], {"JWT_KEY_DIR": "keys"}, DOTENV, None, "'keys/a.pem'"),
    "variable-.env-secret": ([], {"JWT_KEY_FILE": "key"}, {".env": f"JWT_SHARED_SECRET={SECRET}"}, None, "'key'"),
    "secret-file-config": ([], {"JWT_SHARED_SECRET_FILE": "hex"}, CONFIG, None, "JWT_SHARED_SECRET_FILE 'hex'"),
    ".env-config": ([], {}, {**DOTENV, **CONFIG}, None, "JWT_KEY_FILE 'key'"),
    "config": ([], {}, CONFIG, None, "'keys/a.pem'"),
    "empty-variable": ([], {"JWT_KEY_DIR": ""}, DOTENV, None, "JWT_KEY_FILE 'key'"),
    "empty-.env": ([], {}, {".env": "JWT_KEY_FILE=", **CONFIG}, None, "'keys/a.pem'"),
}


@pytest.mark.parametrize(
    ("args", "env", "files", "secret", "where"),
    rows(PRECEDENCE, *"flag-secret flag-all variable-.env-secret .env-config empty-.env".split()),
)
def test_the_stronger_source_names_the_key(
    run: RunLauncher[Start],
    tmp_path: Path,
    args: Sequence[str],
    env: Mapping[str, str],
    files: Mapping[str, str],
    secret: str | None,
    where: str,
) -> None:
    """Flags beat the environment, that .env, that config.yaml, whatever form each gives the key in."""
    Mistake("", files={**OWN_FILES, **files}).make(tmp_path)
    done = run("keys", "list", *args, cwd=tmp_path, env=env, secret=secret)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()[1:]
    assert line.startswith("now ")
    assert line.endswith(where)
    Mistake("", files={**OWN_FILES, **files}, secret=secret).not_shown_in(done.stdout.replace(line.split()[2], ""))
