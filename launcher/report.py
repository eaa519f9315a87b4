"""Errors, hints and warnings on stderr, in one voice."""

import os
import sys
from typing import IO

MISTAKEN = 2
"""The exit status where what was asked for cannot be done as it was asked."""
WARNING = "jwtproxy: warning: "
"""How warnings begin."""


def report(message: str, hint: str = "") -> None:
    """One error on stderr, in one line, and a second that says what to do; if nobody reads it, we have tried."""
    lines = [f"jwtproxy: error: {_in_our_voice(message)}"]
    lines += [f"jwtproxy: hint: {' '.join(hint.split())}"] if hint else []
    _print_error("\n".join(lines))


def tell(message: str) -> None:
    """One line on stdout of what serves, which has better to do than to fail if that cannot be printed."""
    try:
        _write(f"jwtproxy: {message}", sys.stdout)
    except OSError:
        forget(sys.stdout)


def forget(stream: IO[str]) -> None:
    """Have all that is still to be written there go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def tell_on_stderr(message: str) -> None:
    """Lines on stderr that tell of no mistake, where stdout is another's; if nobody reads them, we have tried."""
    _print_error("\n".join(f"jwtproxy: {line}" for line in message.splitlines()))


def warn(message: str) -> None:
    """One line on stderr about what may be a mistake, and is none yet; if nobody reads it, we have tried."""
    _print_error(f"{WARNING}{message}")


def _print_error(text: str) -> None:
    try:
        _write(text, sys.stderr)
    except OSError:
        forget(sys.stderr)


def _write(text: str, stream: IO[str]) -> None:
    """In one piece, as workers share their streams: print() writes the last end of line by itself."""
    stream.write(f"{text}\n")
    stream.flush()


def _in_our_voice(text: str) -> str:
    """One line, and no capital at its start that mitmproxy or gunicorn put there; a variable's name keeps its own."""
    line = " ".join(text.removeprefix("Addon error: ").split())
    return line[:1].lower() + line[1:] if line[1:2].islower() else line
