"""A command in our place, from its start to its end. What a terminal has to do with it is in e2e/test_exec.py."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jwtproxy.launcher.processes import command

_RUN = """
import os, sys
from jwtproxy.launcher.processes import command
told = []
status = command.run(sys.argv[1:], {"PATH": os.environ["PATH"], "ONLY": "this"}, lambda *one: told.append(one))
print("told", len(told), flush=True)
sys.exit(command.end_like(status))
"""


def _run(*words: str, before: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As jwtproxy-run runs it, in a process of its own: signals are a process's."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(before) + _RUN, *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=cwd,
    )


def test_it_gets_its_words_and_its_environment_and_its_status_is_ours() -> None:
    done = _run("sh", "-c", 'echo "$ONLY" "$@" $HOME; exit 3', "sh", "a b", "c")
    assert (done.returncode, done.stdout) == (3, "this a b c\ntold 0\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSEGV, signal.SIGHUP])
def test_the_signal_that_ends_it_ends_us(number: int) -> None:
    done = _run("sh", "-c", f"kill -{int(number)} $$")
    assert done.returncode == -number


def test_it_starts_with_no_signal_blocked_or_ignored() -> None:
    look = "import signal; print(sorted(signal.pthread_sigmask(0, ())), signal.getsignal(signal.SIGTERM).name)"
    dispositions = "; print([n for n in range(1, 32) if signal.getsignal(n) == signal.SIG_IGN])"
    done = _run(sys.executable, "-c", look + dispositions, before="import signal; signal.pthread_sigmask(0, [1, 15])\n")
    own = [int(signal.SIGPIPE), int(signal.SIGXFSZ)]  # which that Python ignores itself
    assert done.stdout.splitlines()[:2] == ["[] SIG_DFL", f"{own}"]


def test_what_we_were_told_to_ignore_it_ignores() -> None:
    """Such as SIGHUP, by nohup."""
    look = "import signal; print(signal.getsignal(signal.SIGHUP).name)"
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    assert _run(sys.executable, "-c", look, before=before).stdout.startswith("SIG_IGN\n")


def test_a_script_without_an_interpreter_is_one_for_sh(tmp_path: Path) -> None:
    (tmp_path / "script").write_text('echo "$0" "$1"\n')
    (tmp_path / "script").chmod(0o700)
    assert _run("./script", "x", cwd=tmp_path).stdout.startswith("./script x\n")


def test_other_children_that_end_are_told_of() -> None:
    before = """
    import os, time
    if os.fork() == 0:
        time.sleep(0.1)
        os._exit(0)
    """
    assert _run("sleep", "0.5", before=before).stdout == "told 1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_nobody_stays_a_zombie() -> None:
    """Also of those that the command has left behind, where they become ours, as process 1 of a container has it."""
    before = """
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    """
    look = "(sleep 0.1 &); (sleep 0.1 &); sleep 0.4; cat /proc/$PPID/task/$PPID/children | wc -w"
    assert _run("sh", "-c", look, before=before).stdout == "1\ntold 2\n"


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
def test_a_closed_terminal_tells_us_alone() -> None:
    """Who leads its session is sent SIGHUP, and none of the others."""
    child, terminal = pty.fork()
    if child == 0:
        quiet = "\n".join(line for line in _RUN.splitlines() if "print" not in line)  # there is no terminal to print to
        os.execvp(sys.executable, [sys.executable, "-c", quiet, "sleep", "20"])
    deadline = time.monotonic() + 10
    while not (found := _children(child)) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGHUP
    assert len(found) == 1


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize(("word", "error"), [("no-such-command", FileNotFoundError), ("/", PermissionError)])
def test_what_is_no_command_is_known_before(word: str, error: type[OSError]) -> None:
    with pytest.raises(error):
        command.check(word)
    command.check("sh")
    command.check(sys.executable)


def test_a_status_is_that_of_a_shell() -> None:
    assert command.end_like(os.waitpid(os.posix_spawnp("sh", ["sh", "-c", "exit 255"], {}), 0)[1]) == 255
