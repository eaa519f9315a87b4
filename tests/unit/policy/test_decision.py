"""Rules and keys together say which rule decides on a request, and how its token is made."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc import jws

from jwtproxy.conduct.request import RequestHead
from jwtproxy.config.errors import SettingsError
from jwtproxy.policy import decision
from jwtproxy.policy.decision import Decisions
from jwtproxy.policy.settings import OPTIONS, parse
from jwtproxy.tokens import key_source
from jwtproxy.tokens.key_source import KeySource
from jwtproxy.tokens.keyring import NoKeyError, Reader
from jwtproxy.tokens.token_maker import TokenMaker

SECRET = secrets.token_bytes(64)
SHARED = KeySource(key_source.SECRET, SECRET)
NOW = 1_700_000_000.0
ORIGIN = "https://api.example"
RSA = rsa.generate_private_key(65537, 2048)
PEM, OTHER = (
    ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for _ in range(2)
)


def _compile(text: str) -> Callable[[RequestHead], bool]:
    """A filter here is a string that the path must hold, or begin with after `^`; `~all` is every one."""
    begins = text.removeprefix("^").encode()
    return lambda head: (
        text == "~all" or text.encode() in head.path or (text[:1] == "^" and head.path.startswith(begins))
    )


def _head(path: str) -> RequestHead:
    return RequestHead(b"GET", "https", "api.example", 443, path.encode(), ())


class Loader:
    """Loads decisions whose rules are in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reader = Reader(0)

    def __call__(self, rules: str = "", source: KeySource = SHARED, **options: str) -> Decisions:
        values = {option.name: options.get(option.name.removeprefix("jwt_"), "") for option in OPTIONS}
        if rules:
            (self.folder / "rules.yaml").write_text(rules)
            values["jwt_rules"] = str(self.folder / "rules.yaml")
        return decision.load(parse(SimpleNamespace(**values)), source, _compile, self.reader)


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    (tmp_path / "ed.pem").write_text(PEM)
    (tmp_path / "other.pem").write_text(OTHER)
    return Loader(tmp_path)


