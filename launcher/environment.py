"""What the environment and .env say."""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from jwtproxy.addons import jwt_inject, status
from jwtproxy.config import spelling
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.options import UNSEEN
from jwtproxy.lane import switch
from jwtproxy.observe import access_log
from jwtproxy.policy import connections

from .processes import capacity

OPTIONS = (*jwt_inject.OPTIONS, *status.OPTIONS, *switch.OPTIONS, *connections.OPTIONS, *access_log.OPTIONS)
"""The rows of all our options."""

VARIABLES = (
    *(option.variable for option in OPTIONS),
    *UNSEEN,
    *("HTTP_PORT", "HTTP_HOST", "WORKERS", spelling.STRICT),
)
"""All that is read of an environment."""

DOTENV = ".env"

Sources = tuple[Mapping[str, str], ...]


def sources(directory: Path) -> Sources:
    """Environment first, then the .env of this directory. Raises SettingsError for a .env that cannot be read."""
    return os.environ, _dotenv(directory / DOTENV)


def warnings(found: Sources) -> list[str]:
    """What to warn of: variables that are none of ours, but look so. Raises SettingsError for a misspelt one."""
    strict = spelling.is_strict(_first(spelling.STRICT, found) or "")
    places = ("", f" in {DOTENV}")
    return [
        warning
        for place, source in zip(places, found, strict=False)
        for warning in spelling.check(source, VARIABLES, strict=strict, place=place)
    ]


def options(found: Sources) -> dict[str, object]:
    """The mitmproxy options that variables set. Raises SettingsError."""
    values: dict[str, object] = {
        option.name: value for option in OPTIONS if (value := _first(option.variable, found)) is not None
    }
    if port := _first("HTTP_PORT", found):
        values["listen_port"] = parse_port(port, "HTTP_PORT")
    if host := _first("HTTP_HOST", found):
        values["listen_host"] = "" if host == "*" else host
    return values


def workers(flag: str | None, found: Sources) -> int | None:
    """How many processes are asked for; None for `auto`. Raises SettingsError."""
    if flag is not None:
        return capacity.parse(flag, "--workers")
    return capacity.parse(_first("WORKERS", found) or "1", "WORKERS")


def parse_port(value: str, origin: str) -> int:
    """A TCP port; 0 lets the system choose. Raises SettingsError."""
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise SettingsError(f"bad value {value!r} for {origin}", "use a port number from 0 to 65535")
    return int(value)


def _first(name: str, found: Sources) -> str | None:
    """The value of the first source that has one; an empty value counts as none."""
    return next((source[name] for source in found if source.get(name)), None)


def _dotenv(path: Path) -> dict[str, str]:
    try:
        if not path.exists():
            return {}
        with path.open(encoding="utf-8") as file:
            broken = next((binding.original.line for binding in parse_stream(file) if binding.error), None)
        if broken:
            raise SettingsError(f"cannot read .env: line {broken} is not NAME=value", "fix or remove that line")
        return {name: value or "" for name, value in dotenv_values(path, encoding="utf-8").items()}
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "error").lower() if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"cannot read .env: {reason}", "fix or remove the file") from None
