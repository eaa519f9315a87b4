"""The rules file: what it says, who decides, and every mistake with its file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jwtproxy.conduct.request import RequestHead
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm.filters import compile_filter
from jwtproxy.policy import rules
from jwtproxy.policy.rules import Rule, RuleSet

FILE = """\
default: block
rules:
  - name: payments
    match: ~d ^pay\\.example$ & ~m POST
    audience: https://pay.example
    issuer: us
    subject: "42"
    user: robot
    ttl: 60
    typ: at+jwt
    header: X-Pay
    claims:
      scope: [a, b]
      level: 3
    key: keys/partner.pem
    algorithm: PS256
  - match: telemetry
    sign: false
  - name: closed
    match: '!~m GET'
    block: true
  - match: ~all
    audience: [one, origin]
    sign: true
    block: false
"""


def _matcher(text: str) -> Callable[[RequestHead], object]:
    """In place of mitmproxy's filters: whether the path holds this."""
    if text == "bad":
        raise SettingsError("bad filter 'bad': so it is", "fix it")
    return lambda head: text == "~all" or text.encode() in head.path


def _head(path: str) -> RequestHead:
    return RequestHead(b"GET", "http", "a.example", 80, path.encode(), ())


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RuleSet]:
    """Load rules from a file with this text."""
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()

    def load(text: str) -> RuleSet:
        Path("conf/r.yaml").write_text(text, encoding="utf-8")
        return rules.load("conf/r.yaml", _matcher)

    return load


Load = Callable[[str], RuleSet]


def test_everything_that_a_rule_can_say(load: Load) -> None:
    found = load(FILE)
    assert found.default == "block"
    first, second, third, fourth = found.rules
    assert (first.name, first.place, first.action) == ("payments", "conf/r.yaml:3", "sign")
    assert first.overrides == {
        "audience": "https://pay.example",
        "issuer": "us",
        "subject": "42",
        "user": "robot",
        "ttl": 60,
        "typ": "at+jwt",
        "header": "X-Pay",
        "claims": {"scope": ["a", "b"], "level": 3},
    }
    assert (first.key, first.algorithm) == (Path("conf/keys/partner.pem"), "PS256")
    assert (second.name, second.place, second.action, second.overrides) == ("rule 2", "conf/r.yaml:17", "pass", {})
    assert (third.name, third.action, third.key, third.algorithm) == ("closed", "block", None, "")
    assert (fourth.name, fourth.action, fourth.overrides) == ("rule 4", "sign", {"audience": ("one", "origin")})


def test_the_first_match_decides(load: Load) -> None:
    found = load("rules:\n  - {name: a, match: x}\n  - {name: b, match: xy}\n  - {name: c, match: z}\n")
    assert found.default == "sign"

    def decided(path: str) -> str | None:
        rule = found.decide(_head(path))
        return rule.name if rule else None

    assert [decided(path) for path in ("xy", "zx", "z", "y", "")] == ["a", "a", "c", None, None]


@pytest.mark.parametrize(
    ("said", "action"),
    [
        ("", "sign"),
        ("sign: true", "sign"),
        ("block: false", "sign"),
        ("sign: true, block: false", "sign"),
        ("sign: false", "pass"),
        ("sign: false, block: false", "pass"),
        ("block: true", "block"),
    ],
)
def test_a_rule_does_one_thing(load: Load, said: str, action: str) -> None:
    (rule,) = load(f"rules: [{{match: ~all, {said}}}]").rules
    assert rule.action == action


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("audience: [a]", {"audience": ("a",)}),
        ("audience: origin", {"audience": "origin"}),
        ("audience: 7", {"audience": "7"}),
        ("ttl: 0", {"ttl": 0}),
        ("ttl: '5'", {"ttl": 5}),
        ("claims: {}", {"claims": {}}),
        ("claims: {a: {b: [1, null, true, 1.5, é]}}", {"claims": {"a": {"b": [1, None, True, 1.5, "é"]}}}),
        ("claims: {when: 2026-01-01}", {"claims": {"when": "2026-01-01"}}),
        ("user: no", {"user": "no"}),
    ],
)
def test_values(load: Load, said: str, value: dict[str, Any]) -> None:
    (rule,) = load(f"rules: [{{match: ~all, {said}}}]").rules
    assert rule.overrides == value