def _token(maker: TokenMaker | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of what it makes, but for those that differ each time."""
    assert maker
    token = jws.extract_compact(maker.token(ORIGIN, NOW).encode())
    claims = json.loads(token.payload)
    del claims["jti"]
    return dict(token.protected), claims


OURS = {"iat": 1_700_000_000, "payload": {"user": "username", "date": "2023-11-14"}}


def test_without_rules_every_request_is_signed_and_not_looked_at(load: Loader) -> None:
    found = load()
    for head in (_head("a"), None):
        rule, place, action, maker = found.on(head)  # type: ignore[arg-type]
        assert (rule, place, action) == ("default", None, "sign")
        assert maker is found.default
        assert _token(maker) == ({"alg": "HS512", "typ": "JWT"}, OURS)
    assert found.rules is None
    assert found.all_makers == (found.default,)


RULES = """\
rules:
  - name: pay
    match: pay
    audience: [origin, more]
    claims: {scope: pay, nested: {a: 1}}
    header: X_Pay
    ttl: 60
  - match: mine
    user: me
    issuer: someone
    subject: something
    typ: at+jwt
  - match: partner
    key: ed.pem
  - match: metrics
    sign: false
  - match: secret
    block: true
  - match: p
    ttl: 0
"""


@pytest.mark.parametrize(
    ("path", "rule", "line", "action"),
    [
        ("pay", "pay", 2, "sign"),
        ("pay mine", "pay", 2, "sign"),
        ("mine", "rule 2", 8, "sign"),
        ("metrics", "rule 4", 15, "pass"),
        ("secret partner", "rule 3", 13, "sign"),
        ("secret", "rule 5", 17, "block"),
        ("p", "rule 6", 19, "sign"),
        ("else", "default", None, "sign"),
    ],
)
def test_the_first_rule_that_matches_decides(load: Loader, path: str, rule: str, line: int | None, action: str) -> None:
    decided = load(RULES).on(_head(path))
    assert (decided.rule, decided.action) == (rule, action)
    assert decided.place == (f"{load.folder}/rules.yaml:{line}" if line else None)
    assert (decided.maker is not None) == (action == "sign")


def test_a_rule_adds_to_what_the_options_say(load: Loader) -> None:
    found = load(RULES, claims='{"scope": "all", "env": "test"}', issuer="us", ttl="300", typ="T")
    assert _token(found.on(_head("else")).maker) == (
        {"alg": "HS512", "typ": "T"},
        OURS | {"scope": "all", "env": "test", "iss": "us", "nbf": 1_699_999_940, "exp": 1_700_000_300},
    )
    assert _token(found.on(_head("pay")).maker)[1] == OURS | {
        "scope": "pay",
        "nested": {"a": 1},
        "env": "test",
        "iss": "us",
        "aud": [ORIGIN, "more"],
        "nbf": 1_699_999_940,
        "exp": 1_700_000_060,
    }
    header, claims = _token(found.on(_head("mine")).maker)
    assert header["typ"] == "at+jwt"
    assert (claims["iss"], claims["sub"], claims["payload"]["user"]) == ("someone", "something", "me")
    assert claims["scope"] == "all"
    assert not {"exp", "nbf"} & set(_token(found.on(_head("p")).maker)[1]), "ttl 0 is none"


def test_the_header_is_that_of_the_rule(load: Loader) -> None:
    found = load(RULES, header="X-Identity")
    fields = {path: maker.field for path in ("pay", "mine", "else") if (maker := found.on(_head(path)).maker)}
    assert fields == {"pay": b"X_Pay", "mine": b"X-Identity", "else": b"X-Identity"}
    assert [maker.field for maker in found.all_makers] == [b"X-Identity", b"X_Pay", *[b"X-Identity"] * 3]


def test_what_no_rule_allows_may_be_blocked(load: Loader) -> None:
    found = load("default: block\n" + RULES)
    assert found.on(_head("else")) == ("default", None, "block", None)
    assert found.on(_head("pay")).action == "sign"


def test_a_rule_may_have_a_key_of_its_own(load: Loader) -> None:
    source = KeySource(key_source.KEY_FILE, None, str(load.folder / "other.pem"))
    found = load(RULES, source, kid="k1")
    assert _token(found.on(_head("mine")).maker)[0] == {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}
    (key,) = found.makers["rule 3"].ring.keys
    assert _token(found.on(_head("partner")).maker)[0] == {"alg": "EdDSA", "typ": "JWT", "kid": key.kid}
    assert key.kid != "k1"
    assert found.makers["rule 2"].ring is found.all_makers[0].ring, "the same keys are read once"


def test_its_algorithm_is_not_that_of_the_options(load: Loader) -> None:
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (load.folder / "rsa.pem").write_bytes(pem)
    rules = "rules: [{match: a, key: rsa.pem, algorithm: PS384}, {match: b, key: ed.pem}]"
    found = load(rules, algorithm="HS256")
    assert [_token(found.on(_head(path)).maker)[0]["alg"] for path in "abc"] == ["PS384", "EdDSA", "HS256"]


def test_it_may_be_a_folder_and_what_signs_changes_with_time(load: Loader) -> None:
    (load.folder / "keys").mkdir()
    for name, text in (("a", PEM), ("b", OTHER)):
        (load.folder / "keys" / f"{name}.pem").write_text(text)
        os.utime(load.folder / "keys" / f"{name}.pem", (0, 0))
    (load.folder / "keys" / "keys.yaml").write_text("a.pem: {kid: a}\nb.pem: {kid: b, not_before: 2023-11-15}")
    maker = load("rules: [{match: ~all, key: keys}]").on(_head("")).maker
    assert maker
    kids = [json.loads(jws.extract_compact(maker.token("", NOW + day).encode()).payload)["iat"] for day in (0, 86_400)]
    assert kids == [int(NOW), int(NOW) + 86_400]
    assert [maker.ring.signing(NOW + day).kid for day in (0, 86_400)] == ["a", "b"]


@pytest.mark.parametrize("name", [key_source.SECRET, key_source.KEY_FILE])
def test_the_pass_phrase_opens_it_too(load: Loader, name: str) -> None:
    """Also where the default key is a shared secret, which needs none."""
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    (load.folder / "locked.pem").write_bytes(pem)
    value = SECRET.hex() if name == key_source.SECRET else str(load.folder / "ed.pem")
    source = key_source.find({name: value, key_source.PASSPHRASE: "open sesame"})
    found = load("rules: [{match: a, key: locked.pem}]", source)
    assert _token(found.on(_head("a")).maker)[0]["alg"] == "RS256"


# --- mistakes


@pytest.mark.parametrize(
    ("rules", "options", "said"),
    [
        ("rules: [{match: a, issuer: x}]", {"claims": '{"iss": "y"}'}, ":1: the claim 'iss' is set twice"),
        ("rules:\n- match: a\n  claims: {aud: x}", {"audience": "y"}, ":2: the claim 'aud' is set twice"),
        ("rules: [{match: a, claims: {sub: x}, subject: y}]", {}, ":1: the claim 'sub' is set twice"),
        ("rules:\n- match: b\n- {match: a, key: none.pem}", {}, ":3: cannot read "),
        ("rules: [{match: a, key: ed.pem, algorithm: RS256}]", {}, ":1: "),
        ("rules: [{match: a, key: rules.yaml}]", {}, ":1: "),
        ("rules: [{match: a, key: empty}]", {}, ":1: there is no key in "),
        ("rules: [{match: a, audienc: x}]", {}, ":1: unknown key 'audienc'"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_with_its_place(
    load: Loader, rules: str, options: dict[str, str], said: str
) -> None:
    (load.folder / "empty").mkdir()
    with pytest.raises(SettingsError) as caught:
        load(rules, SHARED, **options)
    assert str(caught.value).startswith(f"{load.folder}/rules.yaml:")
    assert said in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("key", ["none.pem", "public.pem", "rules.yaml", "empty", "short"])
def test_the_key_of_a_rule_is_not_taken_for_that_of_a_variable(load: Loader, key: str) -> None:
    """Who reads `JWT_KEY_FILE` looks in the wrong place."""
    (load.folder / "empty").mkdir()
    (load.folder / "short").write_text("feedface")
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (load.folder / "public.pem").write_bytes(public)
    with pytest.raises(SettingsError) as caught:
        load(f"rules: [{{match: a, key: {key}}}]")
    assert "JWT_KEY" not in str(caught.value)
    assert f"key {str(load.folder / key)!r}" in str(caught.value)


def test_a_secret_in_place_of_its_path_is_not_repeated(load: Loader) -> None:
    secret = "ab" * 64
    with pytest.raises(SettingsError, match=r":1: key holds what looks like a key, not a path$") as caught:
        load(f"rules: [{{match: a, key: {secret}}}]")
    assert secret not in str(caught.value) + caught.value.hint


def test_the_claims_of_the_options_are_checked_too(load: Loader) -> None:
    with pytest.raises(SettingsError, match="the claim 'iss' is set twice"):
        load(issuer="a", claims='{"iss": "b"}')


def test_who_has_no_key_for_now_is_not_put_in_force(load: Loader) -> None:
    (load.folder / "keys").mkdir()
    (load.folder / "keys/a.pem").write_text(PEM)
    (load.folder / "keys/keys.yaml").write_text("a.pem: {not_before: 2999-01-01}")
    with pytest.raises(NoKeyError, match="no key may sign now") as caught:
        load("rules: [{match: a, key: keys}]")
    assert str(caught.value).startswith(f"{load.folder}/rules.yaml:1: ")
    assert f"{load.folder}/keys/a.pem" in caught.value.hint
    assert caught.value.until == datetime(2999, 1, 1, tzinfo=UTC).timestamp(), "when to try again"
    text = json.dumps({"kty": "oct", "k": "A" * 86, "exp": time.time() - 1})
    (load.folder / "old.json").write_text(text)
    with pytest.raises(SettingsError, match="no key may sign now"):
        load(source=KeySource(key_source.KEY_FILE, None, str(load.folder / "old.json")))


def test_rules_and_all_keys_are_watched(load: Loader) -> None:
    load(RULES)
    assert load.reader.watched.changed() == {}
    (load.folder / "ed.pem").write_text(OTHER + "\n")
    (load.folder / "rules.yaml").unlink()
    assert set(load.reader.watched.changed()) == {load.folder / "ed.pem", load.folder / "rules.yaml"}


@pytest.mark.parametrize(
    ("path", "action"),
    [("/admin", "block"), ("//admin", "block"), ("/%2Fadmin", "block"), ("/x/..%2fadmin", "block"), ("//x", "sign")],
)
def test_a_path_that_is_blocked_in_any_reading_is_blocked(load: Loader, path: str, action: str) -> None:
    """Servers differ in what is a slash."""
    decisions = load("rules: [{match: ^/admin, block: true}]")
    assert decisions.on(_head(path)).action == action
