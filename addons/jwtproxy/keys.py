"""Find the shared secret, and say what is wrong with it without ever repeating it."""

from collections.abc import Mapping
from pathlib import Path

from .settings import KEY_BYTES, SettingsError

SECRET = "JWT_SHARED_SECRET"
SECRET_FILE = "JWT_SHARED_SECRET_FILE"

_GENERATE = "make one with: openssl rand -hex 64"


def find_secret(*sources: Mapping[str, str]) -> bytes:
    """The secret of the first source that names one, as a value or as a file. Raises SettingsError.

    An empty value is an error and not "unset": a deployment whose secret came out empty must not start with another.
    """
    for source in sources:
        path = source.get(SECRET_FILE)
        if SECRET in source and path:
            raise SettingsError(f"both {SECRET} and {SECRET_FILE} are set", "keep one of the two")
        if path:
            return _decode(_read(path), f"{SECRET_FILE} {path!r}")
        if SECRET in source:
            return _decode(source[SECRET], SECRET)
    raise SettingsError(f"{SECRET} is not set", f"{_GENERATE}; or name a file in {SECRET_FILE}")


def check_length(secret: bytes, algorithm: str) -> None:
    """Refuse a secret shorter than the hash of its algorithm (RFC 7518 §3.2). Raises SettingsError."""
    wanted = KEY_BYTES[algorithm]
    if len(secret) < wanted:
        raise SettingsError(
            f"the shared secret has {len(secret)} bytes, {algorithm} wants at least {wanted}",
            f"make one with: openssl rand -hex {wanted}",
        )


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise SettingsError(f"{SECRET_FILE} {path!r} is not hexadecimal text", _GENERATE) from None
    except (OSError, ValueError, RuntimeError) as error:  # Runtime: no home for "~"; Value: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise SettingsError(
            f"cannot read {SECRET_FILE} {path!r}: {reason.lower()}", "name a file this user may read"
        ) from None


def _decode(text: str, origin: str) -> bytes:
    digits = "".join(text.split())
    if not digits:
        raise SettingsError(f"{origin} is empty", _GENERATE)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        pass  # raised below, outside this block: the exception's context would carry the secret's position
    if len(digits) % 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise SettingsError(
            f"{origin} has an odd number of hexadecimal digits ({len(digits)})", "is one missing at an end?"
        )
    raise SettingsError(f"{origin} is not hexadecimal", f"use the digits 0-9 and a-f only; {_GENERATE}")
