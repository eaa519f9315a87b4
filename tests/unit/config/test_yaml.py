"""YAML 1.2 as it is written, each value with its line, and every mistake on one line with a way out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jwtproxy.config import yaml
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.yaml import Node

TEXT = """\
# rules
default: sign

rules:
  - name: one
    claims:
      scope: [a, 2, 1.5, true, ~]
      when: 2026-01-01
  -
    name: 'two'
"""


def _error(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        yaml.parse(text, "r.yaml").plain()
    return caught.value


def test_values_come_as_json_has_them() -> None:
    assert yaml.parse(TEXT, "r.yaml").plain() == {
        "default": "sign",
        "rules": [
            {"name": "one", "claims": {"scope": ["a", 2, 1.5, True, None], "when": "2026-01-01"}},
            {"name": "two"},
        ],
    }


def test_each_value_knows_its_place_and_its_name() -> None:
    top = yaml.parse(TEXT, "conf/r.yaml")
    rules = top.mapping()["rules"]
    first, second = rules.sequence()
    claims = first.mapping()["claims"]
    scope = claims.mapping()["scope"]
    assert [(node.place, node.name) for node in (top, rules, first, claims, scope, scope.sequence()[0], second)] == [
        ("conf/r.yaml:2", "the file"),
        ("conf/r.yaml:4", "rules"),
        ("conf/r.yaml:5", "an item of rules"),
        ("conf/r.yaml:6", "claims"),  # its key's line, though it begins in the next
        ("conf/r.yaml:7", "scope"),
        ("conf/r.yaml:7", "an item of scope"),
        ("conf/r.yaml:10", "an item of rules"),
    ]
    error = claims.error("wrong", "right")
    assert (str(error), error.hint) == ("conf/r.yaml:6: wrong", "right")


SCALARS: list[tuple[str, Any]] = [
    ("a", "a"),
    ("yes", "yes"),
    ("no", "no"),
    ("on", "on"),
    ("y", "y"),
    ("true", True),
    ("False", False),
    ("TRUE", True),
    ("'true'", "true"),
    ("null", None),
    ("~", None),
    ("", None),
    ("''", ""),
    ("7", 7),
    ("007", 7),
    ("0o17", 15),
    ("0x1F", 31),
    ("-3", -3),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("0b1", "0b1"),
    ("1.5", 1.5),
    (".5", 0.5),
    ("-2e3", -2000.0),
    ("1.", 1.0),
    ("1.2.3", "1.2.3"),
    ("2026-01-01", "2026-01-01"),
    ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    (".", "."),
    ("=", "="),
    ("'7'", "7"),
    ("~d x", "~d x"),
    ("~d ^a\\.b$ & !~m POST", "~d ^a\\.b$ & !~m POST"),
    ('"~d \\"a b\\""', '~d "a b"'),
    ("'~d ''a b'''", "~d 'a b'"),
    ("a # cut", "a"),
    ("a#b", "a#b"),
    ("|\n  two\n  lines\n", "two\nlines\n"),
    (">-\n  one\n  line\n", "one line"),
    ("ünï cödé 🙂", "ünï cödé 🙂"),
    ("<<", "<<"),
    ("{}", {}),
    ("[]", []),
    ("{a: {b: [c]}}", {"a": {"b": ["c"]}}),
]


@pytest.mark.parametrize(("written", "value"), SCALARS)
def test_the_core_schema_of_yaml_1_2(written: str, value: object) -> None:
    found = yaml.parse(f"key: {written}", "r.yaml").plain()["key"]
    assert (found, type(found)) == (value, type(value))


def test_a_directive_brings_back_no_older_yaml() -> None:
    assert yaml.parse("%YAML 1.1\n---\na: no\nb: 1_0\n", "r.yaml").plain() == {"a": "no", "b": "1_0"}


def _node(written: str) -> Node:
    return yaml.parse(f"key: {written}", "r.yaml").mapping()["key"]


@pytest.mark.parametrize(
    ("written", "text"),
    [("a b", "a b"), ("42", "42"), ("007", "007"), ("1.50", "1.50"), ("no", "no"), ("|\n x\n", "x")],
)
def test_a_text_is_what_was_written(written: str, text: str) -> None:
    assert _node(written).text() == text


@pytest.mark.parametrize(("written", "flag"), [("true", True), ("false", False), ("True", True)])
def test_a_flag_is_true_or_false(written: str, flag: bool) -> None:
    assert _node(written).flag() is flag


KINDS = [
    ("mapping", "a", "key must be a mapping of keys to values, not 'a'"),
    ("mapping", "[a]", "key must be a mapping of keys to values, not a list"),
    ("mapping", "", "key has no value"),
    ("sequence", "a", "key must be a list, not 'a'"),
    ("sequence", "{a: b}", "key must be a list, not a mapping"),
    ("text", "[a]", "key must be a string, not a list"),
    ("text", "{a: b}", "key must be a string, not a mapping"),
    ("text", "true", "key must be a string, not 'true'"),
    ("text", "~", "key has no value"),
    ("text", "''", "key is blank"),
    ("text", "' '", "key is blank"),
    ("flag", "no", "key must be true or false, not 'no'"),
    ("flag", "'true'", "key must be true or false, not 'true'"),
    ("flag", "1", "key must be true or false, not '1'"),
    ("flag", "", "key has no value"),
    ("text", f"[{'a' * 200}]", "key must be a string, not a list"),
    ("flag", "a" * 200, f"key must be true or false, not '{'a' * 79}…'"),
]


@pytest.mark.parametrize(("reader", "written", "said"), KINDS)
def test_a_value_of_another_kind_is_an_error(reader: str, written: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        getattr(_node(written), reader)()
    assert str(caught.value) == f"r.yaml:1: {said}"


def test_a_word_that_yaml_eats_wants_quotes() -> None:
    for written in ("~", "true"):
        with pytest.raises(SettingsError) as caught:
            _node(written).text()
        assert "single quotes" in caught.value.hint


BROKEN = [
    ("", 1, "the file is empty", "write keys"),
    ("# nothing\n\n", 1, "the file is empty", "write keys"),
    ("---\n", 1, "the file is empty", "write keys"),
    ("~", 1, "the file is empty", "write keys"),
    ("a: 1\nb: [1, 2\n", 3, "bad YAML: while parsing a flow sequence: expected ',' or ']'", "brackets"),
    ("a: 1\n b: 2", 2, "bad YAML: mapping values are not allowed here", "indentation"),
    ('a: ~hq "x: y"', 1, "bad YAML: mapping values are not allowed here", "single quotes"),
    ("- a\nb: 1", 2, "bad YAML: while parsing a block collection", "indentation"),
    ("a: 1\n\tb: 2", 2, "bad YAML: ", "spaces, not tabs"),
    ("a: %x", 1, "bad YAML: while scanning for the next token: found character '%'", "single quotes"),
    ("a: @x", 1, "bad YAML: ", "single quotes"),
    ('a: "^a\\.b$"', 1, "bad YAML: while scanning a double-quoted scalar: found unknown escape", "use single quotes"),
    ("a: 'x\nb: c\n", 3, "bad YAML: while scanning a quoted scalar", "never closed"),
    ("a: |x", 1, "bad YAML: while scanning a block scalar", "single quotes"),
    ("a: & ~m GET", 1, "bad YAML: while scanning an anchor", "single quotes"),
    ("a: * b", 1, "bad YAML: while scanning an alias", "single quotes"),
    ("a: 1\na: 2", 2, "the key 'a' appears twice", "line 1 has it"),
    ("a:\n - b: 1\n   c: 2\n   b: 3", 4, "the key 'b' appears twice", "line 2 has it"),
    ("x: 1\n1: 2", 2, "a key is not a string", "quotes"),
    ("true: 2", 1, "a key is not a string", "quotes"),
    (": 2", 1, "a key is not a string", "plain word"),
    ("? [a]\n: b", 1, "a key is not a string", "plain word"),
    ("a: 1\n---\nb: 2", 2, "a second document begins", "---"),
    ("a: 1\n...\nb", 3, "a second document begins", "---"),
    ("a: 1\nb: &x 1", 2, "anchors and aliases (&x) are not used here", "single quotes"),
    ("a: *x", 1, "anchors and aliases (*x) are not used here", "single quotes"),
    ("a: !~d x", 1, "the value begins with a YAML tag, '!~d'", "single quotes"),
    ("a: !!str 5", 1, "the value begins with a YAML tag", "single quotes"),
    ("- !!python/object:os.system x", 1, "the value begins with a YAML tag", "single quotes"),
    ("a: .inf", 1, "a is .inf, which is not a number in JSON", "quotes"),
    ("a: -.INF", 1, "a is -.INF, which is not a number in JSON", "quotes"),
    ("a: .nan", 1, "a is .nan, which is not a number in JSON", "quotes"),
    ("a: 1e999", 1, "a is 1e999, which is not a number in JSON", "quotes"),
    (f"a: {'9' * 6000}", 1, f"a is {'9' * 79}…, which is not a number in JSON", "quotes"),
    (f"a: 0x{'f' * 6000}", 1, "a is 0xfff", "quotes"),
    ("a: 1\nb: \x01", 2, "not text: it holds a control character", "remove it"),
    ('a: "\\ud800"', 1, "a holds half of a surrogate pair", "the character itself"),
    ('a: 1\nb: "\\UFFFFFFFF"', 2, "bad YAML: ", "this line"),
    ("a: 1\n" + "[" * 1500, 2, "", ""),
    ("[" * 1500, 1, "values are nested more than 32 deep", "less deeply"),
]


@pytest.mark.parametrize(("text", "line", "said", "hint"), BROKEN)
def test_a_mistake_is_one_line_with_its_place(text: str, line: int, said: str, hint: str) -> None:
    error = _error(text)
    assert str(error).startswith(f"r.yaml:{line}: {said}")
    assert "\n" not in str(error)
    assert hint in error.hint


def test_a_bomb_does_not_go_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    begun = time.monotonic()
    _error("\n".join(lines))
    assert time.monotonic() - begun < 5


PIECES = [
    *":-[]{}#&*!|>'\"%@`,? \n\t~a1\\.U0xu<=",
    "- ",
    ": ",
    "\n  ",
    "---",
    "...",
    "%YAML 9.9",
    "!!",
    "!<x>",
    "<<",
    "&a ",
]


@given(
    st.lists(st.sampled_from([*PIECES, "*a", "\ufeff", "\u2028", "é", "\x85", "\\x", "1e5"]), max_size=30).map("".join)
)
@example("a: [")
def test_nothing_but_a_settings_error_is_ever_raised(text: str) -> None:
    said = "r.yaml:"
    try:
        yaml.parse(text, "r.yaml").plain()
    except SettingsError as error:
        said = str(error)
    assert said.startswith("r.yaml:")
    assert "\n" not in said


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: 1\r\nb: é\r\n", encoding="utf-8-sig")
    assert yaml.read(str(tmp_path / "r.yaml")).plain() == {"a": 1, "b": "é"}


def test_a_file_is_called_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("r.yaml").write_text("a: 1\n")
    assert yaml.read("./r.yaml").place == "./r.yaml:1"
    assert yaml.read("~/r.yaml").place == "~/r.yaml:1"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing.yaml", "cannot read 'missing.yaml': no such file or directory"),
        (".", "cannot read '.': is a directory"),
        ("a\0b", "cannot read 'a\\x00b': not a usable path"),
        ("~nobody-of-that-name/r.yaml", "cannot read '~nobody-of-that-name/r.yaml': not a usable path"),
    ],
)
def test_a_file_that_cannot_be_read(path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        yaml.read(path)
    assert str(caught.value) == said
    assert caught.value.hint == "name a file this user may read"


def test_a_file_that_is_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_bytes(b"a: 1\nb: \xfcnicode\n")
    with pytest.raises(SettingsError, match=r"^r\.yaml:2: not UTF-8 text$"):
        yaml.read("r.yaml")
