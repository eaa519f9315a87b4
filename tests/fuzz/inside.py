"""What is read within the process: rules, filters, keys, `.env`. Each is understood, or one error that says why."""

from __future__ import annotations

import functools
import json
import re
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import strategies as st

from jwtproxy.conduct.request import RequestHead
from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import environment
from jwtproxy.mitm.filters import compile_filter
from jwtproxy.policy import rules
from jwtproxy.tokens import key_source
from jwtproxy.tokens.key_formats import parse
from jwtproxy.tokens.keys import KeyRequest
from jwtproxy.tokens.new_key import generate

from .target import Target, changed

PATIENCE = 8.0
"""Seconds to read something; other tests keep the machine busy."""
SECRET = secrets.token_hex(64)

_SPAN = 16
"""Characters in a row of a key that would help to guess the rest."""
_MATERIAL = re.compile(r"[0-9A-Za-z+/_=-]{16,}")
_HEAD = RequestHead(b"GET", "https", "api.example", 8443, b"/a/b?c=d", ((b"Host", b"api.example:8443"), (b"X-A", b"1")))


def targets(folder: Path) -> list[Target]:
    """All of them; `folder` is for the files, and for nothing else."""
    folder.mkdir()
    return [
        Target("keys", _keys(), check_key),
        Target("env", changed(_ENV, _ENV_PIECES), lambda value: check_env(value, folder)),
        Target("rules", changed(_RULES, _RULES_PIECES, 8), lambda value: check_rules(value, folder)),
        Target("filters", _filters(), check_filter),
    ]


def _complaint(work: Callable[[], object], secret: str = "") -> str:
    """What is wrong with how this ends: with an error that is none of ours, shows a secret, or took long to find."""
    began = time.monotonic()
    try:
        work()
    except SettingsError as error:
        said = "".join(traceback.format_exception(error)) + error.hint
        said = re.sub(r"^  .*\n|^Traceback.*\n", "", said, flags=re.MULTILINE)  # the lines of the program
        if "\n" in str(error) + error.hint or not str(error).isprintable():
            return f"not one line: {error}"
        if shown := next((span for span in _spans(secret) if span in said), ""):
            return f"it shows {shown!r}: {said}"
    took = time.monotonic() - began
    return f"it took {took:.0f} s" if took > PATIENCE else ""


def _spans(secret: str) -> Iterator[str]:
    for found in _MATERIAL.finditer(secret):
        yield from (found[0][at : at + _SPAN] for at in range(len(found[0]) - _SPAN + 1))


# --- keys


def _keys() -> st.SearchStrategy[bytes]:
    pems = [generate(kind) for kind in ("ES256", "EdDSA", "RS256")]
    jwk = {"kty": "oct", "k": secrets.token_urlsafe(64), "alg": "HS512", "kid": "a", "nbf": 1, "exp": 4e9}
    ec = {"kty": "EC", "crv": "P-256", **{name: secrets.token_urlsafe(32) for name in "xyd"}}
    seeds = [*pems, json.dumps(jwk), json.dumps(ec), json.dumps({"keys": [jwk, ec]}), SECRET, "\n".join(SECRET[::2])]
    pieces = [
        *("-----BEGIN ", "-----END ", "-----", "PRIVATE KEY", "ENCRYPTED ", "EC ", "RSA ", "PUBLIC KEY", "CERTIFICATE"),
        *("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n", "DSA PARAMETERS", "OPENSSH "),
        *('"', "{", "}", "[", "]", ":", ",", "null", "true", "1e999", "-1", "NaN", "\\ud800", '"k":', '"keys":'),
        *('"kty":', '"crv":', '"alg":', '"use":', '"kid":', '"OKP"', '"RSA"', '"Ed25519"', '"none"', '"n":', '"e":'),
        *("\0", "\ufeff", "é", "\u2028", "\n", "=", " "),
    ]
    return changed([seed.encode() for seed in seeds], [piece.encode() for piece in pieces])


def check_key(value: bytes) -> str:
    """A file of keys."""
    text = value.decode("utf-8", "replace")
    opens = KeyRequest(passphrase=b"open sesame")
    return _complaint(lambda: parse(text, "file"), text) or _complaint(lambda: parse(text, "file", opens), text)


# --- .env

