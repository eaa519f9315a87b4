"""Standard output that is closed or full, or that nobody reads any more: for all commands in this one place."""

import errno
import io
import os
import sys
from collections.abc import Callable

from .report import forget, report

FAILED = 1
"""The exit status where all went well but for what was to be printed."""

_OF_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT)


def prepare() -> None:
    """Make standard input and outputs usable where they are closed (`>&-`), and for any text.

    Otherwise the next file or socket would get their numbers, and what is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a locale may lack our dashes


def printed(run: Callable[[], int]) -> int:
    """Run what prints; its exit status, when all is written out, or 1 where that cannot be.

    That nobody reads any more (`| head -1`) is no failure.
    """
    lost, status = None, 0
    try:
        status = run()
    except SystemExit as end:  # so argparse ends when it has shown its help
        status = int(end.code or 0)
    except OSError as error:
        if error.errno not in _OF_OUTPUT:
            raise
        lost = error
    lost = _flush() or lost
    if not lost or lost.errno == errno.EPIPE:
        return status
    report(f"cannot print all: {(lost.strerror or 'error').lower()}", "make room, or print to something else")
    return status or FAILED


def _flush() -> OSError | None:
    """Write out what is held back, or else forget it: the interpreter would complain at its end. What was wrong."""
    try:
        sys.stdout.flush()
    except OSError as error:
        forget(sys.stdout)
        return error
    return None
