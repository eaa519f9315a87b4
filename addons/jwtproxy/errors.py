"""What every mistake in a setting is raised as."""


class SettingsError(ValueError):
    """A setting that cannot be used; `hint` names the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
