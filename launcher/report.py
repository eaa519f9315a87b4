"""Errors, hints and warnings on stderr, in one voice."""

import contextlib
import os
import select
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
    put("\n".join(lines), sys.stderr)


def tell(message: str) -> None:
    """One line on stdout of what serves, which has better to do than to fail if that cannot be printed."""
    put(f"jwtproxy: {message}", sys.stdout)


def put(text: str, stream: IO[str]) -> None:
    """A line of what serves, in one piece, as workers share their streams: print() writes the end of line by itself.

    Where nobody reads any more, this and all that follows goes nowhere.
    """
    try:
        with contextlib.suppress(BlockingIOError):  # there is no room just now: the stream keeps it
            stream.write(f"{text}\n")
        _flush(stream)
    except OSError:
        forget(stream)


def _flush(stream: IO[str]) -> None:
    while True:
        try:
            return stream.flush()
        except BlockingIOError:
            await_room(stream.fileno())


def await_room(descriptor: int) -> None:
    """Wait until something can be written: who has made a pipe may want writing to fail until then, for all it has."""
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    room.poll()


def forget(stream: IO[str]) -> None:
    """Have all that is still to be written there go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def tell_on_stderr(message: str) -> None:
    """Lines on stderr that tell of no mistake, where stdout is another's; if nobody reads them, we have tried."""
    put("\n".join(f"jwtproxy: {line}" for line in message.splitlines()), sys.stderr)


def warn(message: str) -> None:
    """One line on stderr about what may be a mistake, and is none yet; if nobody reads it, we have tried."""
    put(f"{WARNING}{message}", sys.stderr)


def _in_our_voice(text: str) -> str:
    """One line, and no capital at its start that mitmproxy or gunicorn put there; a variable's name keeps its own."""
    line = " ".join(text.removeprefix("Addon error: ").split())
    return line[:1].lower() + line[1:] if line[1:2].islower() else line
