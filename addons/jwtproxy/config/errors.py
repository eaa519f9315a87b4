"""What every mistake in a setting is raised as, and how what nobody has foreseen is told."""

import traceback
from typing import Self


class SettingsError(ValueError):
    """A setting that cannot be used; `hint` names the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def at(self, place: str) -> Self:
        """This error, which from now on says where: a file and line."""
        self.args = (f"{place}: {self}",)
        return self


def trace(error: BaseException | None) -> str:
    """Where an unforeseen error comes from, without its words: they may hold what passes, or a key."""
    if error is None:
        return ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{frames}{type(error).__name__}"
