"""`jwtproxy-run keys`: a key is made with one command, and what signs is seen at a glance."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from jwtproxy.launcher.commands.keys import run
from jwtproxy.tokens.algorithms import ALGORITHMS
from jwtproxy.tokens.key_formats import parse
from jwtproxy.tokens.keys import KeyRequest
from jwtproxy.tokens.new_key import generate

pytestmark = pytest.mark.usefixtures("pristine")

SECRET = secrets.token_bytes(64).hex()

Capture = pytest.CaptureFixture[str]


def _run(capsys: Capture, *arguments: str) -> str:
    """What it prints."""
    assert run(list(arguments)) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    return printed


def _refused(capsys: Capture, *arguments: str) -> str:
    """What is wrong with it."""
    assert run(list(arguments)) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert re.fullmatch(r"jwtproxy: error: .+\njwtproxy: hint: .+\n", errors)
    return errors


def _kid(path: Path) -> str:
    return parse(path.read_text(), "it")[0].kid


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_usage_names_every_command(capsys: Capture, arguments: tuple[str, ...]) -> None:
    printed = _run(capsys, *arguments)
    assert all(f"keys {command}" in printed for command in ("new", "list", "jwks"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nwe",), "unknown command 'keys nwe'"),
        (("new", "more"), "unrecognized arguments: more"),
        (("new", "--alg"), "expected one argument"),
        (("new", "--alg", "none"), "bad value 'none' for --alg"),
        (("new", "--alg", "es256"), "bad value 'es256' for --alg"),
        (("new", "--alg", "auto"), "bad value 'auto' for --alg"),
        (("new", "--alg", "ES256K"), "bad value 'ES256K' for --alg"),
        (("list", "--nonsense"), "--nonsense"),
        (("list",), "JWT_SHARED_SECRET is not set"),
        (("jwks", "--set", "jwt_key_dir=missing"), "cannot read JWT_KEY_DIR 'missing': no such folder"),
        (("jwks", "--set", "jwt_kez_dir=missing"), "unknown option 'jwt_kez_dir'"),
    ],
)
def test_a_mistake_is_named(capsys: Capture, arguments: tuple[str, ...], said: str) -> None:
    assert said in _refused(capsys, *arguments)


# --- new


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_fits_its_algorithm(capsys: Capture, algorithm: str) -> None:
    printed = _run(capsys, "new", "--alg", algorithm)
    (key,) = parse(printed, "it", KeyRequest(algorithm))
    assert key.private is not None
    assert printed.endswith("\n")
    assert printed.startswith("-----BEGIN PRIVATE KEY-----") is not algorithm.startswith("HS")
    if algorithm.startswith("HS"):
        assert re.fullmatch(rf"[0-9a-f]{{{int(algorithm[2:]) // 4}}}\n", printed)


def test_without_an_algorithm_it_is_es256_and_another_each_time(capsys: Capture) -> None:
    first, second = _run(capsys, "new"), _run(capsys, "new")
    assert parse(first, "it")[0].algorithm == "ES256"
    assert first != second


def test_openssl_reads_it(capsys: Capture) -> None:
    for algorithm in ("ES384", "EdDSA", "RS256"):
        text = _run(capsys, "new", "--alg", algorithm)
        done = subprocess.run(["openssl", "pkey", "-check", "-noout"], input=text, text=True, capture_output=True)
        assert done.returncode == 0 or "not supported" in done.stderr, done.stderr


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("out", ["key.pem", "new/folder/key.pem", "folder/", "existing"])
def test_only_its_owner_can_read_it(capsys: Capture, tmp_path: Path, umask: int, out: str) -> None:
    (tmp_path / "existing").mkdir()
    before = os.umask(umask)
    try:
        printed = _run(capsys, "new", "--out", out)
    finally:
        os.umask(before)
    path = Path(printed.split()[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert printed == f"{path}  kid {_kid(path)}\n"
    assert [path.name] == [left.name for left in path.parent.iterdir() if left.is_file()], "nothing else is left behind"
    if out.startswith("folder"):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_in_a_folder_it_is_named_by_its_time_and_algorithm(capsys: Capture, tmp_path: Path) -> None:
    names = [
        Path(_run(capsys, "new", "--alg", algorithm, "--out", f"{algorithm}/").split()[0]).name
        for algorithm in ("HS256", "EdDSA")
    ]
    assert [name[19:] for name in names] == ["-hs256.hex", "-eddsa.pem"]
    for name, folder in zip(names, ("HS256", "EdDSA"), strict=True):
        made = datetime.strptime(name[:19] + "+0000", "%Y-%m-%dT%H-%M-%S%z")
        assert abs(made.timestamp() - (tmp_path / folder / name).stat().st_mtime) < 60


def test_a_shared_secret_has_no_kid_to_tell(capsys: Capture) -> None:
    assert _run(capsys, "new", "--alg", "HS512", "--out", "secret") == "secret\n"


def test_two_in_one_second_are_two(capsys: Capture, tmp_path: Path) -> None:
    """A script that fills a folder."""
    names = [Path(_run(capsys, "new", "--out", "keys/").split()[0]).name for _ in range(3)]
    assert names == sorted(set(names)) == sorted(path.name for path in (tmp_path / "keys").iterdir())


def test_one_that_will_not_sign_is_said_to(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "zz.pem").write_text(generate("EdDSA"))
    assert run(["new", "--out", "keys"]) == 0
    assert "jwtproxy: warning: 'zz.pem' sorts after it" in capsys.readouterr().err


def _file(path: Path) -> None:
    path.write_text("mine")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [_file, _dangling])
def test_what_is_there_is_never_overwritten(capsys: Capture, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "key.pem")
    assert "cannot write 'key.pem': file exists" in _refused(capsys, "new", "--out", "key.pem")
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"], "and nothing is left behind"
    if make is _file:
        assert (tmp_path / "key.pem").read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("file/key.pem", "cannot write 'file/key.pem': "),
        ("/dev/null/key.pem", "cannot write '/dev/null/key.pem': "),
        ("/proc/key.pem", "cannot write '/proc/key.pem': "),
        ("x" * 300, "file name too long"),
    ],
)
def test_where_it_cannot_be_written_is_said(capsys: Capture, tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "file").touch()
    assert said in _refused(capsys, "new", "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_home_directory_is_understood(capsys: Capture, tmp_path: Path) -> None:
    """No shell expands it in `--out=~/key.pem`; jwt_key_file=~/key.pem is understood too."""
    _run(capsys, "new", "--out=~/key.pem")
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


# --- list and jwks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Named by JWT_KEY_DIR: one that has signed, one that signs, one that will, and a public one."""
    path = tmp_path / "keys"
    path.mkdir()
    texts = {name: generate("EdDSA") for name in "abcd"}
    for name, text in texts.items():
        (path / f"{name}.pem").write_text(text)
    public = json.dumps(dict(parse(texts["d"], "it")[0].public or {}))
    (path / "d.pem").write_text(public)
    for file in path.iterdir():
        os.utime(file, (0, 0))
    (path / "keys.yaml").write_text(
        "a.pem: {not_after: 2020-01-01}\nb.pem: {kid: now}\nc.pem: {not_before: 2999-01-01}\n"
    )
    monkeypatch.setenv("JWT_KEY_DIR", "keys")
    return path


