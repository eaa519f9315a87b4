"""Where the signing key comes from: a variable, a file or a folder."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..config import files, spelling
from ..config.errors import SettingsError
from ..config.options import Option, string
from .algorithms import GENERATE
from .key_formats import decode_hex

SECRET = "JWT_SHARED_SECRET"
SECRET_FILE = "JWT_SHARED_SECRET_FILE"
KEY_FILE = "JWT_KEY_FILE"
KEY_DIR = "JWT_KEY_DIR"
PASSPHRASE = "JWT_KEY_PASSPHRASE"
PASSPHRASE_FILE = "JWT_KEY_PASSPHRASE_FILE"

_NAMES = (SECRET, SECRET_FILE, KEY_FILE, KEY_DIR)

OPTIONS = (
    Option(
        "jwt_key_file",
        "",
        string,
        "keys",
        "A file with the signing key: PEM, JWK, JWKS or a shared secret in hexadecimal.",
    ),
    Option(
        "jwt_key_dir",
        "",
        string,
        "keys",
        "A folder of such files, for rotation; the last by name signs, all are published.",
    ),
    Option("jwt_kid", "", string, "keys", "The kid by which tokens name their key; its RFC 7638 thumbprint if empty."),
)

_SECRET_LIKE = re.compile(r"[0-9A-Fa-f\s]{32,}|[A-Za-z0-9+/_-]{40,}={1,2}")


@dataclass(frozen=True)
class KeySource:
    """One place to read keys from, again and again as it changes; exactly one of `secret` and `path` is set."""

    name: str
    """The variable or key that names it."""
    secret: bytes | None = field(default=None, repr=False)
    path: str = ""
    passphrase: str | None = field(default=None, repr=False)
    """What opens encrypted keys: the passphrase, or the file that holds it."""
    passphrase_file: str = ""

    def other(self, path: str, name: str) -> "KeySource":
        """Another file or folder, opened by the same passphrase. Raises SettingsError."""
        check_path(path, name)
        return KeySource(name, None, path, self.passphrase, self.passphrase_file)

    def read_passphrase(self) -> bytes | None:
        """What opens encrypted keys. Raises SettingsError."""
        if self.passphrase_file:
            # Its name is not shown: people put the phrase there by mistake.
            phrase = files.read(self.passphrase_file, f"the file that {PASSPHRASE_FILE} names").rstrip(b"\r\n")
            if not phrase:
                raise SettingsError(f"the file that {PASSPHRASE_FILE} names is empty", "write the passphrase to it")
            return phrase
        return os.fsencode(self.passphrase) if self.passphrase is not None else None


def find(*sources: Mapping[str, str]) -> KeySource:
    """The key of the first source that names one. Raises SettingsError.

    An empty secret is an error and not "unset": a deployment whose secret came out empty must not start with another.
    """
    for source in sources:
        named = [SECRET] if SECRET in source else []
        named += [name for name in _NAMES[1:] if source.get(name)]
        if len(named) > 1:
            if source.get(SECRET) == "":
                said = f"{SECRET} is set but empty, and so conflicts with {named[1]}"
                raise SettingsError(said, f"remove the line {SECRET}=")
            raise SettingsError(f"both {named[0]} and {named[1]} are set", "keep one of the two")
        if named:
            return _source(named[0], source[named[0]], *_find_passphrase(*sources))
    hint = f"{GENERATE}; or name a file in {SECRET_FILE} or {KEY_FILE}, or a folder in {KEY_DIR}"
    if near := next((suspect for source in sources for suspect in _near_misses(source)), None):
        raise SettingsError(f"{SECRET} is not set, but {near.shown} is", f"did you mean {near.meant}? If not, {hint}")
    raise SettingsError(f"{SECRET} is not set", hint)


def find_for_script(options: Mapping[str, str], environ: Mapping[str, str]) -> KeySource:
    """The key's source where there is nothing but options, which begin as the environment says, and the environment.

    `options`: the values of jwt_key_file and jwt_key_dir, by variable. An option that was set since counts first.
    Raises SettingsError.
    """
    return find({name: value for name, value in options.items() if value != environ.get(name, "")}, environ)


def _near_misses(source: Mapping[str, str]) -> Iterator[spelling.Suspect]:
    """Variables that may have been meant to name a key."""
    for suspect in spelling.suspects(source, (*_NAMES, PASSPHRASE, PASSPHRASE_FILE)):
        if suspect.meant in _NAMES:
            yield suspect


def check_path(path: str, name: str) -> None:
    """Refuse a key where the path of one belongs: errors show paths. Raises SettingsError."""
    if "\n" in path or "-----BEGIN" in path or "{" in path or _SECRET_LIKE.fullmatch(path):
        raise SettingsError(f"{name} holds what looks like a key, not a path", "write it to a file and name that")


def read(path: str, place: str) -> str:
    """The text of a file. Raises SettingsError, in which it is called `place`."""
    try:
        return files.read(path, place).decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = "is it in DER form? openssl pkey -inform DER makes PEM of it"
        raise SettingsError(f"{place} is not text", hint) from None


def _source(name: str, value: str, passphrase: str | None, passphrase_file: str) -> KeySource:
    secret = decode_hex(value, SECRET) if name == SECRET else None
    if secret is None:
        check_path(value, name)
    return KeySource(name, secret, "" if secret else value, passphrase, passphrase_file)


def _find_passphrase(*sources: Mapping[str, str]) -> tuple[str | None, str]:
    for source in sources:
        phrase, file = source.get(PASSPHRASE), source.get(PASSPHRASE_FILE, "")
        if phrase and file:
            raise SettingsError(f"both {PASSPHRASE} and {PASSPHRASE_FILE} are set", "keep one of the two")
        if phrase or file:
            return phrase, file
    return None, ""
