"""What --help shows, and of which command."""

from __future__ import annotations

import argparse

import pytest

from jwtproxy.launcher import usage


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    """One with a flag of mitmdump's, and two of ours."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--theirs")
    theirs = [*parser._action_groups]
    for title in (usage.TOKENS, usage.SERVING):
        parser.add_argument_group(title).add_argument(f"--of-{title}", metavar="X")
    usage.add_help(parser, theirs)
    return parser


def _shown(parser: argparse.ArgumentParser, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([flag])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_is_about_ours(parser: argparse.ArgumentParser, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _shown(parser, flag, capsys)
    assert text.startswith("usage: jwtproxy-run [COMMAND] [options]\n\nA proxy that signs every request")
    assert "--of-tokens X" in text
    assert "--of-serving X" in text
    assert "--theirs" not in text
    assert text.endswith("--set jwt_user=ci\n")


def test_the_whole_help_is_about_all(parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    text = _shown(parser, "--help-all", capsys)
    assert "--theirs" in text
    assert "environment (also read from .env" in text


@pytest.mark.parametrize(
    ("hidden", "tokens", "serving"), [((), True, True), ((usage.SERVING,), True, False), ((usage.TOKENS,), False, True)]
)
def test_that_of_a_command_has_what_it_needs(
    parser: argparse.ArgumentParser,
    hidden: tuple[str, ...],
    tokens: bool,
    serving: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage.of_command(parser, "fly", "[options] WHERE", "Fly there.", "examples:\n  fly south\n", hidden)
    text = _shown(parser, "--help", capsys)
    assert text.startswith("usage: jwtproxy-run fly [options] WHERE\n\nFly there.\n")
    assert text.endswith("examples:\n  fly south\n")
    assert ("--of-tokens" in text, "--of-serving" in text) == (tokens, serving)
    assert "--theirs" not in text
