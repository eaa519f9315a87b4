"""Lines arrive as wholes, and who writes them never waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from jwtproxy.launcher.lines import Lines

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


def test_a_reader_who_is_too_slow_gets_no_more_but_holds_nobody_up(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    lines = Lines(writing, 4096, most=100_000)
    began = time.monotonic()
    for _ in range(1000):
        lines.write(["x" * 999])
    assert time.monotonic() - began < 1
    lines.end(0.01)
    kept = 0
    while kept < 100_000:
        kept += len(os.read(reading, 65536))
    os.set_blocking(reading, False)
    _until(lambda: "dropped" in capsys.readouterr().err)
    os.close(reading)
    os.close(writing)


def test_a_reader_who_has_gone_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines(writing, LONGEST, most=10)
    for _ in range(10):
        lines.write(["x" * 20])
    lines.end(5)
    os.close(writing)
    assert capsys.readouterr() == ("", "")


def test_a_full_disk_may_have_room_again() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    lines = Lines(full, LONGEST)
    lines.write(["lost"])
    _until(lambda: lines._taken > 0)
    os.dup2(writing, full)
    lines.write(["kept"])
    lines.end(5)
    assert os.read(reading, 100) == b"kept\n"
    for descriptor in (full, reading, writing):
        os.close(descriptor)
