"""Options: one row for each, brought by the room that it is about and joined by who puts rooms together.

A parser takes a value, not empty unless that is the default, and raises ValueError that says what to use instead.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from . import spelling
from .errors import SettingsError

Parser = Callable[[str], Any]

_DIGITS = 9
UNSEEN = (
    *("JWT_SHARED_SECRET", "JWT_SHARED_SECRET_FILE"),
    *("JWT_KEY_PASSPHRASE", "JWT_KEY_PASSPHRASE_FILE"),
    *("JWT_REDIS_URL", "JWT_REDIS_URL_FILE"),
)
"""Variables that are no options, lest a list of processes shows what they hold."""


class Option(NamedTuple):
    """One `jwt_…` option. All are strings to mitmproxy, which drops a script whose `int` option is bad."""

    name: str
    default: str
    parse: Parser
    topic: str
    """Where `jwtproxy-run help` tells more of it."""
    help: str
    limit: bool = False
    """Whether it bounds what others may do, so that `/status` tells how often it did."""

    @property
    def variable(self) -> str:
        """The environment variable of this option."""
        return self.name.upper()

    @property
    def member(self) -> str:
        """Its name among settings."""
        return self.name.removeprefix("jwt_")

    def check(self, value: str) -> Any:
        """The value, checked; empty means the default. Raises SettingsError naming option, value and way out."""
        value = value or self.default
        try:
            return self.parse(value)
        except SettingsError as error:
            raise SettingsError(f"bad value for {self.name}: {error}", error.hint) from None
        except ValueError as error:
            hint = f"{error} ({self.name} or {self.variable})"
            raise SettingsError(f"bad value {value!r} for {self.name}", hint) from None


def declare(loader: Any, rows: Iterable[Option], environ: Mapping[str, str]) -> None:
    """Declare the options to mitmproxy; before anyone sets one, it is what its variable says, or our default."""
    for row in rows:
        loader.add_option(row.name, str, environ.get(row.variable) or row.default, row.help)


def parse(rows: Iterable[Option], values: Any) -> dict[str, Any]:
    """The checked values of the options, which are attributes of `values`. Raises SettingsError for the first bad."""
    return {row.member: row.check(getattr(values, row.name)) for row in rows}


def check_known(names: Iterable[str], rows: Iterable[Option]) -> None:
    """Refuse a name that looks like one of ours but is none, and has no effect. Raises SettingsError."""
    known = [row.name for row in rows]
    for name in sorted(names):
        if name.lower().replace("-", "_").startswith("jwt_") and name not in known:
            raise SettingsError(f"unknown option {name!r}", _hint(name, known))


def _hint(name: str, known: list[str]) -> str:
    """What to write in place of a name that is none."""
    if (variable := name.upper().replace("-", "_")) in UNSEEN:
        return f"it is no option, as lists of processes show those: set the variable {variable}"
    if meant := spelling.likely_option(name, known):
        return f"did you mean {meant}?"
    return f"the options are {', '.join(known)}"


def warnings(environ: Mapping[str, str], rows: Iterable[Option]) -> list[str]:
    """What to warn of in the environment of a script, which may be another program's: variables that are none.

    Raises SettingsError where that is asked for.
    """
    known = [*(row.variable for row in rows), *UNSEEN, spelling.STRICT]
    strict = spelling.is_strict(environ.get(spelling.STRICT, ""))
    return spelling.check(environ, known, strict=strict, slips=False, command="mitmdump …")


def check_elsewhere(rows: Iterable[Option], values: Any, environ: Mapping[str, str]) -> None:
    """Check options that another addon declares, which may come later or not at all: a mistake is one all the same.

    `values`: mitmproxy's options. Raises SettingsError.
    """
    for row in rows:
        if row.name in values:
            continue
        given = values.deferred.get(row.name, environ.get(row.variable, ""))
        row.check(str(getattr(given, "val", [given])[-1]))  # mitmproxy keeps what --set says as a list of strings


def string(value: str) -> str:
    """Any string that can be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("use UTF-8") from None
    return value


def one_of(*choices: str) -> Parser:
    """One of these strings."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"use one of {', '.join(choices)}")
        return value

    return parse


def seconds(value: str) -> float:
    """A time limit in seconds; 0 is none."""
    try:
        parsed = float(value)
    except ValueError:
        parsed = math.nan
    if not 0 <= parsed < math.inf:
        raise ValueError("use a number of seconds, 0 for no limit")
    return parsed


def whole(least: int) -> Parser:
    """A number of something."""

    def parse(value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) >= least):
            raise ValueError(f"use a whole number, at least {least}")
        return int(value)

    return parse


def size(least: int) -> Parser:
    """Bytes, with or without one of the letters k, m and g for powers of 1024."""

    def parse(value: str) -> int:
        found = re.fullmatch(r"([0-9]{1,12})([kmg]?)", value.lower())
        if not found or (bytes_ := int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2]]) < least:
            raise ValueError(f"use a number of bytes, at least {least}, as 65536, 64k or 1m")
        return bytes_

    return parse


def number(value: str) -> int:
    """How many of something there may be; 0 is no limit."""
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS):
        raise ValueError("use a whole number, 0 for no limit")
    return int(value)


def number_or_auto(value: str) -> int | None:
    """The same; None for `auto`."""
    if value == "auto":
        return None
    try:
        return number(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def whole_seconds(least: int) -> Parser:
    """Seconds, at most those of a century; 0 if empty."""
    most = 100 * 365 * 86_400

    def parse(value: str) -> int:
        if not value:
            return 0
        short = value.isascii() and value.isdigit() and len(value) <= len(str(most))
        if not (short and least <= int(value) <= most):
            raise ValueError(f"use a whole number of seconds, {least} to {most}")
        return int(value)

    return parse
