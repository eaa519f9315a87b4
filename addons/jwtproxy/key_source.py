"""Where the signing key comes from: a variable, a file or a folder."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import files, keys
from .errors import SettingsError

SECRET = "JWT_SHARED_SECRET"
SECRET_FILE = "JWT_SHARED_SECRET_FILE"
KEY_FILE = "JWT_KEY_FILE"
KEY_DIR = "JWT_KEY_DIR"
PASSPHRASE = "JWT_KEY_PASSPHRASE"
PASSPHRASE_FILE = "JWT_KEY_PASSPHRASE_FILE"

_SECRET_LIKE = re.compile(r"[0-9A-Fa-f\s]{32,}")


@dataclass(frozen=True)
class Source:
    """One place to read keys from, again and again as it changes; exactly one of `secret` and `path` is set."""

    name: str
    """The variable or key that names it."""
    secret: bytes | None = field(default=None, repr=False)
    path: str = ""
    passphrase: str | None = field(default=None, repr=False)
    """What opens encrypted keys: the pass phrase, or the file that holds it."""
    passphrase_file: str = ""

    def other(self, path: str, name: str) -> "Source":
        """Another file or folder, opened by the same pass phrase. Raises SettingsError."""
        check_path(path, name)
        return Source(name, None, path, self.passphrase, self.passphrase_file)

    def read_passphrase(self) -> bytes | None:
        """What opens encrypted keys. Raises SettingsError."""
        if self.passphrase_file:
            # Its name is not shown: people put the phrase there by mistake.
            phrase = files.read(self.passphrase_file, f"the file that {PASSPHRASE_FILE} names").rstrip(b"\r\n")
            if not phrase:
                raise SettingsError(f"the file that {PASSPHRASE_FILE} names is empty", "write the pass phrase in it")
            return phrase
        return os.fsencode(self.passphrase) if self.passphrase is not None else None


def find(*sources: Mapping[str, str]) -> Source:
    """The key of the first source that names one. Raises SettingsError.

    An empty secret is an error and not "unset": a deployment whose secret came out empty must not start with another.
    """
    for source in sources:
        named = [SECRET] if SECRET in source else []
        named += [name for name in (SECRET_FILE, KEY_FILE, KEY_DIR) if source.get(name)]
        if len(named) > 1:
            if source.get(SECRET) == "":
                said = f"{SECRET} is empty, but set, and so is {named[1]}"
                raise SettingsError(said, f"take the line {SECRET}= out")
            raise SettingsError(f"both {named[0]} and {named[1]} are set", "keep one of the two")
        if named:
            return _source(named[0], source[named[0]], *_find_passphrase(*sources))
    raise SettingsError(
        f"{SECRET} is not set",
        f"{keys.GENERATE}; or name a file in {SECRET_FILE} or {KEY_FILE}, or a folder in {KEY_DIR}",
    )


def check_path(path: str, name: str) -> None:
    """Refuse a key where the path of one belongs: errors show paths. Raises SettingsError."""
    if "\n" in path or "-----BEGIN" in path or "{" in path or _SECRET_LIKE.fullmatch(path):
        raise SettingsError(f"{name} holds what looks like a key, not the path of one", "write it to a file, name that")


def read(path: str, place: str) -> str:
    """The text of a file. Raises SettingsError, in which it is called `place`."""
    try:
        return files.read(path, place).decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = "is it in DER form? openssl pkey -inform DER makes PEM of it"
        raise SettingsError(f"{place} is not text", hint) from None


def _source(name: str, value: str, passphrase: str | None, passphrase_file: str) -> Source:
    secret = keys.decode_hex(value, SECRET) if name == SECRET else None
    if secret is None:
        check_path(value, name)
    return Source(name, secret, "" if secret else value, passphrase, passphrase_file)


def _find_passphrase(*sources: Mapping[str, str]) -> tuple[str | None, str]:
    for source in sources:
        phrase, file = source.get(PASSPHRASE), source.get(PASSPHRASE_FILE, "")
        if phrase and file:
            raise SettingsError(f"both {PASSPHRASE} and {PASSPHRASE_FILE} are set", "keep one of the two")
        if phrase or file:
            return phrase, file
    return None, ""
