"""The matrix of the manual, and what is printed of it; as functions on values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .rows import Client
from .verdict import SKIPPED, Outcome

START, END = "<!-- made by `make clients` -->\n", "<!-- end -->\n"
"""What stands before and after the matrix."""
_HEAD = ("Client", "Version", "Finds the proxy by", "Trusts the CA by", "HTTP/2", "Result")


def line(client: Client, outcome: Outcome) -> str:
    """For the terminal, as soon as it is known."""
    result = f"{outcome.result}: {outcome.said}" if outcome.said else outcome.result
    found = f"{outcome.version:<10}{client.finds or '-':<32}{client.trusts or '-':<34}{'yes' if client.two else '-':<5}"
    return f"{client.name:<28}{found}{result}"


def matrix(clients: Sequence[Client], outcomes: Mapping[str, Outcome], before: str) -> str:
    """The table in Markdown. before: the one there was, which is where versions of what was skipped come from."""
    known = {row[0]: row[1] for row in rows(before)}
    lines = [_row(*_HEAD), _row(*("---" for _ in _HEAD))]
    for client in clients:
        version, result = _told(client, outcomes[client.name], known.get(client.name, ""))
        two = "yes" if client.two else "–"
        lines.append(_row(client.name, version, _quoted(client.finds), _quoted(client.trusts), two, result))
    return "".join(lines)


def rows(text: str) -> list[list[str]]:
    """What the matrix in a text says, a list of cells for each client; nothing if there is none."""
    found = re.search(f"{re.escape(START)}(.*?){re.escape(END)}", text, re.DOTALL)
    lines = found[1].strip().splitlines()[2:] if found else []
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in lines]


def replaced(text: str, table: str) -> str:
    """The text with this matrix in the place of its own. Raises ValueError where it has none."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError("there are no marks between which the matrix could stand")
    return f"{before}{start}{table}{end}{after}"


def _told(client: Client, outcome: Outcome, known: str) -> tuple[str, str]:
    """Its version, and what comes of it."""
    version = known if outcome.result == SKIPPED else outcome.version
    return version, "**goes around**" if client.goes_around else "signed"


def _quoted(names: str) -> str:
    return " + ".join(f"`{name}`" for name in names.split()) or "–"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"
