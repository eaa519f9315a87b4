"""The words of a command line: the first may be a command, and no word may mean nothing."""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from jwtproxy.config.errors import SettingsError
from jwtproxy.config.spelling import distance, likely_option

from .commands import COMMANDS
from .commands.help import topics

_KEY_LIKE = re.compile(r"[0-9A-Fa-f]{32,}|[A-Za-z0-9+/_-]{40,}={1,2}|-----BEGIN.*", re.DOTALL)
_SECRET = "[A-Za-z0-9_-]*(?:secret|passphrase|password)[A-Za-z0-9_-]*"
_SECRET_VALUE = re.compile(f"({_SECRET}=).+", re.DOTALL | re.IGNORECASE)

_ALIASES = {"run": "serve", "start": "serve", "proxy": "serve", "sign": "token", "mint": "token", "test": "check"}
"""What other programs call ours."""

_ASKS = "jwtproxy-run explain GET URL tells what would happen to a request, jwtproxy-run token URL prints its token"
_NO_KEYS = "process lists show command lines: write a key to a file, and name that with --key FILE"
_NO_PASSPHRASES = "process lists show command lines: name a file of a key's passphrase in JWT_KEY_PASSPHRASE_FILE"
_SHAPES = (
    (r"(?i:https?|wss?)://.*|GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS", _ASKS),
    (r"[0-9]+", "a port is given with --port {word}"),
    (r"[A-Z][A-Z0-9_]*=.*", "a variable comes before the command: {name}=… jwtproxy-run"),
    (r"jwt[_-].*=.*", "an option is given with --set {word}"),
    (r".*\.py", "a script is given with -s {word}"),
    (r".*\.ya?ml", "rules are given with --rules {word}"),
    (r".*\.(pem|jwks?|key|hex)", "a key is given with --key {word}"),
)
"""What a word looks like that is no command, and what to say of it."""


def serves(arguments: Sequence[str]) -> bool:
    """Whether they are those of a proxy."""
    return not arguments or arguments[0].startswith("-") or arguments[0] == "serve"


def split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command, and what is left for it. Raises SettingsError for a first word that is none."""
    if serves(arguments) and arguments[:1] != ["serve"]:
        return "serve", [*arguments]
    if arguments[0] not in COMMANDS:
        raise SettingsError(f"unknown command {without_keys(arguments[0])!r}", _hint(arguments))
    return arguments[0], [*arguments[1:]]


def stray(words: Sequence[str]) -> SettingsError:
    """The mistake of words that stand where none belongs: mitmdump would take them for a filter of its log."""
    if words[0] in COMMANDS:
        return SettingsError(f"{words[0]!r} is not the first word", f"put it first: jwtproxy-run {words[0]} …")
    return SettingsError(f"unexpected word {without_keys(words[0])!r}", _hint(words))


def without_keys(text: str) -> str:
    """The text, fit for an error even where somebody has written a key into a command line."""
    return _KEY_LIKE.sub("…", _SECRET_VALUE.sub(r"\1…", text))


def flag_hint(flag: str, flags: Iterable[str], options: Mapping[str, str]) -> str:
    """What to write in place of a flag that does not exist; nothing if nobody knows. `options`: the flag of each."""
    name = flag.partition("=")[0]
    option = name.removeprefix("--").replace("-", "_")
    if re.fullmatch(_SECRET, option, re.IGNORECASE):
        return _NO_PASSPHRASES if "passphrase" in option.lower() else _NO_KEYS
    if option in options:
        return f"options are given with --set {option}=…"
    near = _near_flag(name, [*flags], options)
    return near and (f"did you mean {near}?" if near.startswith("-") else f"options are given with --set {near}=…")


def _near_flag(name: str, flags: Sequence[str], options: Mapping[str, str]) -> str:
    """The flag that was meant, or the option; empty if neither comes to mind.

    Flags of mitmdump may look more like it than what it says: --key-file is not --rfile, nor --issuer --user.
    """
    if slip := next((flag for flag in flags if flag.startswith("--") and distance(name, flag) == 1), ""):
        return slip
    if option := likely_option(name.removeprefix("--"), options):
        return options[option] or option
    return next(iter(difflib.get_close_matches(name, flags, n=1, cutoff=0.7)), "")


def _meant(word: str) -> str:
    """The command that was probably meant, if any."""
    near = difflib.get_close_matches(word.lower(), COMMANDS, n=1)
    return _ALIASES.get(word.lower()) or next(iter(near), "")


def _hint(words: Sequence[str]) -> str:
    """What to write in place of these words."""
    if _KEY_LIKE.search(words[0]) or re.match(f"{_SECRET}=", words[0], re.IGNORECASE):
        return _NO_KEYS
    if re.match(r"[~!(]", words[0]):
        flags = (place for place, word in enumerate(words) if word.startswith("-"))
        return f"a filter is given with --filter {shlex.quote(' '.join(words[: next(flags, None)]))}"
    if advice := next((advice for shape, advice in _SHAPES if re.fullmatch(shape, words[0])), ""):
        return advice.format(word=shlex.quote(words[0]), name=words[0].partition("=")[0])
    if words[0].lower() in topics():
        return f"jwtproxy-run help {words[0].lower()} shows this topic of the manual"
    if command := _meant(words[0]):
        return f"did you mean {command}?"
    return f"the commands are {', '.join(COMMANDS)}; a filter of what is shown is given with --filter"
