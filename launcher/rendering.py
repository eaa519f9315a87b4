"""Markdown as text for a terminal."""

import re

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table
from rich.theme import Theme

_THEME = Theme({"markdown.code": "bold cyan"})  # rich's own is on black, also where the terminal is white
_NARROW = 80  # columns: with fewer, names in tables have to be folded
_NAME = 24  # characters: what is longer is prose
_NO_NAME = "\N{EN DASH}"


def render(text: str, width: int) -> str:
    """The Markdown in so many columns, in colour if the terminal has any (https://no-color.org)."""
    console = Console(force_terminal=True, width=width, theme=_THEME, highlight=False)
    with console.capture() as captured:
        console.print(
            _Document(_with_one_column_of_names(_without_paths(text)), code_theme="ansi_dark", hyperlinks=False)
        )
    return captured.get()


def _without_paths(text: str) -> str:
    """Links that a terminal can follow: a topic's name in place of its file, no images, nothing about a checkout."""
    text = re.sub(r"^!\[.*\n\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^]]+)\]\(([a-z]+)\.md(?:#[\w-]*)?\)", r"\1 (help \2)", text)
    return re.sub(r"\[([^]]+)\]\((?!\w+:)[^)]*\)", r"\1", text)


def _with_one_column_of_names(text: str) -> str:
    """The table of settings with variables beside their options: two columns of long names leave no room for more."""
    start = text.find("| Option or flag | Variable |")
    end = text.find("\n\n", start)
    if start < 0:
        return text
    head, _, *rows = text[start:end].splitlines()
    joined = [_joined(*row.split(" | ", 2)) for row in (head, *rows)]
    return text[:start] + "\n".join([joined[0], "|---|---|---|", *joined[1:]]) + text[end:]


def _joined(option: str, variable: str, rest: str) -> str:
    names = [name for name in (option.removeprefix("| "), variable) if name != _NO_NAME]
    return f"| {', '.join(names)} | {rest}"


class _Table(TableElement):
    """A table in which nothing is cut off, as rich would do with long words, and no name is folded without need."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            for column in table.columns:
                column.overflow = "fold"
                longest = max((len(str(cell)) for cell in column.cells), default=0)
                column.no_wrap = options.max_width >= _NARROW and longest <= _NAME
            yield table


class _Document(Markdown):
    elements = Markdown.elements | {"table_open": _Table}
