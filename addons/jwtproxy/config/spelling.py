"""Misspelt settings: what a name that means nothing may have been meant as.

Nobody misspells a whole variable: what counts is how many slips of a finger lie between two names (a letter that is
wrong, missing, too much, or in the place of its neighbour). Other programs have variables that begin as ours do, so
that what is not near to one of ours is only worth a warning.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from .errors import SettingsError

STRICT = "JWT_STRICT_ENV"
"""The variable that makes an error of each warning."""

_OURS = "JWT_"
_SLIPS = 2
_ON, _OFF = ("1", "true", "on", "yes"), ("", "0", "false", "off", "no")

# Exactly these, and no other without our prefix: HTTP_PROXY and HTTPS_PORT are near to HTTP_PORT, and not meant as it.
_OTHERS = {"HTTPPORT": "HTTP_PORT", "JWTUSER": "JWT_USER", "WORKER": "WORKERS"}

# Other words for what we have, with what they may mean: some are near to another name by chance (EXP to TYP, KEY_ID to
# KEY_DIR, ROLE to RULES), and belong to other programs more often than not.
_WORDS = {
    "JWT_SHARED_SECRET": "SECRET SECRET_KEY SHARED_KEY SIGNING_SECRET HMAC_SECRET TOKEN_SECRET",
    "JWT_SHARED_SECRET_FILE": "SECRET_FILE SECRET_PATH SECRET_KEY_FILE",
    "JWT_KEY_FILE": "KEY PRIVATE_KEY SIGNING_KEY KEY_PATH PRIVATE_KEY_FILE PRIVATE_KEY_PATH PEM PEM_FILE",
    "JWT_KEY_DIR": "KEYS KEY_FOLDER KEYS_FOLDER",
    "JWT_KEY_PASSPHRASE": "PASSPHRASE PASSWORD KEY_PASSWORD",
    "JWT_KID": "KEY_ID",
    "JWT_TTL": "EXP EXPIRY EXPIRES EXPIRES_IN EXPIRATION EXPIRATION_TIME LIFETIME ACCESS_TOKEN_EXPIRES",
    "JWT_AUDIENCE": "AUD",
    "JWT_ISSUER": "ISS",
    "JWT_SUBJECT": "SUB",
    "JWT_ALGORITHM": "ALG ALGO",
    "JWT_USER": "NAME",
    "JWT_CLAIMS": "PAYLOAD ROLE ROLES SCOPE",
    "JWT_RESPONSE_TIMEOUT": "TIMEOUT",
    "HTTP_PORT": "PORT HTTP_PORT LISTEN_PORT",
    "HTTP_HOST": "HOST HTTP_HOST LISTEN_HOST",
    "WORKERS": "WORKERS WORKER",
    "": "UUID",
}
_MEANT = {_OURS + word: name for name, words in _WORDS.items() for word in words.split()}

# What Kubernetes sets in each container for a service that is called jwt, or jwt-something.
_LINK = re.compile(
    r"JWT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_NAME = re.compile(r"[A-Za-z0-9]{1,16}([_-][A-Za-z0-9]{0,16}){0,9}", re.ASCII)
_LINKED_PORT = re.compile(r"(tcp|udp|sctp)://")


class Suspect(NamedTuple):
    """A variable that has no effect, although it looks like one of ours."""

    name: str
    meant: str
    """What it may have been meant as; empty if nothing comes to mind."""
    is_slip: bool
    """Whether it is so near to that as to be a mistake, and not another program's."""

    @property
    def shown(self) -> str:
        """Its name, but for what may be a part of its value, where a line lacks its `=`, or has a colon there."""
        return self.name if _NAME.fullmatch(self.name) else f"{self.name[: len('JWT_SHARED_SECRET')]}…"


def check(
    variables: Mapping[str, str],
    known: Collection[str],
    *,
    strict: bool = False,
    place: str = "",
    slips: bool = True,
    command: str = "jwtproxy-run",
) -> list[str]:
    """What to warn of: variables that look like one of ours, but are none. Raises SettingsError for a misspelt one.

    strict: raise for all of them; place: what to add to a name, such as " in .env"; slips: whether to raise for those
    that are misspelt, where nobody asks for more; command: what was started.
    """
    found = list(suspects(variables, known))
    for suspect in found:
        if strict or (slips and suspect.is_slip):
            raise SettingsError(f"unknown variable {suspect.shown}{place}", _hint(suspect, place, command))
    strange = [suspect.shown for suspect in found if not suspect.meant]
    warnings = [f"unknown variable {one.shown}{place}: did you mean {one.meant}?" for one in found if one.meant]
    if strange:
        warnings.append(f"unknown variables{place}, which have no effect: {', '.join(strange)}")
    return warnings


