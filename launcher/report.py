"""Errors, hints and warnings on stderr, in one voice."""

import sys

MISTAKEN = 2
"""The exit status where what was asked for cannot be done as it was asked."""


def report(message: str, hint: str = "") -> None:
    """One error on stderr, in one line, and a second that says what to do."""
    print(f"jwtproxy: error: {_in_our_voice(message)}", file=sys.stderr)
    if hint:
        print(f"jwtproxy: hint: {' '.join(hint.split())}", file=sys.stderr)


def warn(message: str) -> None:
    """One line on stderr about what may be a mistake, and is none yet."""
    print(f"jwtproxy: warning: {message}", file=sys.stderr)


def _in_our_voice(text: str) -> str:
    """One line, and no capital at its start that mitmproxy or gunicorn put there; a variable's name keeps its own."""
    line = " ".join(text.removeprefix("Addon error: ").split())
    return line[:1].lower() + line[1:] if line[1:2].islower() else line
