"""Output that is closed, or full, or that nobody reads: each command ends as it should, and says what it must."""

from __future__ import annotations

import errno
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jwtproxy.launcher import output
from tests.support.harness import REPO, clean_env, launcher, thorough

COMMANDS = {
    "--help": ["--help"],
    "--help-all": ["--help-all"],
    "--options": ["--options"],
    "--commands": ["--commands"],
    "--version": ["--version"],
    "--check": ["--check"],
    "help": ["help"],
    "help TOPIC": ["help", "verifying"],
    "keys": ["keys"],
    "keys list": ["keys", "list"],
    "keys jwks": ["keys", "jwks"],
    "keys new": ["keys", "new"],
    "explain": ["explain", "GET", "http://x/"],
    "explain --help": ["explain", "--help"],
    "token": ["token", "http://x/"],
    "check": ["check"],
    "ca": ["ca"],
    "version": ["version"],
}
TOLD = (
    "jwtproxy: error: cannot print all: no space left on device\n"
    "jwtproxy: hint: make room, or print to something else\n"
)


class End(NamedTuple):
    """How it ended."""

    status: int
    errors: str


# As tests/support/mistakes.py does it, with outputs of another kind.
_FORKS = """
import gc, json, os, signal, sys
from jwtproxy.launcher import cli
from jwtproxy.launcher.commands import check, explain, help, keys, serve, token, version
from tests.support.fork_server import trust_keys

def replace(descriptor, kind):
    if kind == "gone":
        reading, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(reading)
    elif kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
    else:  # as Python does where it is closed
        os.close(descriptor)
        setattr(sys, "stdout" if descriptor == 1 else "stderr", None)

trust_keys()
gc.freeze()
for line in sys.stdin:
    start = json.loads(line)
    errors = os.memfd_create("errors")
    if (pid := os.fork()) == 0:
        signal.alarm(15)
        os.dup2(errors, 2)
        sys.argv[1:] = start["args"]
        for descriptor in start["descriptors"]:
            replace(descriptor, start["kind"])
        cli.main()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps([status, os.pread(errors, 1 << 20, 0).decode()]), flush=True)
    os.close(errors)
"""

Run = Callable[..., End]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """How jwtproxy-run ends with these arguments, its output being closed, full, or without a reader (gone)."""
    folder = tmp_path_factory.mktemp("forks")
    env = clean_env(folder, {"JWT_SHARED_SECRET": secrets.token_hex(64), "PYTHONPATH": str(REPO)})
    command, pipe = [sys.executable, "-O", "-c", _FORKS], subprocess.PIPE
    with subprocess.Popen(command, env=env, cwd=folder, stdin=pipe, stdout=pipe, text=True) as forks:
        assert forks.stdin
        assert forks.stdout
        requests, answers = forks.stdin, forks.stdout

        def start(kind: str, *args: str, descriptors: tuple[int, ...] = (1,)) -> End:
            print(json.dumps({"args": args, "kind": kind, "descriptors": descriptors}), file=requests, flush=True)
            return End(*json.loads(answers.readline()))

        yield start


def _rows(*always: str) -> list[object]:
    return [pytest.param(args, id=name, marks=() if name in always else thorough) for name, args in COMMANDS.items()]


@pytest.mark.parametrize(
    "args",
    _rows("--help", "--help-all", "--options", "--check", "help TOPIC", "keys list", "token"),
)
def test_a_reader_that_has_gone_is_no_failure(run: Run, args: list[str]) -> None:
    assert run("gone", *args) == (0, "")


@pytest.mark.parametrize("args", _rows("--options", "help", "token"))
def test_what_is_closed_is_not_wanted(run: Run, args: list[str]) -> None:
    assert run("closed", *args) == (0, "")


@pytest.mark.parametrize("args", _rows("--help", "keys new", "token"))
def test_what_is_full_is_one_error(run: Run, args: list[str]) -> None:
    """A key or a token that got lost must not pass for one that was printed."""
    assert run("full", *args) == (1, TOLD)


@pytest.mark.parametrize("kind", ["gone", "closed", "full"])
def test_an_error_that_nobody_reads_is_one_all_the_same(run: Run, kind: str) -> None:
    assert run(kind, "srve", descriptors=(2,)) == (2, "")
    assert run(kind, "keys", "list", "--ttl", "x", descriptors=(1, 2)) == (2, "")


@pytest.mark.parametrize("args", [["--help"], pytest.param(["--help-all"], marks=thorough), ["help", "verifying"]])
def test_into_head(tmp_path: Path, args: list[str]) -> None:
    """As people type it."""
    line = '"$@" | head -1; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *launcher(), *args],
        env=clean_env(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


# --- in this process


def test_the_status_is_that_of_what_ran() -> None:
    assert output.printed(lambda: 7) == 7
    assert output.printed(lambda: sys.exit(3)) == 3
    assert output.printed(sys.exit) == 0


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ECONNRESET])
def test_other_errors_are_not_about_the_output(number: int) -> None:
    def fail() -> int:
        raise OSError(number, "other")

    with pytest.raises(OSError, match="other"):
        output.printed(fail)


def test_a_failure_stays_one_whoever_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        gone.write("x")
        assert output.printed(lambda: 2) == 2
