"""A process beside ours ends when we do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from jwtproxy.launcher.processes import companion
from jwtproxy.launcher.processes.companion import Companion

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # xdist's


def _fork(work: Callable[[socket.socket], int]) -> Companion:
    return Companion.fork(work)


def _waits(line: socket.socket) -> int:
    line.sendall(b"ready\n")
    line.recv(1)
    line.sendall(b"last words\n")
    return 7


def test_it_is_asked_to_end_and_has_the_last_word() -> None:
    beside = _fork(_waits)
    assert beside.read_line(5) == "ready\n"
    assert not beside.has_ended()
    assert beside.dismiss() == "last words\n"
    assert os.waitstatus_to_exitcode(beside.status or 0) == 7


def test_what_it_said_before_is_not_its_last_word() -> None:
    assert _fork(_waits).dismiss() == "last words\n"


def test_one_that_ends_by_itself_is_noticed() -> None:
    beside = _fork(lambda line: 3)
    assert beside.read_line(5) == ""
    while not beside.has_ended():
        time.sleep(0.01)
    assert beside.dismiss() == ""


def test_one_that_fails_ends(capfd: pytest.CaptureFixture[str]) -> None:
    def fails(line: socket.socket) -> int:
        os.close(2)
        raise ValueError

    beside = _fork(fails)
    assert beside.dismiss() == ""
    assert os.waitstatus_to_exitcode(beside.status or 0) == 1


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companion, "_PATIENCE", 0.1)

    def stays(line: socket.socket) -> int:
        time.sleep(60)
        return 0

    beside = _fork(stays)
    assert beside.dismiss() == ""
    assert os.waitstatus_to_exitcode(beside.status or 0) == -9


def test_it_is_no_part_of_our_terminal_and_its_output_is_our_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    def tells(line: socket.socket) -> int:
        line.sendall(f"{os.getsid(0) == os.getpid()} {os.read(0, 1)!r}\n".encode())
        os.write(1, b"told")
        return 0

    beside = _fork(tells)
    assert beside.read_line(5) == "True b''\n"
    beside.dismiss()
    assert capfd.readouterr() == ("", "told")


def test_it_sees_our_end_however_it_comes() -> None:
    script = """
import os, signal, sys
from jwtproxy.launcher.processes.companion import Companion
def work(line):
    line.recv(1)
    os.write(2, b"left\\n")
    return 0
Companion.fork(work)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, timeout=10, check=False)
    assert process.stderr == b"left\n"
