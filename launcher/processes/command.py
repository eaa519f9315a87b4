"""A command that runs in our place: the terminal, the signals and the status are its own."""

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_AWAITED = {*_FORWARDED, signal.SIGCHLD}
_TYPED = (signal.SIGINT, signal.SIGQUIT)
"""What a terminal sends to all that run there; that it is closed, it tells one of them alone."""
_OF_KERNEL = 0x80  # SI_KERNEL of <asm-generic/siginfo.h>
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # and so by all that it starts


def check(word: str) -> None:
    """See whether there is such a command. Raises OSError."""
    if not shutil.which(word):
        code = errno.EACCES if "/" in word and Path(word).exists() else errno.ENOENT
        raise OSError(code, os.strerror(code))


def run(words: Sequence[str], environ: Mapping[str, str], attend: Callable[[int, int], None]) -> int:
    """Run a command to its end; how that was, as waitpid says.

    attend: called with what waitpid says of other children that end. Raises OSError if the command cannot be run.
    """
    signal.signal(signal.SIGCHLD, lambda *_: None)  # some systems keep no signal that would be ignored
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    pid = _start(words, environ)
    while True:
        number, from_terminal = _next_signal()
        if number == signal.SIGCHLD:
            ended = dict(_ended())
            status = ended.pop(pid, None)
            for other in ended.items():
                attend(*other)
            if status is not None:
                return status
        elif not from_terminal:
            os.kill(pid, number)


def end_like(status: int) -> int:
    """The exit status that says how a command has ended; where a signal has ended it, that ends us, too."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number  # as shells say it, where the signal did not end us


def _start(words: Sequence[str], environ: Mapping[str, str]) -> int:
    # Descriptors that were handed to us are handed on (`<(…)` of a shell); our own are closed by then.
    def start(*words: str) -> int:
        return os.posix_spawnp(words[0], words, environ, setsigmask=(), setsigdef=_IGNORED_BY_PYTHON)

    try:
        return start(*words)
    except OSError as error:
        script = shutil.which(words[0])
        if error.errno != errno.ENOEXEC or not script:
            raise
        return start("sh", script, *words[1:])  # as shells and env do with a script that names no interpreter


def _ended() -> Iterator[tuple[int, int]]:
    """All children that have ended: as process 1 of a container, we inherit those that nobody else waits for."""
    with contextlib.suppress(ChildProcessError):  # there is none left
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found


def _next_signal() -> tuple[int, bool]:
    """Wait for a signal; its number, and whether the command has been sent it, too."""
    wait: Any = getattr(signal, "sigwaitinfo", None)  # not everywhere
    if wait:
        told = wait(_AWAITED)
        return told.si_signo, told.si_signo in _TYPED and told.si_code == _OF_KERNEL
    number = signal.sigwait(_AWAITED)
    return number, number in _TYPED and os.isatty(0)
