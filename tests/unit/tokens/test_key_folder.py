"""A folder of keys: which files are keys, and what the manifest says of each, every mistake with its line."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.tokens.algorithms import ALGORITHMS
from jwtproxy.tokens.key_folder import MANIFEST, entries, is_key_file
from jwtproxy.tokens.new_key import generate

SECRET = secrets.token_bytes(64)
PEM = generate("ES256")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One of two keys, whose content is nobody's business here."""
    path = tmp_path / "keys"
    path.mkdir()
    for name in ("b.pem", "a.pem"):
        (path / name).touch()
    return path


def _said(folder: Path, text: str) -> dict[str, dict[str, Any]]:
    (folder / MANIFEST).write_text(text)
    return entries(folder, "JWT_KEY_DIR 'keys'")


def _time(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


# --- which files


def test_keys_come_in_the_order_of_their_names(folder: Path) -> None:
    (folder / "B.pem").touch()
    assert list(entries(folder, "it").items()) == [("B.pem", {}), ("a.pem", {}), ("b.pem", {})]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("a.pem", "README", "keys.yml", "b.pem.bak", "A.PEM", "keys.yaml.pem", "x")),
        *((name, False) for name in (".a.pem.swp", "a.pem~", ".hidden", "..data", "keys.yaml")),
    ],
)
def test_what_editors_and_kubernetes_leave_is_no_key(folder: Path, name: str, expected: bool) -> None:
    (folder / name).touch()
    assert is_key_file(folder / name) is expected
    assert (name in entries(folder, "it") if name != MANIFEST else True) is (expected or name == MANIFEST)


def test_only_files_are_keys(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "gone").symlink_to("nowhere")
    (folder / "link").symlink_to("a.pem")
    assert [name for name in ("old", "gone", "missing", "link") if is_key_file(folder / name)] == ["link"]
    assert list(entries(folder, "it")) == ["a.pem", "b.pem", "link"]


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("missing", "cannot read it: no such file or directory", "name a folder this user may read"),
        ("keys/a.pem", "cannot read it: not a directory", "name a folder this user may read"),
        ("empty", "there is no key in it", "make one with: jwtproxy-run keys new --out {}/"),
    ],
)
def test_a_folder_without_keys_is_said(folder: Path, name: str, said: str, hint: str) -> None:
    (folder.parent / "empty").mkdir()
    (folder.parent / "empty" / MANIFEST).write_text("a.pem: {kid: x}")
    path = folder.parent / name
    with pytest.raises(SettingsError) as caught:
        entries(path, "it")
    assert (str(caught.value), caught.value.hint) == (said, hint.format(path))


# --- what the manifest says


def test_a_manifest_says_when_a_key_signs_and_what_it_is_called(folder: Path) -> None:
    found = _said(folder, "b.pem: {not_before: 2026-01-01, not_after: 2027-01-01, kid: 5, algorithm: PS256}")
    assert found == {
        "a.pem": {},
        "b.pem": {"not_before": _time(2026, 1, 1), "not_after": _time(2027, 1, 1), "kid": "5", "algorithm": "PS256"},
    }


@pytest.mark.parametrize("text", ["{}", "# nothing yet\n{}\n", "a.pem: {}"])
def test_a_manifest_may_say_nothing(folder: Path, text: str) -> None:
    assert _said(folder, text) == {"a.pem": {}, "b.pem": {}}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2023-11-15", _time(2023, 11, 15)),
        ("2023-11-15T00:00:00+01:00", _time(2023, 11, 14, 23)),
        ("'2026-12-31T23:59:00Z'", _time(2026, 12, 31, 23, 59)),
        ("2026-12-31T23:59:00", _time(2026, 12, 31, 23, 59)),
        ("1970-01-01", 0),
        ("9999-12-31", _time(9999, 12, 31)),
    ],
)
def test_a_time_is_one_of_iso_8601_in_utc_unless_it_says_otherwise(folder: Path, written: str, seconds: float) -> None:
    assert _said(folder, f"a.pem: {{not_before: {written}}}")["a.pem"] == {"not_before": seconds}
    if seconds:
        assert _said(folder, f"a.pem: {{not_after: {written}}}")["a.pem"] == {"not_after": seconds}


@pytest.mark.parametrize(
    "written", ["1969-12-31", "9999-12-31T23:59:59-01:00", "0001-01-01", "2026-13-01", "20260101.5", "soon"]
)
def test_a_time_outside_of_tokens_is_refused(folder: Path, written: str) -> None:
    with pytest.raises(SettingsError, match="bad time"):
        _said(folder, f"a.pem: {{not_before: {written}}}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_may_sign_by_any_algorithm(folder: Path, algorithm: str) -> None:
    assert _said(folder, f"a.pem: {{algorithm: {algorithm}}}")["a.pem"] == {"algorithm": algorithm}


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        ("a.pem:\n  kid: x\nb.pen:\n  kid: y", 3, "there is no key file 'b.pen'", "a.pem, b.pem"),
        ("keys.yaml: {kid: x}", 1, "there is no key file 'keys.yaml'", "a.pem, b.pem"),
        ("a.pem:\n  not_befor: 2026-01-01", 2, "unknown key 'not_befor'", "not_before, not_after, kid, algorithm"),
        ("a.pem:\n  not_before: tomorrow", 2, "bad time 'tomorrow'", "2026-12-31T23:59:00Z"),
        ("a.pem:\n  not_before: 2026-02-30", 2, "bad time '2026-02-30'", "2026-12-31"),
        ("a.pem:\n  not_after: 1767225600", 2, "bad time '1767225600'", "2026-12-31"),
        ("a.pem:\n  algorithm: none", 2, "bad algorithm 'none'", "HS256"),
        ("a.pem:\n  algorithm: auto", 2, "bad algorithm 'auto'", "HS256"),
        ("a.pem:\n  kid:", 2, "kid has no value", ""),
        ("a.pem:\n  kid: ' '", 2, "kid is blank", ""),
        ("a.pem:\n  kid: [x]", 2, "kid must be a string, not a list", ""),
        ("\na.pem: x", 2, "a.pem must be a mapping", ""),
        ("- a.pem", 1, "the file must be a mapping", ""),
        ("a.pem: {kid: x}\na.pem: {kid: y}", 2, "a.pem", ""),
        ("a.pem: {kid: x", 1, "bad YAML", ""),
        ("a.pem:\n  not_before: 2026-01-02\n  not_after: 2026-01-01", 1, "not_after is not later than not_before", ""),
        ("a.pem:\n  not_before: 2026-01-01\n  not_after: 2026-01-01", 1, "not_after is not later than not_before", ""),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_with_its_line(
    folder: Path, text: str, line: int, said: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        _said(folder, text)
    assert str(caught.value).startswith(f"{folder}/keys.yaml:{line}: ")
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", [SECRET.hex(), PEM, f'"{SECRET.hex()}"'], ids=["hex", "PEM", "quoted"])
def test_a_key_in_place_of_a_manifest_is_not_repeated(folder: Path, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _said(folder, text)
    assert SECRET.hex()[:8] not in f"{caught.value} {caught.value.hint}"
    assert PEM.splitlines()[1][:8] not in f"{caught.value} {caught.value.hint}"