_ENV = [
    f"JWT_SHARED_SECRET={SECRET}\nHTTP_PORT=8080\nHTTP_HOST=127.0.0.1\nWORKERS=auto\nJWT_USER='a b'\n".encode(),
    f'# ours\nexport JWT_SHARED_SECRET="{SECRET}" # key\nJWT_CLAIMS=\'{{"a": 1}}\'\nJWT_TTL=60\n'.encode(),
    b"A=${B:-c}\nB=${A}\nJWT_KEY_FILE=${HOME}/key\nEMPTY=\nBARE\n",
]
_ENV_PIECES = [
    *(b"=", b"'", b'"', b"\\", b"#", b"${", b"}", b"${A}", b":-", b"export ", b"\n", b"\r", b"\r\n", b"\0", b"\xff"),
    *(
        b"\xef\xbb\xbf",
        b"\\n",
        b"\\x",
        b"\\u",
        b"JWT_KEY_FILE=",
        b"JWT_SHARED_SECRET_FILE=",
        b"HTTP_PORT=",
        b"WORKERS=",
        b"JWT_USR=",
        b"JWT_SECRET=",
        b"JWT_STRICT_ENV=",
    ),
]

_QUOTED = re.compile(r"bad value '.*' for ")
"""What stands in another setting is quoted: its user has to see what is wrong."""


def check_env(value: bytes, folder: Path) -> str:
    """A `.env`, and what is made of it."""
    (folder / ".env").write_bytes(value)

    def read() -> None:
        found = environment.sources(folder)[1:]  # without the environment itself
        workers = functools.partial(environment.workers, None)
        for wanted in (environment.warnings, environment.options, workers, _find):
            wanted(found)

    wrong = _complaint(read, SECRET)
    return "" if _QUOTED.search(wrong) else wrong


def _find(found: environment.Sources) -> None:
    key_source.find(*found)


# --- rules, filters

_RULES = [
    rb"""default: block
rules:
  - {name: pay, match: '~d ^pay\\.example$ & ~m POST', key: pay.pem, algorithm: ES256, audience: origin, ttl: 60}
  - name: others
    match: ~all
    claims: {scope: [a, b], n: 1.5, deep: {x: null}}
    header: x-token
    user: "proxyauth"
""",
    b"rules:\n- match: ~u ^https://api\\.example:8443/\n  sign: false\n- match: '!~m GET'\n  block: true\n",
]
_RULES_PIECES = [
    *(
        b"- ",
        b": ",
        b"\n  ",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"'",
        b'"',
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"? ",
        b"|\n",
    ),
    *(
        b">-\n",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"#",
        b"~",
        b"null",
        b"true",
        b"1e5",
        b".inf",
        b"0x1f",
        b"2026-01-01",
    ),
    *(
        b"name: ",
        b"match: ",
        b"sign: ",
        b"block: ",
        b"user: ",
        b"ttl: ",
        b"claims: ",
        b"key: ",
        b"algorithm: ",
        b"typ: ",
    ),
    *(b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xff", b"\0", b"\t", b"\r", b"9" * 400, b"[" * 40, b"{a: " * 40),
]


def check_rules(value: bytes, folder: Path) -> str:
    """A file of rules, and what they say of a request."""
    path = folder / "rules.yaml"
    path.write_bytes(value)
    return _complaint(lambda: rules.load(str(path), compile_filter).decide(_HEAD))


_WORDS = [
    *("~all", "~http", "~d", "~u", "~m", "~h", "~hq", "~t", "~tq", "~src", "~b", "~q", "~s", "~c 200", "~dst", "~meta"),
    *(
        "&",
        "|",
        "!",
        "(",
        ")",
        "'",
        '"',
        "\\",
        "~",
        "and",
        "or",
        "not",
        "^",
        "$",
        ".*",
        "[",
        "]",
        "{",
        "}",
        "(?",
        "*",
        "+",
    ),
    *(
        "api",
        "api\\.example",
        "'a b'",
        '"a\\\\.b"',
        "/x?y=1",
        ":443",
        "http://a:80",
        "é",
        "\0",
        "\n",
        "\t",
        "\ud7ff",
        "(a|b)",
    ),
]


def _filters() -> st.SearchStrategy[bytes]:
    words = st.lists(st.sampled_from(_WORDS), max_size=14)
    spaced = st.tuples(words, st.lists(st.sampled_from(["", " "]), min_size=14, max_size=14))
    joined = spaced.map(lambda both: "".join(word + gap for word, gap in zip(*both, strict=False)))
    return (joined | st.text(max_size=20)).map(lambda text: text.encode("utf-8", "replace"))


def check_filter(value: bytes) -> str:
    """A filter as rules use them, and whether it matches a request."""
    return _complaint(lambda: compile_filter(value.decode("utf-8", "replace"))(_HEAD))
