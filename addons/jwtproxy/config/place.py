"""Where something listens, as users write it."""

import re
from typing import NamedTuple

_FORM = re.compile(r"(\*|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]|[0-9A-Za-z._-]+):([0-9]{1,5})")


class Place(NamedTuple):
    """An address to listen on."""

    host: str
    """Without brackets; empty is every address."""
    port: int


def parse(value: str) -> Place | None:
    """The place of `host:port`, `[IPv6]:port` or `*:port`; None if it is none of these."""
    found = _FORM.fullmatch(value)
    if not found or not 0 < (port := int(found[2])) < 65536:
        return None
    host = "" if found[1] == "*" else found[1]
    return Place(host.strip("[]"), port)
