"""The secret is found where users put it, and no error repeats it."""

from __future__ import annotations

import secrets
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.keys import SECRET, SECRET_FILE, check_length, find_secret
from jwtproxy.settings import SettingsError

KEY = secrets.token_bytes(64)
OTHER = secrets.token_bytes(64)

spaces = st.text(" \t\r\n\f\v", max_size=3)


@st.composite
def spaced_hex(draw: st.DrawFn, key: bytes) -> str:
    """The key in hexadecimal, in any case, with white space anywhere."""
    digits = (draw(spaces) + (digit.upper() if draw(st.booleans()) else digit) for digit in key.hex())
    return "".join(digits) + draw(spaces)


def _everything(error: BaseException) -> str:
    """All that any way of printing an error could show."""
    return "".join(traceback.format_exception(error)) + repr(error) + getattr(error, "hint", "")


@given(st.data(), st.binary(min_size=1, max_size=64))
def test_white_space_inside_is_ignored(data: st.DataObject, key: bytes) -> None:
    assert find_secret({SECRET: data.draw(spaced_hex(key))}) == key


@given(
    st.text("0123456789abcdefABCDEF", min_size=16),
    st.text("0123456789abcdefABCDEF", min_size=16),
    st.sampled_from(["", "g", "0x", "é", "_", "-", "\0", "٣"]),  # an Arabic digit, not a Latin one
)
def test_no_error_repeats_the_secret(left: str, right: str, broken: str) -> None:
    if not broken and not len(left + right) % 2:
        left += "0"  # odd, as nothing else is wrong
    with pytest.raises(SettingsError) as caught:
        find_secret({SECRET: left + broken + right})
    assert caught.value.hint
    for part in (left, right, left + broken + right):
        assert part not in _everything(caught.value)
        assert part.lower() not in _everything(caught.value)


@pytest.mark.parametrize("text", ["g" * 128, KEY.hex() + "z" * 20, KEY.hex()[:-1]])
def test_no_error_repeats_the_content_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        find_secret({SECRET_FILE: str(path)})
    assert str(path) in str(caught.value), "which file it was is said"
    assert text not in _everything(caught.value)


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("", f"{SECRET} is empty", "openssl rand -hex 64"),
        (" \n\t ", f"{SECRET} is empty", "openssl rand -hex 64"),
        ("xyz", f"{SECRET} is not hexadecimal", "0-9 and a-f"),
        ("0x00", f"{SECRET} is not hexadecimal", "0-9 and a-f"),
        ("é" * 64, f"{SECRET} is not hexadecimal", "0-9 and a-f"),
        ("abc", f"{SECRET} has an odd number of hexadecimal digits (3)", "missing"),
        ("a b c\n", f"{SECRET} has an odd number of hexadecimal digits (3)", "missing"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(value: str, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        find_secret({SECRET: value})
    assert str(caught.value) == message
    assert hint in caught.value.hint


def test_no_secret_anywhere_is_an_error_that_names_both_ways() -> None:
    with pytest.raises(SettingsError, match=rf"{SECRET} is not set") as caught:
        find_secret({}, {})
    assert "openssl rand -hex 64" in caught.value.hint
    assert SECRET_FILE in caught.value.hint


def test_the_first_source_that_has_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(OTHER.hex() + "\n")
    value, file = {SECRET: KEY.hex()}, {SECRET_FILE: str(path)}
    assert find_secret(value, {SECRET: "not even hex"}) == KEY
    assert find_secret({}, value) == KEY
    assert find_secret(file, value) == OTHER, "a file of the first source beats a value of the second"
    assert find_secret(value, file) == KEY
    assert find_secret({SECRET_FILE: ""}, value) == KEY, "an empty path counts as none"
    assert find_secret({SECRET: KEY.hex(), SECRET_FILE: ""}) == KEY


def test_an_empty_secret_does_not_fall_back_to_the_next_source() -> None:
    with pytest.raises(SettingsError, match="is empty"):
        find_secret({SECRET: ""}, {SECRET: KEY.hex()})


@pytest.mark.parametrize("value", [KEY.hex(), ""])
def test_value_and_file_from_one_source_contradict_each_other(value: str) -> None:
    with pytest.raises(SettingsError, match=f"both {SECRET} and {SECRET_FILE} are set") as caught:
        find_secret({SECRET: value, SECRET_FILE: "secret"})
    assert "one of the two" in caught.value.hint


def test_a_file_may_be_wrapped_and_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    digits = KEY.hex()
    (tmp_path / "secret").write_text(f"{digits[:64]}\r\n{digits[64:]}\r\n")
    assert find_secret({SECRET_FILE: "~/secret"}) == KEY


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(KEY + b"\xff")
    (tmp_path / "empty").touch()
    for path, reason in [
        ("missing", "cannot read .*: no such file or directory"),
        (".", "cannot read .*: is a directory"),
        ("binary", "is not hexadecimal text"),
        ("empty", "is empty"),
        ("a\0b", "cannot read .*: not a usable path"),
    ]:
        with pytest.raises(SettingsError, match=reason) as caught:
            find_secret({SECRET_FILE: str(tmp_path / path)})
        assert SECRET_FILE in str(caught.value)
        assert repr(str(tmp_path / path)) in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize(("algorithm", "wanted"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_key_is_at_least_as_long_as_its_hash(algorithm: str, wanted: int) -> None:
    check_length(KEY[:wanted], algorithm)
    check_length(KEY * 2, algorithm)
    with pytest.raises(SettingsError) as caught:
        check_length(KEY[: wanted - 1], algorithm)
    assert str(caught.value) == f"the shared secret has {wanted - 1} bytes, {algorithm} wants at least {wanted}"
    assert f"openssl rand -hex {wanted}" in caught.value.hint
