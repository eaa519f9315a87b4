"""Limits on what others may do: how often each was reached, whoever counts that."""

from collections.abc import Callable, Mapping
from typing import Any

from mitmproxy import ctx
from mitmproxy.options import Options

_COUNT, _KEPT_TO = "jwtproxy_reached", "jwtproxy_kept_to"


def count_with(options: Options, count: Callable[[str], None]) -> None:
    """Have this called with the name of an option whenever what it limits has come to its limit."""
    vars(options)[_COUNT] = count  # past what mitmproxy takes for the setting of an option


def reached(name: str) -> None:
    """What this option limits has come to its limit."""
    if name and (count := vars(getattr(ctx, "options", object)).get(_COUNT)):
        count(name)


def keep_to(options: Options, values: Mapping[str, Any]) -> None:
    """Note what is in force of limits whose options leave that open, by the name of each."""
    vars(options)[_KEPT_TO] = {**vars(options).get(_KEPT_TO, {}), **values}


def in_force(options: Options, name: str) -> str:
    """The value of this limit that is in force."""
    return str(vars(options).get(_KEPT_TO, {}).get(name, getattr(options, name, "")))