@pytest.mark.parametrize(
    ("key", "path"), [("/etc/k.pem", "/etc/k.pem"), ("~/k.pem", "/home/me/k.pem"), ("../k", "conf/../k"), (".", "conf")]
)
def test_a_key_is_named_from_where_the_rules_are(
    load: Load, key: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (rule,) = load(f"rules: [{{match: ~all, key: {key}}}]").rules
    assert rule.key == Path(path)


def test_an_algorithm_may_be_left_to_the_key(load: Load) -> None:
    (rule,) = load("rules: [{match: ~all, key: k, algorithm: auto}]").rules
    assert rule.algorithm == ""


def _one(members: str) -> str:
    """A file whose one rule has these members from line 3 on."""
    return f"rules:\n  - match: ~all\n    {members}\n"


MISTAKES = [
    # the file
    ("", 1, "the file is empty", "write keys"),
    ("- match: ~all\n", 1, "the file must be a mapping of keys to values", "'rules:'"),
    ("rules", 1, "the file must be a mapping of keys to values", "'rules:'"),
    ("default: sign\n", 1, "there are no rules", "'rules:'"),
    ("default: sign\nrule:\n  - match: ~all\n", 2, "unknown key 'rule'", "did you mean rules?"),
    ("rules: [{match: ~all}]\nversion: 1\n", 2, "unknown key 'version'", "keys are default, rules"),
    ("Rules: [{match: ~all}]\n", 1, "unknown key 'Rules'", "did you mean rules?"),
    ("default: sign\n\nrules:\n", 3, "rules has no value", "'- '"),
    ("rules: []", 1, "the list of rules is empty", "unset jwt_rules"),
    ("rules:\n  match: ~all\n", 1, "rules must be a list, not a mapping", "'- '"),
    ("rules: ~all", 1, "rules must be a list, not '~all'", "'- '"),
    ("rules: [~all]", 1, "an item of rules must be a mapping of keys to values, not '~all'", "key: value"),
    ("rules:\n  - match: ~all\n  -\n", 3, "an item of rules has no value", "key: value"),
    ("default: deny\nrules: [{match: ~all}]", 1, "bad value 'deny' for default", "sign or block"),
    ("default: pass\nrules: [{match: ~all}]", 1, "bad value 'pass' for default", "sign or block"),
    ("rules: [{match: ~all}]\ndefault:", 2, "default has no value", ""),
    ("rules: [{match: ~all}]\ndefault: true", 2, "default must be a string, not 'true'", ""),
    # keys
    (_one("audiense: x"), 3, "unknown key 'audiense'", "did you mean audience?"),
    (_one("aud: x"), 3, "unknown key 'aud'", "audience"),
    (_one("Issuer: x"), 3, "unknown key 'Issuer'", "did you mean issuer?"),
    (_one("zzz: x"), 3, "unknown key 'zzz'", "keys are name, match, sign, block, user"),
    (_one("match: x"), 3, "the key 'match' appears twice", "line 2"),
    # match
    ("rules:\n  - name: a\n", 2, "the rule has no match", "match: ~all"),
    ("rules:\n  - match:\n", 2, "match has no value", "~all"),
    ("rules:\n  - match: ~\n", 2, "match has no value", "quotes"),
    ("rules:\n  - match: ''\n", 2, "match is blank", ""),
    ("rules:\n  - match: [a]\n", 2, "match must be a string, not a list", ""),
    ("rules:\n  - match: true\n", 2, "match must be a string, not 'true'", "quotes"),
    ("rules:\n  - match: !~d x\n", 2, "the value begins with a YAML tag, '!~d'", "single quotes"),
    ("rules:\n  - match: bad\n", 2, "bad filter 'bad': so it is", "fix it"),
    # what a rule does
    (_one("sign: no"), 3, "sign must be true or false, not 'no'", "yes, no, on and off"),
    (_one("block: yes"), 3, "block must be true or false, not 'yes'", "yes, no, on and off"),
    (_one("sign: ''"), 3, "sign must be true or false, not ''", ""),
    (_one("block: 1"), 3, "block must be true or false, not '1'", ""),
    (_one("sign: false\n    block: true"), 3, "sign contradicts block: true", "one of the two"),
    (_one("block: true\n    sign: true"), 4, "sign contradicts block: true", "one of the two"),
    (_one("sign: false\n    audience: x"), 4, "audience has no effect with sign: false", "one of the two"),
    (_one("block: true\n    key: x"), 4, "key has no effect with block: true", "one of the two"),
    (_one("block: true\n    header: x"), 4, "header has no effect with block: true", "one of the two"),
    # names
    (_one("name: ''"), 3, "name is blank", ""),
    (_one("name: default"), 3, "a rule must not be called 'default'", "no rule matches; use another name"),
    (_one("name: other"), 3, "a rule must not be called 'other'", "metrics have no room for; use another name"),
    (_one('name: "a\\nb"'), 3, "bad value 'a\\nb' for name", "one line"),
    (_one('name: "a\\tb"'), 3, "bad value 'a\\tb' for name", "one line"),
    (_one("name: ' a'"), 3, "bad value ' a' for name", "one line"),
    (_one(f"name: {'a' * 81}"), 3, f"bad value '{'a' * 80}' for name", "80 characters"),
    ("rules:\n  - {match: a, name: x}\n  - {match: b, name: x}\n", 3, "the name 'x' is taken", "conf/r.yaml:2"),
    ("rules:\n  - {match: a, name: rule 2}\n  - {match: b}\n", 3, "the name 'rule 2' is taken", "conf/r.yaml:2"),
    # values
    (_one("header: x y"), 3, "bad value 'x y' for header", "letters, digits and hyphens"),
    (_one("header: Host"), 3, "bad value 'Host' for header", "a meaning of its own"),
    (_one("header: [x]"), 3, "header must be a string, not a list", ""),
    (_one("ttl: soon"), 3, "bad value 'soon' for ttl", "seconds"),
    (_one("ttl: -1"), 3, "bad value '-1' for ttl", "seconds"),
    (_one("ttl: 1.5"), 3, "bad value '1.5' for ttl", "seconds"),
    (_one("ttl: 5m"), 3, "bad value '5m' for ttl", "seconds"),
    (_one("ttl: .inf"), 3, "ttl is .inf, which is not a number in JSON", ""),
    (_one("typ: a b"), 3, "bad value 'a b' for typ", "media type"),
    (_one("user:"), 3, "user has no value", ""),
    (_one("issuer: ''"), 3, "issuer is blank", "remove it"),
    (_one("subject: {a: b}"), 3, "subject must be a string, not a mapping", ""),
    (_one("audience: []"), 3, "audience has no items", "at least one"),
    (_one("audience:\n      - a\n      - ''"), 5, "an item of audience is blank", ""),
    (_one("audience:\n      - a\n      - [b]"), 5, "an item of audience must be a string, not a list", ""),
    (_one("claims: scope"), 3, "claims must be a mapping of keys to values, not 'scope'", ""),
    (_one("claims: [a]"), 3, "claims must be a mapping of keys to values, not a list", ""),
    (_one("claims:\n      a: 1\n      1: a"), 5, "a key is not a string", "quotes"),
    (_one("claims: {iat: 1}"), 3, "the claim 'iat' is the proxy's own", "remove it"),
    (_one("claims: {exp: 1}"), 3, "the claim 'exp' is the proxy's own", "remove it"),
    (_one("claims: {iss: 1}"), 3, "the claim 'iss' is 1", "a string"),
    (_one("claims: {a: *b}"), 3, "anchors and aliases (*b) are not used here", "write the value out"),
    (_one("key: ''"), 3, "key is blank", ""),
    (_one("key: [a, b]"), 3, "key must be a string, not a list", ""),
    (_one("key: ~nobody-of-that-name/k"), 3, "bad value '~nobody-of-that-name/k' for key", "write out the whole path"),
    (_one("algorithm: ES256"), 3, "algorithm without key", "the rule its own key"),
    (_one("key: k\n    algorithm: none"), 4, "bad value 'none' for algorithm", "use one of auto, HS256"),
    (_one("key: k\n    algorithm: es256"), 4, "bad value 'es256' for algorithm", "ES256"),
    # order
    ("rules:\n  - match: ~all\n  - match: x\n", 3, "the rule never applies", "the one in conf/r.yaml:2"),
    ("rules:\n  - match: x\n  - match: y\n  - match: ' x'\n", 4, "the rule never applies", "the one in conf/r.yaml:2"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "said", "hint"), MISTAKES)
def test_a_mistake_names_file_line_and_value(load: Load, text: str, line: int, said: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert str(caught.value).startswith(f"conf/r.yaml:{line}: {said}")
    assert "jwt_" not in str(caught.value)
    assert "JWT_" not in caught.value.hint
    assert hint in caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        rules.load(str(tmp_path / "r.yaml"), _matcher)


def test_a_rule_set_may_be_made_by_hand() -> None:
    rule = Rule("a", "here:1", lambda head: head.path, "sign")
    assert RuleSet((rule,), "sign").decide(_head("/")) is rule
    assert RuleSet((rule,), "sign").decide(_head("")) is None


def test_filters_look_at_the_request_in_its_one_spelling(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rules: [{match: '~d ^a\\.example$ & ~m GET'}, {match: '~u /admin'}]")
    found = rules.load(str(tmp_path / "r.yaml"), compile_filter)
    heads = {
        "rule 1": RequestHead(b"GET", "http", "A.Example.", 80, b"/", ()),
        "rule 2": RequestHead(b"POST", "http", "a.example", 80, b"/x/../%61dmin", ()),
        None: RequestHead(b"POST", "http", "a.example", 80, b"/", ()),
    }
    for name, head in heads.items():
        rule = found.decide(head)
        assert (rule and rule.name) == name
