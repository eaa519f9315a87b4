"""Read the files that users name."""

from pathlib import Path

from .errors import SettingsError

LONGEST = 1 << 20
"""Bytes; what is longer is no file of keys or rules, but perhaps a device without an end."""


def read(path: str, place: str) -> bytes:
    """The content of a file, `~` understood. Raises SettingsError, in which it is called `place`."""
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LONGEST + 1)
    except (OSError, ValueError, RuntimeError) as error:  # Runtime: no home for "~"; Value: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise SettingsError(f"cannot read {place}: {reason.lower()}", "name a file this user may read") from None
    if len(content) > LONGEST:
        raise SettingsError(f"{place} is longer than 1 MiB", "name a file of keys or rules")
    return content
