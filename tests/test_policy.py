"""Rules and keys together say what becomes of a request."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
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

from jwtproxy import key_source, policy
from jwtproxy.key_source import Source
from jwtproxy.keyring import Reader
from jwtproxy.policy import Policy, Target
from jwtproxy.settings import OPTIONS, SettingsError, parse

SECRET = secrets.token_bytes(64)
SHARED = Source(key_source.SECRET, SECRET)
NOW = 1_700_000_000.0
ORIGIN = "https://api.example"
RSA = rsa.generate_private_key(65537, 2048)
PEM, OTHER = (
    ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for _ in range(2)
)


def _compile(text: str) -> Callable[[Any], bool]:
    """A filter here is a text that the flow, a text too, must hold; `~all` is every one."""
    return lambda flow: text == "~all" or text in flow


class Loader:
    """Loads policies whose rules are in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reader = Reader(0)

    def __call__(self, rules: str = "", source: Source = SHARED, **options: str) -> Policy:
        values = {option.name: options.get(option.name.removeprefix("jwt_"), "") for option in OPTIONS}
        if rules:
            (self.folder / "rules.yaml").write_text(rules)
            values["jwt_rules"] = str(self.folder / "rules.yaml")
        return policy.load(parse(values), source, _compile, self.reader)


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    (tmp_path / "ed.pem").write_text(PEM)
    (tmp_path / "other.pem").write_text(OTHER)
    return Loader(tmp_path)


