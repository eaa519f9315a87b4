"""What mitmproxy's own addons need, in one table: it decides whom to ask, what to stream, and how many may work."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mitmproxy.addons.modifyheaders import parse_modify_spec
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode

from ..conduct.fields import normalise
from ..config.errors import SettingsError


class Need(NamedTuple):
    """What follows when an option is set."""

    option: str
    addon: str = ""
    """The class of a stock addon that has nothing to do for a flow otherwise. One that is in no row is always asked."""
    requests: bool = False
    """It wants whole requests: it reads their bodies, or changes one in a hook that a streamed one has left behind."""
    responses: bool = False
    """It wants whole responses."""
    flag: str = ""
    """It keeps in one process's memory, or writes to one file, what belongs together; what users call it."""


NEEDS = (
    Need("anticache", "AntiCache", requests=True),
    Need("anticomp", "AntiComp", requests=True),
    Need("block_list", "BlockList", requests=True),
    Need("map_local", "MapLocal", requests=True),
    Need("map_remote", "MapRemote", requests=True),
    Need("modify_body", "ModifyBody", requests=True, responses=True),
    Need("modify_headers", "ModifyHeaders"),
    Need("proxyauth", "ProxyAuth"),
    Need("upstream_auth", "UpstreamAuth"),
    Need("save_stream_file", "Save", requests=True, responses=True, flag="-w"),
    Need("hardump", "SaveHar", requests=True, responses=True, flag="hardump"),
    Need("rfile", flag="-r"),
    Need("client_replay", flag="-C"),
    Need("server_replay", "ServerPlayback", requests=True, flag="-S"),
    # Commands can load flows for a replay too, but only scripts give commands here.
    Need("scripts", "ServerPlayback"),
    Need("stickycookie", "StickyCookie", requests=True, flag="stickycookie"),
    Need("stickyauth", "StickyAuth", requests=True, flag="stickyauth"),
)

_WHOLE_FLOWS_SHOWN = 3  # the flow_detail from which on bodies are printed
_FILTERS = ("dumper_filter", "save_stream_filter")
_BYPASSES = ("ignore_hosts", "allow_hosts", "tcp_hosts")

ALSO_UDP = "reverse:https:"
"""A mode that listens on UDP too, for HTTP/3, which it can do without."""


def option(options: Options, name: str, default: Any = None) -> Any:
    """The value of an option of another addon, which a master may lack."""
    return getattr(options, name, default)


def is_idle(addon: object, options: Options) -> bool:
    """Whether a stock addon has nothing to do for any flow."""
    kind = type(addon)
    is_stock = kind.__module__.startswith("mitmproxy.addons.")
    wants = [need.option for need in NEEDS if is_stock and need.addon == kind.__name__]
    return bool(wants) and not any(option(options, name) for name in wants)


def wants_whole_requests(options: Options) -> bool:
    """Whether something in use needs the bodies of requests."""
    return _bodies_shown(options) or any(need.requests and option(options, need.option) for need in NEEDS)


def wants_whole_responses(options: Options) -> bool:
    """Whether something in use needs the bodies of responses."""
    return _bodies_shown(options) or any(need.responses and option(options, need.option) for need in NEEDS)


def single_process(options: Options) -> str:
    """Why these options allow one process only; empty if they do not."""
    for need in NEEDS:
        if need.flag and option(options, need.option):
            return f"{need.flag} keeps its records in one process"
    for spec in options.mode:
        if ProxyMode.parse(spec).transport_protocol != "tcp" and not spec.startswith(ALSO_UDP):
            return f"mode {spec} does not listen on TCP alone"
    return ""


def bypasses(options: Options) -> Iterator[str]:
    """What is set that lets traffic pass unsigned, by the user's wish: warnings."""
    for name in _BYPASSES:
        if option(options, name):
            yield f"{name} is set: what it matches passes unsigned"
    if option(options, "rawtcp"):
        yield (
            "rawtcp is on: tunnelled traffic whose first bytes do not look like HTTP passes unsigned; "
            "--set rawtcp=false signs or refuses it"
        )


def check_header_rules(options: Options, headers: Iterable[str]) -> None:
    """Refuse a rule of modify_headers that is about one of these headers. Raises SettingsError."""
    names = set(map(normalise, headers))
    for rule in option(options, "modify_headers", ()):
        if normalise(parse_modify_spec(rule, False).subject) in names:
            raise SettingsError(
                f"modify_headers {rule!r} names the token's own header", "only the proxy sets it; remove the rule"
            )


def _bodies_shown(options: Options) -> bool:
    shown = option(options, "flow_detail", 0) >= _WHOLE_FLOWS_SHOWN
    return shown or any("~b" in (option(options, name) or "") for name in _FILTERS)
