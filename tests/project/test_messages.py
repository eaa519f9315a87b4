"""Every message that users may see stands in messages.txt, once, so that all are read as a whole.

Whoever adds or changes one writes the list again, and sees in the diff how the new one sounds among the others:

    python -m tests.project.test_messages
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("messages.txt")
AGAIN = "run: python -m tests.project.test_messages, then read the diff of messages.txt"

_TELL = frozenset(
    "SettingsError NoKeyError ValueError OptionsError error usage_error _no _bad Refuse text "
    "report warning info exception exit Log print echo cancel".split()
)
"""Functions whose arguments users see, however short they are."""
_KEYWORDS = ("help", "description", "usage")
_NOT_TOLD = frozenset("Patch Theme compile match search fullmatch sub removeprefix startswith partition".split())
"""Functions whose arguments are patterns, names and the like."""

_PROSE = re.compile(r"\b[A-Za-z]+[,;:]? [a-z]{2,}")  # two words
_WORD = re.compile(r"[A-Za-z]{2}")
_CODE = re.compile(r"^<|^\(\w+[,:] |; charset=")  # HTML, signatures, media types


def messages(source: str) -> set[str]:
    """The lines of all messages in a module's source: what is told, and any other string that reads like prose."""
    tree = ast.parse(source)
    told = {id(part) for node in ast.walk(tree) for part in _told(node)}
    return {
        line
        for string in _strings(tree)
        for line in map(str.strip, _written(string).splitlines())
        if not _CODE.search(line)
        and (_PROSE.search(line) or (id(string) in told and _WORD.search(re.sub(r"\{.*?\}|%s", "", line))))
    }


def _told(node: ast.AST) -> Iterator[ast.AST]:
    """The strings that a call tells users, both branches where it chooses between two."""
    if isinstance(node, ast.Call):
        arguments = node.args if _name(node) in _TELL else []
        for argument in [*arguments, *(keyword.value for keyword in node.keywords if keyword.arg in _KEYWORDS)]:
            yield argument
            if isinstance(argument, ast.IfExp):
                yield from (argument.body, argument.orelse)


def _strings(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """The strings within a node, but for docstrings and the arguments of what takes no messages."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node
    for child in ast.iter_child_nodes(node):
        if not _is_silent(node, child):
            yield from _strings(child)


def _is_silent(node: ast.AST, child: ast.AST) -> bool:
    """Whether a part of a node is no message, whatever it looks like."""
    if isinstance(node, ast.Attribute):  # "names and more names".split()
        return node.attr == "split"
    if isinstance(node, ast.Call) and _name(node) in _NOT_TOLD:
        return isinstance(child, ast.Constant | ast.JoinedStr | ast.Tuple | ast.Dict)
    return isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)


def _written(string: ast.AST) -> str:
    """A string as it is read: what an f-string fills in is named in braces."""
    if isinstance(string, ast.Constant):
        return str(string.value)
    if isinstance(string, ast.FormattedValue):
        return "{" + _filled_in(string.value) + "}"
    return "".join(_written(part) for part in ast.iter_child_nodes(string))


def _filled_in(value: ast.AST) -> str:
    return value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else "…"


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def all_messages() -> list[str]:
    """The messages of the whole project, sorted as people sort."""
    sources = [path for folder in ("addons", "launcher") for path in (ROOT / folder).rglob("*.py")]
    found = {message for path in sources for message in messages(path.read_text())}
    return sorted(found, key=lambda message: (re.sub(r"\W", "", message).lower(), message))


def test_the_list_is_complete() -> None:
    listed, found = LIST.read_text().splitlines(), all_messages()
    assert set(found) - set(listed) == set(), f"not in the list; {AGAIN}"
    assert set(listed) - set(found) == set(), f"no longer in the source; {AGAIN}"
    assert listed == found, AGAIN


def test_each_message_is_plain_english() -> None:
    """Words that this project once had, and a reader would stumble over."""
    odd = re.compile(r"\b(mend\w*|a text|texts|is told|take (it|them|that) out|stays so)\b")
    assert [message for message in all_messages() if odd.search(message)] == []


def test_each_error_begins_in_lower_case() -> None:
    """But for names: of variables, standards and products."""
    names = re.compile(r"[A-Z]\w*[A-Z]|[A-Z][a-z]+ing\b")
    reported = [
        _written(call.args[0])
        for path in (ROOT / "launcher").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and _name(call) in ("SettingsError", "report") and call.args
    ]
    assert [message for message in reported if message[:1].isupper() and not names.match(message)] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "raise SettingsError(f'bad value {value!r} for {row.name}', 'use one')",
            {"bad value {value} for {name}", "use one"},
        ),
        ("raise SettingsError(f'{f(x)} is blank')", {"{…} is blank"}),
        ("text(404, 'nothing')", {"nothing"}),
        ("exit('no' if x else f'{y} breaks')", {"no", "{y} breaks"}),
        ("x.error('bad', hint)", {"bad"}),
        ("add_argument('--x', help='how')", {"how"}),
        ("HINT = 'put it in quotes'", {"put it in quotes"}),
        ("HELP = '''\nfirst this\n  then that\n'''", {"first this", "then that"}),
        ("yield f'one {\"and the other\" if x else y}'", {"and the other"}),
        ("logger.error('%s: %s', a, b)", set()),
        ("'''A docstring of words.'''\ndef f():\n    '''And one more.'''", set()),
        ("x = 'name'; y = re.compile('some words'); z = Patch('two words'); 'more words'.split()", set()),
    ],
)
def test_what_counts_as_a_message(source: str, expected: set[str]) -> None:
    assert messages(source) == expected


if __name__ == "__main__":
    LIST.write_text("\n".join(all_messages()) + "\n")
