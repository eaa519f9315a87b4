"""A file that users name is read whole or refused at once; nothing waits, and nothing fills the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jwtproxy.config import files
from jwtproxy.config.errors import SettingsError


def _error(path: str | Path) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        files.read(str(path), "it")
    return caught.value


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbf\r\n\0\xff")
    assert files.read(str(tmp_path / "file"), "it") == b"\xef\xbb\xbf\r\n\0\xff"
    (tmp_path / "empty").touch()
    assert files.read(str(tmp_path / "empty"), "it") == b""


def test_a_file_may_be_in_the_home_or_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"a")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert files.read("~/file", "it") == files.read("file", "it") == b"a"


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a")
    (tmp_path / "link").symlink_to("file")
    assert files.read(str(tmp_path / "link"), "it") == b"a"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing", "cannot read it: no such file or directory"),
        (".", "cannot read it: is a directory"),
        ("file/x", "cannot read it: not a directory"),
        ("loop", "cannot read it: too many levels of symbolic links"),
        ("a\0b", "cannot read it: not a usable path"),
        ("a" * 300, "cannot read it: file name too long"),
        ("~nobody-of-that-name/x", "cannot read it: not a usable path"),
    ],
)
def test_what_cannot_be_read_is_said(path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    error = _error(path)
    assert (str(error), error.hint) == (said, "name a file this user may read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_a_file_that_this_user_may_not_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0)
    assert str(_error(tmp_path / "file")) == "cannot read it: permission denied"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_at_once(pipe: Path) -> None:
    """Nobody writes to it, perhaps never; and what was written could be read once only."""
    assert str(_error(pipe)) == "cannot read it: it is a pipe"
    assert _error(pipe).hint.startswith("name a regular file")
    link = pipe.with_name("link")
    link.symlink_to(pipe)
    assert str(_error(link)) == "cannot read it: it is a pipe"


@pytest.fixture
def written(pipe: Path) -> Iterator[Path]:
    """A pipe with something in it, and with somebody who may write more."""
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    os.write(writer, b"a")
    yield pipe
    os.close(writer)
    os.close(reader)


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_whatever_is_in_it(written: Path) -> None:
    assert str(_error(written)) == "cannot read it: it is a pipe"


@pytest.mark.timeout(10)
def test_the_pipe_of_a_shell_is_refused_too() -> None:
    """`<(…)`, as bash has it, or standard input."""
    ends = os.pipe()
    try:
        assert str(_error(f"/dev/fd/{ends[0]}")) == "cannot read it: it is a pipe"
    finally:
        for end in ends:
            os.close(end)


@pytest.mark.timeout(10)
def test_a_device_without_an_end_is_too_long() -> None:
    error = _error("/dev/zero")
    assert (str(error), error.hint) == ("it is longer than 1 MiB", "name a file of keys or rules")


def test_an_empty_device_is_empty() -> None:
    assert files.read("/dev/null", "it") == b""


def test_a_megabyte_is_read_and_a_byte_more_is_not(tmp_path: Path) -> None:
    assert files.LONGEST == 1024 * 1024
    (tmp_path / "file").write_bytes(b"a" * files.LONGEST)
    assert files.read(str(tmp_path / "file"), "it") == b"a" * files.LONGEST
    (tmp_path / "file").write_bytes(b"a" * (files.LONGEST + 1))
    assert str(_error(tmp_path / "file")) == "it is longer than 1 MiB"


def test_no_descriptor_is_left_open(tmp_path: Path, pipe: Path) -> None:
    """Files are read again and again as long as the proxy runs."""
    (tmp_path / "file").touch()
    before = set(Path("/dev/fd").iterdir())
    for _ in range(3):
        files.read(str(tmp_path / "file"), "it")
        for path in (pipe, tmp_path, "/dev/zero"):
            _error(path)
    assert set(Path("/dev/fd").iterdir()) == before
