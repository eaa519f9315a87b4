"""What mitmproxy's own addons need, in one table: it decides whom to ask, what to stream, and how many may work."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mitmproxy.addonmanager import traverse
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

_FILTERS = ("dumper_filter", "save_stream_filter")
_BYPASSES = ("ignore_hosts", "allow_hosts", "tcp_hosts")


class Quiet(NamedTuple):
    """A hook of a stock addon that has nothing to do for a request that the fast lane takes."""

    addon: str
    hook: str
    unless: str = ""
    """The scheme of a mode of the proxy in which it has."""


QUIET = (
    Quiet("DisableH2C", "request"),  # there is no Upgrade
    Quiet("Onboarding", "request"),  # it is not for the host that this serves
    Quiet("TlsConfig", "request"),  # nor for the list of revoked certificates
    Quiet("UpdateAltSvc", "responseheaders", unless="reverse"),  # which is all that this looks at
)

# What else the fast lane leaves to mitmproxy.
_UNCOMMON = (
    *_BYPASSES,
    "body_size_limit",
    "client_certs",
    "connect_addr",
    "intercept",
    "proxy_debug",
    "request_client_cert",
    "rfile",
    "scripts",
    "store_streamed_bodies",
    "stream_large_bodies",
    "upstream_auth",
)

_WEBSOCKET_HOOKS = ("websocket_start", "websocket_message", "websocket_end")
_WHOLE_FLOWS_SHOWN = 3  # the flow_detail from which on bodies are printed
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
    return bool(_bodies_shown(options)) or any(need.requests and option(options, need.option) for need in NEEDS)


def wants_whole_responses(options: Options) -> bool:
    """Whether something in use needs the bodies of responses."""
    return bool(_bodies_shown(options)) or any(need.responses and option(options, need.option) for need in NEEDS)


def wants_messages(chain: Iterable[object], options: Options) -> bool:
    """Whether somebody in this chain of addons wants the messages of WebSockets, or to know how one ends."""
    return any(_hears_messages(addon, options) for addon in traverse(chain))


def is_quiet(addon: object, hook: str, mode: ProxyMode) -> bool:
    """Whether a stock addon's hook has nothing to do for what the fast lane takes in this mode."""
    kind = type(addon)
    if not kind.__module__.startswith("mitmproxy.addons."):
        return False
    return any((row.addon, row.hook) == (kind.__name__, hook) and row.unless != mode.type_name for row in QUIET)


def uncommon(options: Options) -> str:
    """Which option there is that leaves all to mitmproxy's own way of carrying requests; empty for none."""
    needs = (need.option for need in NEEDS if need.option != "modify_headers")
    for name in (*_UNCOMMON, *needs):
        if option(options, name):
            return name
    if not option(options, "validate_inbound_headers", True):
        return "validate_inbound_headers"
    return _bodies_shown(options)


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


def _hears_messages(addon: object, options: Options) -> bool:
    hears = any(callable(getattr(addon, hook, None)) for hook in _WEBSOCKET_HOOKS)
    return hears and not is_idle(addon, options) and bool(getattr(addon, "wants_messages", True))


def _bodies_shown(options: Options) -> str:
    """The option that has bodies printed, or looked at to know what is; empty for none."""
    if option(options, "flow_detail", 0) >= _WHOLE_FLOWS_SHOWN:
        return "flow_detail"
    return next((name for name in _FILTERS if "~b" in (option(options, name) or "")), "")
