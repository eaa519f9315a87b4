"""Errors and hints are one line each."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import pytest

from jwtproxy.launcher.report import report, tell, warn
from tests.support.pipes import full_pipe


@pytest.mark.parametrize(
    ("message", "hint", "printed"),
    [
        ("no key", "", "jwtproxy: error: no key\n"),
        ("no key", "make one", "jwtproxy: error: no key\njwtproxy: hint: make one\n"),
        ("two\nlines\t here", "and\n here", "jwtproxy: error: two lines here\njwtproxy: hint: and here\n"),
        ("JWT_SHARED_SECRET is not set", "", "jwtproxy: error: JWT_SHARED_SECRET is not set\n"),
        ("Addon error: Invalid mode", "", "jwtproxy: error: invalid mode\n"),
    ],
)
def test_an_error_is_one_line_and_a_hint_another(
    message: str, hint: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report(message, hint)
    assert capsys.readouterr() == ("", printed)


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn("look at this")
    assert capsys.readouterr() == ("", "jwtproxy: warning: look at this\n")


def test_a_line_of_what_serves_is_printed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    tell("reloaded")
    assert capsys.readouterr() == ("jwtproxy: reloaded\n", "")


@pytest.mark.parametrize(("stream", "say"), [("stderr", lambda text: report(text, "hint")), ("stdout", tell)])
def test_what_is_told_comes_in_one_piece(
    stream: str, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers share their streams: what is written in two pieces is mixed with what others write."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reading, writing, io.TextIOWrapper(writing.makefile("wb"), line_buffering=True) as lines:
        monkeypatch.setattr(sys, stream, lines)
        say("once")
        assert reading.recv(1000).endswith(b"\n")
        reading.setblocking(False)
        with pytest.raises(BlockingIOError):
            reading.recv(1000)


@pytest.mark.parametrize(("stream", "say"), [("stderr", report), ("stderr", warn), ("stdout", tell)])
@pytest.mark.parametrize("full", [False, True])
def test_what_cannot_be_told_is_forgotten(
    stream: str, say: Callable[[str], None], full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not come up again when the stream is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(os.open("/dev/full", os.O_WRONLY) if full else writing, "w") as lost:
        monkeypatch.setattr(sys, stream, lost)
        say("once")
        say("again")
    if full:
        os.close(writing)


@pytest.mark.parametrize("buffering", [-1, 1])
@pytest.mark.parametrize(("stream", "say"), [("stderr", report), ("stderr", warn), ("stdout", tell)])
def test_a_pipe_that_does_not_wait_gets_all(
    stream: str, say: Callable[[str], None], buffering: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started us may read by the same description, and want it so."""
    reading, writing, before = full_pipe()
    os.set_blocking(writing, False)
    came: list[bytes] = []

    def read() -> None:
        time.sleep(0.1)
        while data := os.read(reading, 4096):
            came.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w", buffering) as lines:
        monkeypatch.setattr(sys, stream, lines)
        for number in range(100):
            say(f"line {number}")
    reader.join(5)
    os.close(reading)
    told = b"".join(came)[before:].decode().splitlines()
    assert [line.rpartition(" ")[2] for line in told] == [str(number) for number in range(100)]