def test_the_list_says_which_key_signs(capsys: Capture, folder: Path) -> None:
    head, *rows = _run(capsys, "list").splitlines()
    assert head.split() == ["SIGNS", "ALGORITHM", "KID", "FROM", "UNTIL", "WHERE"]
    cells = {row.split()[-1]: row.split()[:-1] for row in rows}
    assert cells["'keys/a.pem'"] == ["no", "EdDSA", _kid(folder / "a.pem"), "1970-01-01T00:05Z", "2020-01-01T00:00Z"]
    assert cells["'keys/b.pem'"] == ["now", "EdDSA", "now", "1970-01-01T00:05Z", "-"]
    assert cells["'keys/c.pem'"] == ["no", "EdDSA", _kid(folder / "c.pem"), "2999-01-01T00:00Z", "-"]
    assert cells["'keys/d.pem'"][:3] == ["public", "EdDSA", _kid(folder / "d.pem")]
    assert len(rows) == 4
    assert len({row.index("'keys/") for row in rows} | {head.index("WHERE")}) == 1, "aligned"


def test_the_jwks_is_that_of_the_page(capsys: Capture, folder: Path) -> None:
    published = json.loads(_run(capsys, "jwks"))
    assert set(published) == {"keys"}
    assert {key["kid"] for key in published["keys"]} == {"now", *(_kid(folder / f"{name}.pem") for name in "acd")}
    assert all(set(key) == {"kty", "crv", "x", "use", "alg", "kid"} for key in published["keys"])


def test_a_shared_secret_is_listed_and_not_published(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SHARED_SECRET", SECRET)
    _, row = _run(capsys, "list").splitlines()
    assert row.split() == ["now", "HS512", "-", "-", "-", "JWT_SHARED_SECRET"]
    assert json.loads(_run(capsys, "jwks")) == {"keys": []}


def test_options_count_and_keys_of_rules_are_listed(capsys: Capture, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("rules: [{match: ~d a, key: own.hex}, {match: ~d b, sign: false}]")
    (tmp_path / "own.hex").write_text(SECRET)
    _, *rows = _run(capsys, "list", "--set", "jwt_key_file=keys/b.pem", "--set", "jwt_rules=rules.yaml").splitlines()
    assert [row.split()[:2] for row in rows] == [["now", "EdDSA"], ["now", "HS512"]]
    assert "own.hex" in rows[1]


@pytest.mark.parametrize("member", ['"exp": 1893456000000', '"nbf": -1e13', '"exp": 1e300'])
def test_a_time_beyond_all_calendars_does_not_break_the_list(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    """Milliseconds are the usual slip. It may be refused, in our voice."""
    (tmp_path / "key.json").write_text(f'{{"kty": "oct", "k": "{"A" * 86}", {member}}}')
    monkeypatch.setenv("JWT_KEY_FILE", "key.json")
    assert run(["list"]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_preview_writes_no_flows(capsys: Capture, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "flows").write_text("precious")
    _run(capsys, "list", "-w", "flows")
    assert (tmp_path / "flows").read_text() == "precious"
