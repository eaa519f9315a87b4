"""The key is found where users put it, the stronger source first, and no error repeats it."""

from __future__ import annotations

import itertools
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwtproxy.config.errors import SettingsError
from jwtproxy.tokens.key_source import (
    KEY_DIR,
    KEY_FILE,
    OPTIONS,
    PASSPHRASE,
    PASSPHRASE_FILE,
    SECRET,
    SECRET_FILE,
    KeySource,
    check_path,
    find,
    find_for_script,
    read,
)

KEY, OTHER = secrets.token_bytes(64), secrets.token_bytes(64)
PATHS = (SECRET_FILE, KEY_FILE, KEY_DIR)

Shown = Callable[[BaseException], str]

spaces = st.text(" \t\r\n\f\v", max_size=3)


@st.composite
def spaced_hex(draw: st.DrawFn, key: bytes) -> str:
    """The key in hexadecimal, in any case, with white space anywhere."""
    digits = "".join(pair.upper() if draw(st.booleans()) else pair for pair in re.findall("..?.?", key.hex()))
    cuts = sorted(draw(st.lists(st.integers(0, len(digits)), max_size=4)))
    pieces = [digits[start:end] for start, end in itertools.pairwise([0, *cuts, len(digits)])]
    return draw(spaces) + "".join(piece + draw(spaces) for piece in pieces)


# --- the shared secret


@given(st.data(), st.binary(min_size=1, max_size=64))
def test_white_space_inside_is_ignored(data: st.DataObject, key: bytes) -> None:
    assert find({SECRET: data.draw(spaced_hex(key))}) == KeySource(SECRET, key)


