"""Notice that files have changed."""

import os
from pathlib import Path

_State = tuple[object, ...]


class Watched:
    """Files and folders, and how each was when it was added: before it was read, so that no change is missed."""

    def __init__(self) -> None:
        self._states: dict[Path, _State] = {}

    def add(self, name: str) -> None:
        """Watch a file or folder, there or not."""
        path = Path(os.path.expanduser(name))  # noqa: PTH111  # Path's own raises where there is no home
        self._states.setdefault(path, _state(path))

    def changed(self) -> dict[Path, _State]:
        """Those that are not as they were added, as they are now."""
        return {path: now for path, was in self._states.items() if (now := _state(path)) != was}


def _state(path: Path) -> _State:
    """What differs once a file, or one of a folder, is written, replaced, linked elsewhere or allowed to be read."""
    try:
        names = [name for name in sorted(os.listdir(path)) if not name.startswith(".")] if path.is_dir() else []  # noqa: PTH208  # names are all we need
    except OSError:
        names = []
    return tuple((name, *_stat(path / name)) for name in ("", *names))


def _stat(path: Path) -> tuple[object, ...]:
    try:
        stat = path.stat()
        return os.path.realpath(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    except (OSError, ValueError):  # Value: a NUL in the name
        return ()