def _token(target: Target | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of what it makes, but for those that differ each time."""
    assert target
    token = jws.extract_compact(target.token(ORIGIN, NOW).encode())
    claims = json.loads(token.payload)
    del claims["jti"]
    return dict(token.protected), claims


OURS = {"iat": 1_700_000_000, "payload": {"user": "username", "date": "2023-11-14"}}


def test_without_rules_every_request_is_signed_and_not_looked_at(load: Loader) -> None:
    found = load()
    assert json.loads(found.jwks) == {"keys": []}, "a shared secret is not published"
    decision = found.decide(None)
    assert (decision.rule, decision.place, decision.action) == ("default", None, "sign")
    assert _token(decision.target) == ({"alg": "HS512", "typ": "JWT"}, OURS)
    assert found.fields == {b"x-my-jwt"}
    assert not found.wants_destination
    assert re.findall(r"\d+", str(found)) == ["1", "0"], "keys, rules"


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
    ("flow", "rule", "line", "action"),
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
def test_the_first_rule_that_matches_decides(load: Loader, flow: str, rule: str, line: int | None, action: str) -> None:
    decision = load(RULES).decide(flow)
    assert (decision.rule, decision.action) == (rule, action)
    assert decision.place == (f"{load.folder}/rules.yaml:{line}" if line else None)
    assert (decision.target is not None) == (action == "sign")


def test_a_rule_adds_to_what_the_options_say(load: Loader) -> None:
    found = load(RULES, claims='{"scope": "all", "env": "test"}', issuer="us", ttl="300", typ="T")
    assert _token(found.decide("else").target) == (
        {"alg": "HS512", "typ": "T"},
        OURS | {"scope": "all", "env": "test", "iss": "us", "nbf": 1_699_999_940, "exp": 1_700_000_300},
    )
    assert _token(found.decide("pay").target)[1] == OURS | {
        "scope": "pay",
        "nested": {"a": 1},
        "env": "test",
        "iss": "us",
        "aud": [ORIGIN, "more"],
        "nbf": 1_699_999_940,
        "exp": 1_700_000_060,
    }
    header, claims = _token(found.decide("mine").target)
    assert header["typ"] == "at+jwt"
    assert (claims["iss"], claims["sub"], claims["payload"]["user"]) == ("someone", "something", "me")
    assert claims["scope"] == "all"
    assert not {"exp", "nbf"} & set(_token(found.decide("p").target)[1]), "ttl 0 is none"


def test_the_header_is_that_of_the_rule_and_none_passes_from_a_client(load: Loader) -> None:
    found = load(RULES, header="X-Identity")
    fields = {flow: target.field for flow in ("pay", "mine", "else") if (target := found.decide(flow).target)}
    assert fields == {"pay": b"X_Pay", "mine": b"X-Identity", "else": b"X-Identity"}
    assert found.fields == {b"x-pay", b"x-identity"}


def test_what_no_rule_allows_may_be_blocked(load: Loader) -> None:
    found = load("default: block\n" + RULES)
    assert found.decide("else") == ("default", None, "block", None)
    assert found.decide("pay").action == "sign"


def test_a_rule_may_have_a_key_of_its_own(load: Loader) -> None:
    source = Source(key_source.KEY_FILE, None, str(load.folder / "other.pem"))
    found = load(RULES, source, kid="k1")
    public = json.loads(found.jwks)["keys"]
    assert [key["kid"] for key in public] == ["k1", _token(found.decide("partner").target)[0]["kid"]]
    assert _token(found.decide("mine").target)[0] == {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}
    assert all(set(key) == {"kty", "crv", "x", "use", "alg", "kid"} for key in public)
    assert re.findall(r"\d+", str(found)) == ["2", "6"], "keys, rules"


def test_its_algorithm_is_not_that_of_the_options(load: Loader) -> None:
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (load.folder / "rsa.pem").write_bytes(pem)
    rules = "rules: [{match: a, key: rsa.pem, algorithm: PS384}, {match: b, key: ed.pem}]"
    found = load(rules, algorithm="HS256")
    assert [_token(found.decide(flow).target)[0]["alg"] for flow in "abc"] == ["PS384", "EdDSA", "HS256"]


def test_it_may_be_a_folder_and_what_signs_changes_with_time(load: Loader) -> None:
    (load.folder / "keys").mkdir()
    for name, text in (("a", PEM), ("b", OTHER)):
        (load.folder / "keys" / f"{name}.pem").write_text(text)
        os.utime(load.folder / "keys" / f"{name}.pem", (0, 0))
    (load.folder / "keys" / "keys.yaml").write_text("a.pem: {kid: a}\nb.pem: {kid: b, not_before: 2023-11-15}")
    target = load("rules: [{match: ~all, key: keys}]").decide("").target
    assert target
    kids = [json.loads(jws.extract_compact(target.token("", NOW + day).encode()).payload)["iat"] for day in (0, 86_400)]
    assert kids == [int(NOW), int(NOW) + 86_400]
    assert [target.ring.signing(NOW + day).kid for day in (0, 86_400)] == ["a", "b"]


@pytest.mark.parametrize("name", [key_source.SECRET, key_source.KEY_FILE])
def test_the_pass_phrase_opens_it_too(load: Loader, name: str) -> None:
    """Also where the default key is a shared secret, which needs none."""
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    (load.folder / "locked.pem").write_bytes(pem)
    value = SECRET.hex() if name == key_source.SECRET else str(load.folder / "ed.pem")
    source = key_source.find({name: value, key_source.PASSPHRASE: "open sesame"})
    found = load("rules: [{match: a, key: locked.pem}]", source)
    assert _token(found.decide("a").target)[0]["alg"] == "RS256"


@pytest.mark.parametrize(
    ("options", "rules", "wanted"),
    [
        ({"audience": "origin"}, "", True),
        ({"audience": "https://origin"}, "", False),
        ({}, "rules: [{match: a, sign: false}]", True),
    ],
)
def test_the_destination_is_looked_at_where_it_matters(
    load: Loader, options: dict[str, str], rules: str, wanted: bool
) -> None:
    assert load(rules, SHARED, **options).wants_destination is wanted


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
    assert key in str(caught.value)


def test_one_key_for_two_algorithms_is_an_error(load: Loader) -> None:
    (load.folder / "rsa.pem").write_bytes(RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SettingsError, match="to one for two algorithms"):
        load("rules: [{match: a, key: rsa.pem}, {match: b, key: rsa.pem, algorithm: PS256}]")


def test_the_claims_of_the_options_are_checked_too(load: Loader) -> None:
    with pytest.raises(SettingsError, match="the claim 'iss' is set twice"):
        load(issuer="a", claims='{"iss": "b"}')


def test_who_has_no_key_for_now_is_not_put_in_force(load: Loader) -> None:
    (load.folder / "keys").mkdir()
    (load.folder / "keys/a.pem").write_text(PEM)
    (load.folder / "keys/keys.yaml").write_text("a.pem: {not_before: 2999-01-01}")
    with pytest.raises(SettingsError, match="no key may sign now") as caught:
        load("rules: [{match: a, key: keys}]")
    assert f"{load.folder}/keys/a.pem" in caught.value.hint
    text = json.dumps({"kty": "oct", "k": "A" * 86, "exp": time.time() - 1})
    (load.folder / "old.json").write_text(text)
    with pytest.raises(SettingsError, match="no key may sign now"):
        load(source=Source(key_source.KEY_FILE, None, str(load.folder / "old.json")))


def test_rules_and_all_keys_are_watched(load: Loader) -> None:
    load(RULES)
    assert load.reader.watched.changed() == {}
    (load.folder / "ed.pem").write_text(OTHER + "\n")
    (load.folder / "rules.yaml").unlink()
    assert set(load.reader.watched.changed()) == {load.folder / "ed.pem", load.folder / "rules.yaml"}
