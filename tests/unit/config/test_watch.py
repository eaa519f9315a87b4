"""That a file has changed is noticed, whatever changed it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jwtproxy.config.watch import Watched


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Beside ordinary files, one as Kubernetes mounts it: key -> ..data/key, ..data -> ..1."""
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "key").write_text(version)
        os.utime(tmp_path / f"..{version}" / "key", (0, 0))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    (tmp_path / "file").write_text("1")
    return tmp_path


def _swap(folder: Path) -> None:
    (folder / "..new").symlink_to("..2")
    (folder / "..new").replace(folder / "..data")


def _replace(folder: Path) -> None:
    (folder / ".new").write_text("1")
    (folder / ".new").replace(folder / "file")


def _touch(folder: Path) -> None:
    os.utime(folder / "file", (1, 1))


def _append(folder: Path) -> None:
    with (folder / "file").open("a") as file:
        file.write("2")


def _make(folder: Path) -> None:
    (folder / "missing").mkdir()
    (folder / "missing/key").touch()


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("file", _append),
    ("file", _touch),
    ("file", _replace),
    ("file", lambda folder: (folder / "file").unlink()),
    ("file", lambda folder: (folder / "file").chmod(0o640)),  # one that could not be read before, may now
    ("missing", lambda folder: (folder / "missing").touch()),
    ("missing/key", _make),
    ("key", _swap),
    ("..data", _swap),
    (".", _swap),
    (".", _append),
    (".", _replace),
    (".", lambda folder: (folder / "new").touch()),
    (".", lambda folder: (folder / "file").rename(folder / "other")),
    (".", lambda folder: (folder / "file").unlink()),
    ("key", lambda folder: (folder / "..data").unlink()),
]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_change_is_noticed(folder: Path, name: str, change: Callable[[Path], object]) -> None:
    watched = Watched()
    watched.add(str(folder / name))
    assert watched.changed() == {}
    change(folder)
    changed = watched.changed()
    assert set(changed) == {folder / name}
    assert watched.changed() == changed, "and stays one, the same while nothing else happens"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / ".file.swp").touch(),
        lambda folder: (folder / "..3").mkdir(),
        lambda folder: (folder / "file").read_text(),
        lambda folder: (folder / "another").touch(),
    ],
)
def test_what_matters_to_nobody_does_not(folder: Path, change: Callable[[Path], object]) -> None:
    watched = Watched()
    for name in ("file", "key", "missing"):
        watched.add(str(folder / name))
    change(folder)
    assert watched.changed() == {}


def test_a_change_before_it_is_read_is_not_missed(folder: Path) -> None:
    """Who adds it once more, after a change, has read the old one in between."""
    watched = Watched()
    watched.add(str(folder / "file"))
    _append(folder)
    watched.add(str(folder / "file"))
    assert set(watched.changed()) == {folder / "file"}


def test_a_change_that_goes_on_looks_different_each_time(folder: Path) -> None:
    watched = Watched()
    watched.add(str(folder))
    _append(folder)
    first = watched.changed()
    _append(folder)
    assert watched.changed() != first


def test_a_change_that_is_taken_back_is_none(folder: Path) -> None:
    watched = Watched()
    watched.add(str(folder / "missing"))
    (folder / "missing").touch()
    (folder / "missing").unlink()
    assert watched.changed() == {}


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-this-name/x", "x" * 5000, ""])
def test_what_is_no_path_never_changes(name: str) -> None:
    watched = Watched()
    watched.add(name)
    assert watched.changed() == {}


def test_a_path_may_be_in_the_home_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    watched = Watched()
    watched.add("~/file")
    _append(folder)
    assert set(watched.changed()) == {folder / "file"}


@pytest.mark.timeout(10)
def test_a_folder_that_holds_itself_is_looked_at_all_the_same(folder: Path) -> None:
    for name in ("again", "and again", "and once more"):
        (folder / name).symlink_to(".")
    watched = Watched()
    watched.add(str(folder))
    _append(folder)
    assert set(watched.changed()) == {folder}