def suspects(variables: Mapping[str, str], known: Collection[str]) -> Iterable[Suspect]:
    """The variables that have a value and look like one of those known, but are none."""
    for name, value in variables.items():
        if name in known or not value or _is_link(name, value):
            continue
        if (meant := _OTHERS.get(name)) in known:
            yield Suspect(name, str(meant), is_slip=False)
        elif (spelled := _spelled(name)).startswith(_OURS):
            yield _suspect(name, spelled, known)


def is_strict(value: str) -> bool:
    """What JWT_STRICT_ENV says. Raises SettingsError."""
    if (said := value.lower()) not in (*_ON, *_OFF):
        raise SettingsError(f"bad value {value!r} for {STRICT}", "use 1 or 0")
    return said in _ON


def likely_option(name: str, known: Iterable[str]) -> str:
    """The option that was meant by a name that is none, with or without its prefix; empty if none comes to mind."""
    names = {_spelled(option): option for option in known}
    forms = (_spelled(name), _OURS + _spelled(name))
    ways: tuple[Callable[[str], str], ...] = (
        lambda form: form,
        lambda form: _MEANT.get(form, ""),
        lambda form: _nearest(form, names),
        lambda form: _longer_or_shorter(form, names),
    )
    found = (meant for way in ways for form in forms if (meant := way(form)) in names)
    return names.get(next(found, ""), "")


def _suspect(name: str, spelled: str, known: Collection[str]) -> Suspect:
    if spelled in known:
        return Suspect(name, spelled, is_slip=True)
    if spelled in _MEANT:
        return Suspect(name, meant if (meant := _MEANT[spelled]) in known else "", is_slip=False)
    near = _nearest(spelled, known)
    return Suspect(name, near or _longer_or_shorter(spelled, known), is_slip=bool(near))


def _hint(suspect: Suspect, place: str, command: str) -> str:
    meant = f"did you mean {suspect.meant}? If not, " if suspect.meant else ""
    without = "remove it there" if place else f"start jwtproxy without it: env -u {suspect.shown} {command}"
    return f"{meant}{without}" + ("" if suspect.is_slip else f" ({STRICT} makes an error of it)")


def _is_link(name: str, value: str) -> bool:
    """Whether Kubernetes, or Docker, made it of a service's name."""
    linked_port = name.startswith(_OURS) and name.endswith("_PORT") and _LINKED_PORT.match(value)
    return bool(linked_port or _LINK.fullmatch(name))


def _spelled(name: str) -> str:
    return name.upper().replace("-", "_")


def _nearest(spelled: str, known: Iterable[str]) -> str:
    """The nearest of those that are a slip or two away, and of which at least half of the letters are right."""
    best, least = "", _SLIPS + 1
    for name in known:
        both = spelled.startswith(_OURS) and name.startswith(_OURS)  # what they share says nothing
        one, other = (spelled.removeprefix(_OURS), name.removeprefix(_OURS)) if both else (spelled, name)
        if abs(len(one) - len(other)) < least:
            slips = distance(one, other)
            if slips < least and 2 * slips <= max(len(one), len(other)):
                best, least = name, slips
    return best


def _longer_or_shorter(spelled: str, known: Iterable[str]) -> str:
    """What goes on where a known name ends, or the only one that goes on where this ends."""
    if spelled == _OURS:
        return ""
    shorter = [name for name in known if spelled.startswith(name)]
    longer = [name for name in known if name.startswith(spelled)]
    return max(shorter, key=len) if shorter else longer[0] if len(longer) == 1 else ""


def distance(one: str, other: str) -> int:
    """How many slips make one of the other: a letter too much, too few, wrong, or two neighbours exchanged.

    This is the distance of optimal string alignment, after Damerau and Levenshtein.
    """
    above, last = list[int](), list(range(len(other) + 1))
    for row, a in enumerate(one, 1):
        current = [row]
        for column, b in enumerate(other, 1):
            least = min(last[column] + 1, current[-1] + 1, last[column - 1] + (a != b))
            if row > 1 and column > 1 and (a, one[row - 2]) == (other[column - 2], b):
                least = min(least, above[column - 2] + 1)
            current.append(least)
        above, last = last, current
    return last[-1]
