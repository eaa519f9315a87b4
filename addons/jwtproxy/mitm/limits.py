"""Limits on what others may do: how often each was reached, whoever counts that."""

from collections.abc import Callable

from mitmproxy import ctx
from mitmproxy.options import Options

_COUNT = "jwtproxy_reached"


def count_with(options: Options, count: Callable[[str], None]) -> None:
    """Have this called with the name of an option whenever what it limits has come to its limit."""
    vars(options)[_COUNT] = count  # past what mitmproxy takes for the setting of an option


def reached(name: str) -> None:
    """What this option limits has come to its limit."""
    if name and (count := vars(getattr(ctx, "options", object)).get(_COUNT)):
        count(name)
