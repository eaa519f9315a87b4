"""The console script: ready for Ctrl-C before anything heavy is imported."""

import atexit
import errno
import gc
import importlib
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import patches

from . import output, words
from .report import MISTAKEN, report

_ENDS = (signal.SIGINT, signal.SIGTERM)


def main() -> NoReturn:
    """Run jwtproxy-run and exit with its status: 0 done or stopped, 1 not all recorded or printed, 2 not started."""
    output.prepare()
    # Importing mitmproxy takes a second in which Ctrl-C would print a trace-back. Nothing has begun that needs an end;
    # serve puts the event loop's handlers in place of these before anything does.
    # To be stopped is how serving ends; other commands have not done what they were told.
    leave = _leave if words.serves(sys.argv[1:]) else _give_up
    for number in _ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as shells have it in the background: so it is for what we run
            signal.signal(number, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # waits until serve can do what it asks for
    # In debug mode mitmproxy checks the type of every message, for a third of a request's cost.
    if not sys.flags.optimize and not may_run_scripts(sys.argv[1:]):
        _restart_optimised()
    if not may_run_scripts(sys.argv[1:]):
        # The interpreter collects all there is before it ends: a quarter of a second in each process, for nobody. Of a
        # script's, that may be what writes to its files.
        atexit.register(gc.freeze)
    raise SystemExit(output.printed(lambda: _run(sys.argv[1:])))


def _run(arguments: list[str]) -> int:
    """Do what the first word says, serve if it is none; the exit status."""
    try:
        return _do(arguments)
    except SettingsError as error:
        report(str(error), error.hint)
    except (MemoryError, OSError, ImportError) as error:
        if not _is_of_memory(error):
            raise
        report("there is not enough memory", "allow 128 MiB, and 64 MiB more for each further worker")
    return MISTAKEN


def _do(arguments: list[str]) -> int:
    command, rest = words.split(arguments)
    if command != "help":  # which needs no mitmproxy, and so no second to import it
        patches.install(faster=True)
    module = importlib.import_module(f".commands.{command}", __package__)
    status: int = module.run(rest)
    return status


def _is_of_memory(error: Exception) -> bool:
    """Whether this says that there is no more of it, in the words of Python, of its imports, or of the loader."""
    words = str(error).lower()
    return (
        isinstance(error, MemoryError) or os.strerror(errno.ENOMEM).lower() in words or "failed to map segment" in words
    )


def may_run_scripts(arguments: list[str]) -> bool:
    """Whether a user's script may, whose asserts must not vanish. Yes in doubt: that only costs speed."""
    if "--" in arguments:  # what follows are the words of a command, or a filter
        arguments = arguments[: arguments.index("--")]
    if any("script" in argument or re.match(r"-[a-zA-Z]*s|--sc", argument) for argument in arguments):
        return True
    confdirs = [match[1] for argument in arguments if (match := re.search("confdir=(.+)", argument))]
    for name in ("config.yaml", "config.yml"):
        path = Path(confdirs[-1] if confdirs else "~/.mitmproxy") / name
        try:
            if "scripts" in path.expanduser().read_text(errors="replace"):
                return True
        except (OSError, RuntimeError):  # not there, or no home: serve will say what is wrong, if anything is
            pass
    return False


def _restart_optimised() -> NoReturn:
    # A signal that comes in between waits for the new interpreter's handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    # -P: the folder we are run in must not become one that modules are imported from.
    os.execv(sys.executable, [sys.executable, "-OP", "-m", "jwtproxy.launcher", *sys.argv[1:]])  # noqa: S606  # no shell


def _give_up(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(0)
