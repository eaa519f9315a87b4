"""What every mistake in a setting is raised as, and how what nobody has foreseen is told."""

import traceback
from typing import Self


class SettingsError(ValueError):
    """A setting that cannot be used; `hint` names the way out. What is not printable in them is escaped.

    They repeat what users write, and what libraries make of it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(_printable(message))
        self.hint = _printable(hint)

    def at(self, place: str) -> Self:
        """This error, which from now on says where: a file and line."""
        self.args = (f"{_printable(place)}: {self}",)
        return self


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def trace(error: BaseException | None) -> str:
    """Where an unforeseen error comes from, without its words: they may hold what passes, or a key."""
    if error is None:
        return ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{frames}{type(error).__name__}"
