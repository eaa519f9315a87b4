"""What the environment and .env say, and what is wrong with them."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import environment
from jwtproxy.tokens import key_source

pytestmark = pytest.mark.usefixtures("pristine")

KEY = secrets.token_bytes(64)


def _sources(folder: Path, dotenv: str | bytes = "") -> environment.Sources:
    """The sources in a folder that has this .env."""
    content = dotenv if isinstance(dotenv, bytes) else dotenv.encode()
    (folder / ".env").write_bytes(content)
    return environment.sources(folder)


def test_without_anything_nothing_is_set(tmp_path: Path) -> None:
    found = environment.sources(tmp_path)
    assert environment.options(found) == {}
    assert environment.workers(None, found) == 1
    with pytest.raises(SettingsError, match="JWT_SHARED_SECRET is not set"):
        key_source.find(*found)


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({"HTTP_PORT": "9123"}, {"listen_port": 9123}),
        ({"HTTP_PORT": "0"}, {"listen_port": 0}),
        ({"HTTP_HOST": "::1"}, {"listen_host": "::1"}),
        ({"HTTP_HOST": "*"}, {"listen_host": ""}),
        ({"JWT_USER": "é", "JWT_PAGES": "off"}, {"jwt_user": "é", "jwt_pages": "off"}),
        ({"HTTP_PORT": "", "HTTP_HOST": "", "JWT_USER": ""}, {}),
        ({"JWT_UNKNOWN": "x", "PORT": "1"}, {}),
    ],
)
def test_variables_set_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: dict[str, object]
) -> None:
    dotenv = "".join(f"{name}={value!r}\n" for name, value in variables.items())
    assert environment.options(_sources(tmp_path, dotenv)) == options
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.options(_sources(tmp_path)) == options


def test_the_environment_beats_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PORT", "1")
    monkeypatch.setenv("HTTP_HOST", "")
    monkeypatch.setenv("JWT_SHARED_SECRET", KEY.hex())
    found = _sources(tmp_path, f"HTTP_PORT=2\nHTTP_HOST=::1\nJWT_USER=bob\nJWT_SHARED_SECRET={'00' * 64}\nWORKERS=auto")
    assert environment.options(found) == {"listen_port": 1, "listen_host": "::1", "jwt_user": "bob"}
    assert key_source.find(*found).secret == KEY
    assert environment.workers(None, found) is None


def test_dotenv_may_be_commented_quoted_and_exported(tmp_path: Path) -> None:
    found = _sources(
        tmp_path, f"# ours\n\nexport JWT_SHARED_SECRET='{KEY.hex()}' # key\nJWT_USER = \"a b\"\nEMPTY=\nBARE\n"
    )
    assert key_source.find(*found).secret == KEY
    assert environment.options(found) == {"jwt_user": "a b"}


def test_the_secret_of_dotenv_may_be_a_file(tmp_path: Path) -> None:
    assert key_source.find(*_sources(tmp_path, "JWT_SHARED_SECRET_FILE=secret")).path == "secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"JWT_USER=a\n=broken\n", "cannot read .env: line 2 is not NAME=value"),
        (b"JWT_USER='open\n", "cannot read .env: line 1 is not NAME=value"),
        (b"JWT_USER=\xff\n", "cannot read .env: not UTF-8 text"),
        (None, "cannot read .env: is a directory"),
    ],
)
def test_a_broken_dotenv_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is None:
        (tmp_path / ".env").mkdir()
    else:
        (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        environment.sources(tmp_path)
    assert str(caught.value).lower() == message.lower()
    assert caught.value.hint.startswith("fix or remove")


def test_a_broken_dotenv_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        _sources(tmp_path, f"JWT_SHARED_SECRET {KEY.hex()}\n'{KEY.hex()}\n")
    assert KEY.hex() not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("value", ["65536", "-1", "80 80", "http", "1e3", "٣", "8080.0", "+80", "9" * 5000])
def test_a_bad_port_names_its_variable(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        environment.options(_sources(tmp_path, f"HTTP_PORT='{value}'"))
    assert str(caught.value) == f"bad value {value!r} for HTTP_PORT"
    assert "0 to 65535" in caught.value.hint


@pytest.mark.parametrize(
    ("flag", "variable", "workers"),
    [(None, "", 1), (None, "4", 4), (None, "auto", None), ("2", "4", 2), ("auto", "4", None), ("3", "bad", 3)],
)
def test_the_flag_beats_the_variable(tmp_path: Path, flag: str | None, variable: str, workers: int | None) -> None:
    assert environment.workers(flag, _sources(tmp_path, f"WORKERS={variable}")) == workers


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "AUTO", "513", "9" * 5000])
def test_bad_workers_name_where_they_come_from(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=r"^bad value '.+' for WORKERS$"):
        environment.workers(None, _sources(tmp_path, f"WORKERS={value}"))
    with pytest.raises(SettingsError, match=r"^bad value '.+' for --workers$"):
        environment.workers(value, _sources(tmp_path))


def test_what_is_misspelt_is_an_error_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^unknown variable JWT_USR in \.env$"):
        environment.warnings(_sources(tmp_path, "JWT_USR=me"))
    monkeypatch.setenv("JWT_USR", "me")
    with pytest.raises(SettingsError, match=r"^unknown variable JWT_USR$"):
        environment.warnings(_sources(tmp_path))


def test_what_may_be_another_programs_is_worth_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_COOKIE_SECURE", "1")
    assert environment.warnings(_sources(tmp_path, "JWT_EXP=60")) == [
        "unknown variables, which have no effect: JWT_COOKIE_SECURE",
        "unknown variable JWT_EXP in .env: did you mean JWT_TTL?",
    ]


@pytest.mark.parametrize("dotenv", ["JWT_EXP=60\nJWT_STRICT_ENV=1", "JWT_STRICT_ENV=on\nWORKER=2", "JWT_STRICT_ENV=x"])
def test_unless_it_is_to_be_strict(dotenv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError):
        environment.warnings(_sources(tmp_path, dotenv))
    monkeypatch.setenv("JWT_STRICT_ENV", "0")
    environment.warnings(_sources(tmp_path, dotenv))


def test_no_variable_of_ours_is_unknown() -> None:
    assert environment.warnings((dict.fromkeys(environment.VARIABLES, "1"),)) == []
