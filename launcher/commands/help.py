"""`jwtproxy-run help [TOPIC]`: the manual that comes with the package, rendered for a terminal, as it is for a pipe."""

import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.resources import files

from ..report import MISTAKEN, report
from . import COMMANDS

_USAGE = """\
usage: jwtproxy-run help [TOPIC]

Without a topic, list the topics, and the files that can be printed like one. On a terminal, a topic is shown in $PAGER
(less); elsewhere it is plain Markdown.
`jwtproxy-run --help` lists commands and flags, `jwtproxy-run --options` every option.
"""
_WIDEST = 120  # columns: longer lines are hard to read


def run(arguments: list[str]) -> int:
    """Show a topic of the manual, or list the topics; the exit status."""
    if set(arguments) & {"-h", "--help"}:
        print(_USAGE, end="")
        return 0
    manual, samples = topics(), files_to_copy()
    if not arguments:
        print(f"{_USAGE}\n{_listing(manual)}\nfiles: {', '.join(samples)}")
        return 0
    word = " ".join(arguments)
    if word in samples:
        print(samples[word], end="")
        return 0
    text = manual.get(_name(word))
    if text is None:
        report(f"unknown topic {word!r}", _hint(word, manual))
        return MISTAKEN
    if sys.stdout.isatty():
        _page(_rendered(text))
    else:
        print(text, end="")
    return 0


def topics() -> dict[str, str]:
    """The manual: the Markdown of each topic by its name, in alphabetical order."""
    return {_name(name): text for name, text in _pages() if name.endswith(".md")}


def files_to_copy() -> dict[str, str]:
    """What comes with the manual for a place of its own on the reader's machine, by name."""
    return {name: text for name, text in _pages() if not name.endswith(".md")}


def _pages() -> list[tuple[str, str]]:
    pages = files("jwtproxy.launcher").joinpath("help").iterdir()
    return sorted((page.name, page.read_text("utf-8")) for page in pages)


def summary(text: str) -> str:
    """What a topic is about: the sentence below its title."""
    return " ".join(text.split("\n\n", 2)[1].split())


def _name(word: str) -> str:
    return word.lower().removesuffix(".md")


def _listing(manual: dict[str, str]) -> str:
    width = max(map(len, manual))
    return "".join(f"  {name:<{width}}  {summary(text)}\n" for name, text in manual.items())


def _hint(word: str, manual: dict[str, str]) -> str:
    """What was probably meant: a command, or topics by their name, or else by what they mention."""
    if word in COMMANDS:
        return f"it is a command: jwtproxy-run {word} --help"
    if near := difflib.get_close_matches(_name(word), manual, n=1):
        return f"did you mean {near[0]}?"
    whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    if mentions := [name for name, text in manual.items() if word and whole.search(text)]:
        return f"it is mentioned in: {', '.join(mentions)}"
    return f"the topics are: {', '.join(manual)}"


def _rendered(text: str) -> str:
    from ..rendering import render  # takes a while, and is needed here alone

    return render(text, min(shutil.get_terminal_size().columns, _WIDEST))


def _page(text: str) -> None:
    """Show it in the user's pager; print it where there is none."""
    pager = _pager()
    if not pager or not _shown_by(pager, text):
        print(text, end="")


def _pager() -> str:
    """A shell command, or nothing."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return ""
    return os.environ.get("PAGER", "less" if shutil.which("less") else "")


def _shown_by(pager: str, text: str) -> bool:
    """Whether the pager could be run. As for git: colours pass, and what fits on the screen needs no key to leave."""
    command = ["/bin/sh", "-c", pager]
    environment = {"LESS": "-FRX"} | os.environ
    # A closed terminal shall end the pager, which inherits the mask; Ctrl-C is for the pager, and we wait for it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        shown = subprocess.run(command, env=environment, input=text.encode(), check=False)  # noqa: S603  # the user's own
    except OSError:
        return False
    finally:
        signal.signal(signal.SIGINT, before)
    return shown.returncode not in (126, 127)  # POSIX: cannot be run, not found