@settings(max_examples=40)  # all that is shown takes a while to put together
@given(
    left=st.text("0123456789abcdefABCDEF", min_size=16),
    right=st.text("0123456789abcdefABCDEF", min_size=16),
    broken=st.sampled_from(["", "g", "0x", "é", "_", "-", "\0", "٣"]),  # an Arabic digit, not a Latin one
)
def test_no_error_repeats_the_secret(left: str, right: str, broken: str, shown: Shown) -> None:
    if not broken and not len(left + right) % 2:
        left += "0"  # odd, as nothing else is wrong
    with pytest.raises(SettingsError) as caught:
        find({SECRET: left + broken + right})
    assert caught.value.hint
    for part in (left, right, left + broken + right):
        assert part not in shown(caught.value)
        assert part.lower() not in shown(caught.value)


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("", f"{SECRET} is empty", "openssl rand -hex 64"),
        (" \n\t ", f"{SECRET} is empty", "openssl rand -hex 64"),
        ("xyz", f"{SECRET} is not hexadecimal", "0-9 and a-f"),
        ("0x00", f"{SECRET} is not hexadecimal: it begins with 0x", "remove that"),
        ("é" * 64, f"{SECRET} is not hexadecimal", "0-9 and a-f"),
        ("abc", f"{SECRET} has an odd number of hexadecimal digits (3)", "missing"),
        ("a b c\n", f"{SECRET} has an odd number of hexadecimal digits (3)", "missing"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(value: str, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        find({SECRET: value})
    assert str(caught.value) == message
    assert hint in caught.value.hint


# --- which of them


def test_no_key_anywhere_is_an_error_that_names_every_way() -> None:
    with pytest.raises(SettingsError, match=rf"{SECRET} is not set") as caught:
        find({}, {})
    assert "openssl rand -hex 64" in caught.value.hint
    assert all(name in caught.value.hint for name in PATHS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("JWT_SECRET", SECRET),
        ("JWT_SECRET_KEY", SECRET),
        ("JWT_SHARED_SECERT", SECRET),
        ("jwt_shared_secret", SECRET),
        ("JWT_KEY", KEY_FILE),
        ("JWT_KEYFILE", KEY_FILE),
        ("JWT_SECRET_FILE", SECRET_FILE),
        ("JWT_KEYDIR", KEY_DIR),
    ],
)
def test_no_key_but_nearly_one_is_an_error_that_names_it(name: str, meant: str) -> None:
    for sources in [({name: KEY.hex()},), ({"JWT_USER": "x"}, {"JWT_EXP": "1", name: KEY.hex()})]:
        with pytest.raises(SettingsError) as caught:
            find(*sources)
        assert str(caught.value) == f"{SECRET} is not set, but {name} is"
        assert caught.value.hint.startswith(f"did you mean {meant}? If not, ")
        assert KEY.hex() not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("name", ["JWT_EXP", "JWT_PASSWORD", "JWT_USR", "SECRET", "JWT_KID", "JWT_ISSUER"])
def test_what_names_no_key_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{SECRET} is not set$"):
        find({name: "x"})


@pytest.mark.parametrize("weaker", PATHS)
@pytest.mark.parametrize("stronger", PATHS)
def test_the_first_source_that_names_one_wins(stronger: str, weaker: str) -> None:
    secret = {SECRET: KEY.hex()}
    path = KeySource(stronger, None, "a")
    assert find({stronger: "a"}, {weaker: "b"}) == path
    assert find({}, {stronger: "a"}, {weaker: "b"}) == path
    assert find({stronger: "a"}, secret) == path, "a path of the first source beats a value of the second"
    assert find(secret, {weaker: "b"}) == KeySource(SECRET, KEY)
    assert find({stronger: ""}, {weaker: "b"}) == KeySource(weaker, None, "b"), "an empty path counts as none"
    assert find(secret | {stronger: ""}) == KeySource(SECRET, KEY)


def test_a_weaker_source_is_not_even_looked_at() -> None:
    assert find({KEY_FILE: "a"}, {SECRET: "not even hex", KEY_DIR: "b"}) == KeySource(KEY_FILE, None, "a")


def test_an_empty_secret_does_not_fall_back_to_the_next_source() -> None:
    for weaker in ({SECRET: KEY.hex()}, {KEY_FILE: "a"}):
        with pytest.raises(SettingsError, match="is empty"):
            find({SECRET: ""}, weaker)


@pytest.mark.parametrize("second", PATHS)
@pytest.mark.parametrize("first", [SECRET, *PATHS])
@pytest.mark.parametrize("value", [KEY.hex(), ""])
def test_two_of_one_source_contradict_each_other(first: str, second: str, value: str) -> None:
    source = {first: value if first == SECRET else "a"} | {second: "b"}
    if len(source) == 1:
        return
    for sources in ((source,), ({}, source), (source, {SECRET: KEY.hex()})):
        with pytest.raises(SettingsError) as caught:
            find(*sources)
        assert first in str(caught.value)
        assert second in str(caught.value)
        assert caught.value.hint


def test_a_source_does_not_show_its_secrets() -> None:
    said = repr(find({SECRET: KEY.hex()})) + repr(find({KEY_FILE: "a", PASSPHRASE: "open sesame"}))
    assert repr(KEY) not in said
    assert "sesame" not in said


# --- the passphrase


def _phrase(*sources: dict[str, str]) -> bytes | None:
    return find({KEY_FILE: "a"}, *sources).read_passphrase()


@pytest.mark.parametrize("content", ["open sesame", "open sesame\n", "open sesame\r\n"])
def test_the_pass_phrase_may_be_a_variable_or_in_a_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "phrase").write_text(content)
    assert _phrase({PASSPHRASE_FILE: str(tmp_path / "phrase")}) == b"open sesame"
    assert _phrase({PASSPHRASE: "open sesame"}) == b"open sesame"
    assert _phrase() is None
    assert _phrase({PASSPHRASE: "", PASSPHRASE_FILE: ""}) is None, "empty means unset"


def test_white_space_is_part_of_a_pass_phrase(tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text(" a  b \n")
    assert _phrase({PASSPHRASE_FILE: str(tmp_path / "phrase")}) == b" a  b "
    assert _phrase({PASSPHRASE: " é "}) == " é ".encode()


def test_the_stronger_source_of_a_pass_phrase_wins() -> None:
    assert _phrase({PASSPHRASE: "first"}, {PASSPHRASE: "second"}) == b"first"
    assert _phrase({PASSPHRASE: "first"}, {PASSPHRASE_FILE: "missing"}) == b"first"
    assert _phrase({PASSPHRASE: ""}, {PASSPHRASE: "second"}) == b"second"


def test_two_pass_phrases_of_one_source_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match=f"both {PASSPHRASE} and {PASSPHRASE_FILE} are set"):
        _phrase({PASSPHRASE: "a", PASSPHRASE_FILE: "b"})


def test_a_pass_phrase_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name, reason in (("empty", "is empty"), ("missing", "cannot read .*: no such file or directory")):
        with pytest.raises(SettingsError, match=reason) as caught:
            _phrase({PASSPHRASE_FILE: str(tmp_path / name)})
        assert PASSPHRASE_FILE in str(caught.value)
        assert str(tmp_path) not in str(caught.value), "what is there may be the phrase itself"
        assert caught.value.hint


