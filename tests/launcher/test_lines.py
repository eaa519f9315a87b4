"""Lines arrive as wholes, and who writes them never waits."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jwtproxy.launcher import lines as lines_module
from jwtproxy.launcher.lines import Lines
from tests.support.pipes import full_pipe

LONGEST = 64


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lines_arrive_in_order() -> None:
    reading, writing = os.pipe()
    lines = Lines(writing, LONGEST)
    lines.write(["a", "b"])
    lines.write(["c" * 100, "d"])
    lines.end(5)
    os.close(writing)
    with os.fdopen(reading) as reader:
        assert reader.read().split("\n") == ["a", "b", "c" * 100, "d", ""]


def test_several_writers_do_not_come_in_between() -> None:
    reading, writing = os.pipe()
    writers = [Lines(writing, 4096) for _ in range(4)]
    got: list[str] = []

    def read() -> None:
        with os.fdopen(reading) as reader:
            got.extend(reader.read().splitlines())

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(50):
        for number, lines in enumerate(writers):
            lines.write([str(number) * 900] * 10)
    for lines in writers:
        lines.end(5)
    os.close(writing)
    thread.join(5)
    assert sorted(set(got)) == [str(number) * 900 for number in range(4)]
    assert len(got) == 2000


DROPPED = "jwtproxy: warning: lines of the log are dropped: its reader is too slow\n"


def test_a_reader_who_is_too_slow_gets_no_more_but_holds_nobody_up(capfd: pytest.CaptureFixture[str]) -> None:
    """That is told when it begins, and how many it were when the reader has caught up."""
    reading, writing, filled = full_pipe()
    lines = Lines(writing, 4096, most=100_000)
    began = time.monotonic()
    for _ in range(1000):
        lines.write(["x" * 999])
    assert time.monotonic() - began < 1
    said = ""

    def told() -> str:
        nonlocal said
        said += capfd.readouterr().err
        return said

    _until(lambda: told() != "")
    assert said == DROPPED
    kept = -filled
    os.set_blocking(reading, False)

    def read() -> bool:
        nonlocal kept
        with contextlib.suppress(BlockingIOError):
            kept += len(os.read(reading, 65536))
        return "again" in told()

    _until(read)
    lost = re.fullmatch(
        rf"{DROPPED}jwtproxy: warning: (\d+) lines of the log were dropped: its reader is too slow; "
        "they are written again\n",
        said,
    )
    assert lost
    _until(lambda: read() and kept >= 1000 * (1000 - int(lost[1])))
    lines.end(5)
    assert kept == 1000 * (1000 - int(lost[1]))
    assert told().count("\n") == 2
    os.close(reading)
    os.close(writing)


def test_of_a_reader_who_never_reads_it_is_told_at_once_and_how_much_at_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    reading, writing, _ = full_pipe()
    lines = Lines(writing, 4096, most=100_000)
    for _ in range(200):
        lines.write(["x" * 999] * 5)
    _until(lambda: capfd.readouterr().err == DROPPED)
    lines.end(0.1)
    end = "jwtproxy: warning: 1000 lines of the log were never written: its reader is too slow\n"
    assert capfd.readouterr().err == end
    os.close(reading)
    os.close(writing)


def test_who_does_not_read_stderr_either_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where both are the same: a warning must not wait, nor must the end."""
    reading, writing, _ = full_pipe()
    monkeypatch.setattr(lines_module, "_STDERR", writing)
    lines = Lines(writing, 4096, most=1000)
    began = time.monotonic()
    for _ in range(1000):
        lines.write(["x" * 999])
    lines.end(0.1)
    assert time.monotonic() - began < 3
    os.close(reading)  # which ends those who wait
    _until(lambda: lines._is_gone)
    os.close(writing)


def test_a_pipe_that_does_not_wait_gets_all(capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever made it may have set that, for us as well."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = Lines(writing, 4096)
    expected = [f"{number} {'x' * (number % 6000)}" for number in range(1000)]
    for line in expected:
        lines.write([line])
    time.sleep(0.1)  # in which it is full

    def read() -> None:
        with os.fdopen(reading) as reader:
            got.extend(reader.read().splitlines())

    got: list[str] = []
    thread = threading.Thread(target=read)
    thread.start()
    lines.end(5)
    os.close(writing)
    thread.join(5)
    assert got == expected
    assert capfd.readouterr().err == ""


def test_a_reader_who_has_gone_is_no_failure(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines(writing, LONGEST, most=10)
    lines.write(["x" * 20])
    _until(lambda: lines._is_gone)
    for _ in range(10):
        lines.write(["x" * 20])
    lines.end(5)
    os.close(writing)
    assert capfd.readouterr() == ("", "")


FULL = "jwtproxy: warning: lines of the log are dropped: no space left on device\n"


def test_a_full_disk_is_told_and_may_have_room_again(capfd: pytest.CaptureFixture[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    lines = Lines(full, LONGEST)
    for _ in range(3):
        lines.write(["lost", "lost"])
    _until(lambda: lines._failed == 6)
    os.dup2(writing, full)
    lines.write(["kept"])
    lines.end(5)
    assert os.read(reading, 100) == b"kept\n"
    again = "jwtproxy: warning: 6 lines of the log were dropped: no space left on device; they are written again\n"
    assert capfd.readouterr().err == f"{FULL}{again}"
    for descriptor in (full, reading, writing):
        os.close(descriptor)


def test_a_disk_that_stays_full_is_told_once_and_how_much_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    lines = Lines(full, LONGEST)
    for _ in range(3):
        lines.write(["lost", "lost"])
    lines.end(5)
    os.close(full)
    end = "jwtproxy: warning: 6 lines of the log were never written: no space left on device\n"
    assert capfd.readouterr().err == f"{FULL}{end}"


def test_a_line_that_a_full_disk_has_torn_is_whole_in_the_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1010, limits[1]))
    try:
        lines = Lines(file, LONGEST)
        for number in range(60):
            lines.write([f"{number:019}"])
        _until(lambda: lines._failed == 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines.write(["last"])
    lines.end(5)
    os.close(file)
    assert (tmp_path / "log").read_text().splitlines() == [*(f"{number:019}" for number in range(51)), "last"]
    assert lines._told == 9
    assert capfd.readouterr().err.startswith("jwtproxy: warning: lines of the log are dropped: file too large\n")
