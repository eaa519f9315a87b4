"""`jwtproxy-run check` is --check."""

from __future__ import annotations

import secrets

import pytest

from jwtproxy.launcher.commands import check, serve

pytestmark = pytest.mark.usefixtures("pristine")

Captured = pytest.CaptureFixture[str]


def test_it_says_what_the_flag_says(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("JWT_SHARED_SECRET", secrets.token_hex(64))
    assert check.run([]) == serve.run(["--check"]) == 0
    printed, errors = capsys.readouterr()
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :] != ""
    assert errors == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "JWT_SHARED_SECRET is not set"), (["x"], "unexpected word 'x'"), (["keys"], "'keys' is not the first word")],
)
def test_it_finds_what_the_flag_finds(arguments: list[str], said: str, capsys: Captured) -> None:
    assert check.run(arguments) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors.startswith(f"jwtproxy: error: {said}")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_its_help_is_about_it(flag: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        check.run([flag])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: jwtproxy-run check [options]\n\nCheck all settings")
