"""Read the files that users name."""

import os
import stat
from pathlib import Path

from .errors import SettingsError

LONGEST = 1 << 20
"""Bytes; what is longer is no file of keys or rules, but perhaps a device without an end."""


def read(path: str, place: str) -> bytes:
    """The content of a file, `~` understood. Raises SettingsError, in which it is called `place`; never waits."""
    try:
        content = _read(Path(path).expanduser())
    except (OSError, ValueError, RuntimeError) as error:  # Runtime: no home for "~"; Value: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise SettingsError(f"cannot read {place}: {reason.lower()}", "name a file this user may read") from None
    if content is None:
        hint = "name a regular file: it is read again whenever it may have changed, by every worker"
        raise SettingsError(f"cannot read {place}: it is a pipe", hint)
    if len(content) > LONGEST:
        raise SettingsError(f"{place} is longer than 1 MiB", "name a file of keys or rules")
    return content


def _read(path: Path) -> bytes | None:
    """What is in it, a byte too much if that is too long; None for a pipe, which may never have a writer."""
    with open(path, "rb", opener=_open_at_once) as file:  # Path's own takes no opener
        return None if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode) else file.read(LONGEST + 1)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for whoever might write to a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
