"""The manual is readable on a terminal, however wide, and nothing of it is lost there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jwtproxy.launcher.rendering import render

MANUAL = {path.stem: path.read_text() for path in sorted((Path(__file__).parents[2] / "launcher/help").glob("*.md"))}


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def plain(rendered: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", rendered)


def words(text: str) -> set[str]:
    """The names of settings."""
    return set(re.findall(r"\b(?:JWT|jwt|HTTP)_\w+\b", text))


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", MANUAL)
def test_every_topic_fits_and_keeps_its_names_whole(name: str, width: int) -> None:
    shown = plain(render(MANUAL[name], width))
    assert max(map(len, shown.splitlines())) <= width
    assert words(MANUAL[name]) <= words(shown)


def test_a_narrow_terminal_folds_what_does_not_fit() -> None:
    shown = plain(render(MANUAL["settings"], 50))
    assert max(map(len, shown.splitlines())) <= 50
    assert "…" not in shown
    columns = [line[1:19].strip() for line in shown.splitlines()]
    assert "JWTSHAREDSECRETFILE" in "".join(columns).replace("_", "")


@pytest.mark.parametrize("name", MANUAL)
def test_no_markup_is_left(name: str) -> None:
    shown = plain(render(MANUAL[name], 100))
    assert not re.search(r"^(#+ [A-Z]|```|\|)|\]\(|!\[|\*\*\w", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see [Keys](keys.md)", "see Keys (help keys)"),
        ("see [rotation](keys.md#rotation)", "see rotation (help keys)"),
        ("see [below](#below)", "see below"),
        ("see [`compose`](../../compose.yaml)", "see compose"),
        ("see [it](https://api.example/)", "see it (https://api.example/)"),
        ("![A chart](../../chart.svg)\n\nIt is fast.", "It is fast."),
    ],
)
def test_links_lead_where_a_terminal_can_follow(text: str, shown: str) -> None:
    assert plain(render(text, 80)).strip() == shown


def test_there_is_colour_unless_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1;36m" in render("`code`", 80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "36m" not in render("`code`", 80)