@pytest.mark.parametrize("phrase", ["open sesame \udcff", "\udc80"])
def test_a_pass_phrase_may_be_any_bytes_of_the_environment(phrase: str) -> None:
    assert _phrase({PASSPHRASE: phrase}) == phrase.encode(errors="surrogateescape")


def test_other_files_are_opened_by_the_same_pass_phrase() -> None:
    for named in ({KEY_FILE: "a"}, {KEY_DIR: "a"}, {SECRET_FILE: "a"}, {SECRET: KEY.hex()}):
        other = find(named | {PASSPHRASE: "open sesame"}).other("partner.pem", "key")
        assert (other.name, other.secret, other.path) == ("key", None, "partner.pem")
        assert other.read_passphrase() == b"open sesame", "whatever the default key is"


# --- a script, which has options beside the environment


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ({}, {SECRET: KEY.hex()}, KeySource(SECRET, KEY)),
        ({KEY_FILE: ""}, {SECRET: KEY.hex()}, KeySource(SECRET, KEY)),
        ({KEY_FILE: "a"}, {KEY_FILE: "a"}, KeySource(KEY_FILE, None, "a")),
        ({KEY_FILE: "b"}, {KEY_FILE: "a"}, KeySource(KEY_FILE, None, "b")),
        ({KEY_FILE: "b", KEY_DIR: ""}, {SECRET: KEY.hex()}, KeySource(KEY_FILE, None, "b")),
        ({KEY_FILE: "a", KEY_DIR: "b"}, {KEY_FILE: "a"}, KeySource(KEY_DIR, None, "b")),
        ({KEY_FILE: "", KEY_DIR: "b"}, {KEY_DIR: "b"}, KeySource(KEY_DIR, None, "b")),
    ],
)
def test_an_option_that_was_set_counts_before_the_environment(
    options: dict[str, str], environ: dict[str, str], expected: KeySource
) -> None:
    """Options begin as the environment says: those that are still so were not set."""
    assert find_for_script(options, environ) == expected


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        ({KEY_FILE: "a"}, {KEY_FILE: "a", SECRET: KEY.hex()}),
        ({KEY_FILE: "b", KEY_DIR: "c"}, {}),
        ({}, {}),
    ],
)
def test_what_contradicts_or_is_missing_is_an_error_for_a_script_too(
    options: dict[str, str], environ: dict[str, str]
) -> None:
    with pytest.raises(SettingsError, match=r"are set$|is not set$"):
        find_for_script(options, environ)


def test_the_options_are_no_secrets() -> None:
    assert {option.name: option.check("") for option in OPTIONS} == dict.fromkeys(
        ("jwt_key_file", "jwt_key_dir", "jwt_kid"), ""
    )


# --- paths


@pytest.mark.parametrize("path", ["a", "/etc/keys/2026.pem", "~/k", "feedface", "é", "a b", ""])
def test_a_path_may_be_any(path: str) -> None:
    check_path(path, "it")


@pytest.mark.parametrize(
    "path",
    [
        "a\nb",
        "-----BEGIN PRIVATE KEY-----",
        '{"kty": "oct"}',
        KEY.hex(),
        KEY.hex().upper(),
        "ab " * 12,
        "Ab1+" * 10 + "=",
    ],
)
def test_a_key_is_no_path(path: str) -> None:
    with pytest.raises(SettingsError, match=r"^it holds what looks like a key, not a path$") as caught:
        check_path(path, "it")
    assert path not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(SettingsError, match="looks like a key"):
        KeySource(SECRET, KEY).other(path, "key")


# --- reading


def test_a_file_may_be_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text("é")
    assert read("~/key", "it") == "é"


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("é", encoding="utf-8-sig")
    assert read(str(tmp_path / "key"), "it") == "é"


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match=r"^cannot read it: it is a pipe$"):
        read(str(tmp_path / "pipe"), "it")
    with pytest.raises(SettingsError, match=rf"^cannot read the file that {PASSPHRASE_FILE} names: it is a pipe$"):
        _phrase({PASSPHRASE_FILE: str(tmp_path / "pipe")})


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "cannot read it: no such file or directory"),
        (".", "cannot read it: is a directory"),
        ("der", "it is not text"),
        ("a\0b", "cannot read it: not a usable path"),
        ("a" * 300, "cannot read it: file name too long"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "der").write_bytes(b"0\x82\x04\xbd" + KEY + b"\xff")
    with pytest.raises(SettingsError) as caught:
        read(str(tmp_path / path), "it")
    assert str(caught.value) == reason
    assert ("-inform DER" in caught.value.hint) == (path == "der")
    assert caught.value.hint
