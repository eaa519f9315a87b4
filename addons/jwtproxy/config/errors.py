"""What every mistake in a setting is raised as."""

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
