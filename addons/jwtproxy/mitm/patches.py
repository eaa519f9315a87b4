"""The one place that bends mitmproxy: what takes the place of what, what that relies on, and the way back.

Ours are imported only after a look at mitmproxy, so that an unsuitable one is told of in one line, and not by whichever
part trips over it first.
"""

import importlib
import inspect
import os
import pkgutil
import platform
import re
import sys
from typing import Any, NamedTuple, NoReturn

from mitmproxy.version import VERSION

from ..config.errors import SettingsError

_OLDEST = 12, 2
SUITABLE = "mitmproxy>=12.2,<13"
"""The versions that this was made for, as pip wants them."""

_HTTP = "mitmproxy.proxy.layers.http"


class Patch(NamedTuple):
    """One name within a module or class of mitmproxy's, or of what it speaks HTTP/2 by, and what takes its place."""

    owner: str
    """`module` or `module:Class`."""
    name: str
    ours: str
    """`module:name`."""
    relies_on: str = ""
    """Attributes of what is replaced that ours overrides or uses."""
    also: str = ""
    """Attributes of the owner that ours uses."""


NEEDED = (
    Patch(
        _HTTP,
        "HttpStream",
        "jwtproxy.mitm.stream:Stream",
        "_handle_event check_invalid check_killed flow_done handle_connect handle_connect_finish "
        "handle_connect_regular handle_connect_upstream handle_protocol_error make_server_connection passthrough "
        "send_response start_request_stream state_consume_request_body state_done state_errored "
        "state_stream_request_body state_wait_for_request_headers state_wait_for_response_headers",
    ),
    Patch(
        _HTTP,
        "Http1Server",
        "jwtproxy.mitm.http1:Server",
        "_handle_event done make_pipe mark_done passthrough read_body read_headers send wait",
    ),
    Patch(
        _HTTP,
        "Http1Client",
        "jwtproxy.mitm.http1:Client",
        "_handle_event done make_pipe mark_done read_body read_headers send",
    ),
    Patch(
        _HTTP,
        "Http2Server",
        "jwtproxy.mitm.http2:Server",
        "_handle_event close_connection done handle_h2_event is_closed is_open_for_us protocol_error",
    ),
    Patch(
        _HTTP,
        "Http2Client",
        "jwtproxy.mitm.http2:Client",
        "_handle_event _handle_event2 close_connection done handle_h2_event provisional_max_concurrency",
    ),
    Patch(f"{_HTTP}:GetHttpConnection", "connection_spec_matches", "jwtproxy.mitm.retries:matches"),
    Patch(
        "mitmproxy.proxy.layers.websocket",
        "WebsocketLayer",
        "jwtproxy.mitm.websocket_messages:Messages",
        "relay_messages",
        also="WebsocketEndHook WebsocketStartHook",
    ),
    Patch(
        "mitmproxy.proxy.layers.tls:TLSLayer",
        "receive_close",
        "jwtproxy.mitm.tls_end:receive_close",
        also="event_to_child tls",
    ),
    Patch(
        "mitmproxy.proxy.layers.tls:TLSLayer",
        "send_data",
        "jwtproxy.mitm.tls_end:send_data",
        also="tls_interact",
    ),
    Patch("mitmproxy.proxy.server:ConnectionHandler", "drain_writers", "jwtproxy.mitm.pressure:drain_writers"),
    Patch("mitmproxy.net.encoding", "decode", "jwtproxy.mitm.inflation:decode", also="custom_decode brotli zstd"),
    Patch(
        f"{_HTTP}._http1",
        "ChunkedReader",
        "jwtproxy.mitm.http1:ChunkedBody",
        "__call__",
        "make_body_reader should_make_pipe",
    ),
    Patch(
        f"{_HTTP}._upstream_proxy",
        "HttpUpstreamProxy",
        "jwtproxy.mitm.http1:Tunnel",
        "make receive_data receive_handshake_data",
    ),
    Patch("mitmproxy.proxy.server:ConnectionHandler", "open_connection", "jwtproxy.mitm.guard:open_connection"),
    *(
        Patch(f"mitmproxy.addons.proxyauth:{owner}", name, f"jwtproxy.mitm.proxy_auth:{ours}")
        for owner, name, ours in (
            ("ProxyAuth", "authenticate_http", "authenticate_http"),
            ("ProxyAuth", "socks5_auth", "socks5_auth"),
            ("SingleUser", "__call__", "matches_one"),
            ("Htpasswd", "__call__", "matches_file"),
        )
    ),
    Patch("mitmproxy.addons.save:Save", "maybe_rotate_to_new_file", "jwtproxy.mitm.private_files:rotate"),
    Patch("mitmproxy.addons.savehar:SaveHar", "export_har", "jwtproxy.mitm.private_files:export"),
    Patch("mitmproxy.addons.save:Save", "save_flow", "jwtproxy.mitm.recording:save_flow"),
    Patch("mitmproxy.addons.save:Save", "done", "jwtproxy.mitm.recording:done"),
    Patch("mitmproxy.addons.savehar:SaveHar", "done", "jwtproxy.mitm.recording:done_har"),
    Patch("mitmproxy.proxy.server:ConnectionHandler", "log", "jwtproxy.mitm.redacted:log"),
    Patch("mitmproxy.proxy.server:ConnectionHandler", "wakeup", "jwtproxy.mitm.idle_timeout:wakeup"),
    Patch(
        "mitmproxy.proxy.server",
        "TimeoutWatchdog",
        "jwtproxy.mitm.idle_timeout:Watchdog",
        "disarm register_activity watch",
    ),
)
"""What makes mitmproxy safe."""

FASTER = (
    Patch(
        "mitmproxy.proxy.mode_servers",
        "ProxyConnectionHandler",
        "jwtproxy.mitm.dispatch:ConnectionHandler",
        "drain_writers handle_client hook_task open_connection server_event",
    ),
    Patch("mitmproxy.http:Headers", "get_all", "jwtproxy.mitm.lookups:get_all"),
    Patch("mitmproxy.http:Headers", "get", "jwtproxy.mitm.lookups:get"),
    Patch("mitmproxy.http:Headers", "__contains__", "jwtproxy.mitm.lookups:contains"),
    Patch("mitmproxy.optmanager:_Option", "current", "jwtproxy.mitm.lookups:current", also="value _default"),
    Patch("mitmproxy.proxy.context:Context", "fork", "jwtproxy.mitm.contexts:fork"),
    Patch("hpack.hpack", "decode_huffman", "jwtproxy.mitm.huffman:decode", also="encode_integer"),
    Patch("hyperframe.frame:Frame", "__repr__", "jwtproxy.mitm.lookups:describe"),
)
"""What makes it fast. A mitmproxy that lacks any of this is used as it is."""

# What ours call or take the place of, and how it looked when they were made for it.
_SIGNATURES = {
    "mitmproxy.addonmanager:AddonManager.handle_lifecycle": "(self, event: mitmproxy.hooks.Hook)",
    "mitmproxy.addonmanager:AddonManager.invoke_addon": "(self, addon, event: mitmproxy.hooks.Hook)",
    "mitmproxy.addonmanager:AddonManager.trigger_event": "(self, event: mitmproxy.hooks.Hook)",
    "mitmproxy.proxy.server:ConnectionHandler.drain_writers": "(self)",
    "mitmproxy.proxy.server:ConnectionHandler.handle_client": "(self) -> None",
    "mitmproxy.proxy.server:ConnectionHandler.open_connection": (
        "(self, command: mitmproxy.proxy.commands.OpenConnection) -> None"
    ),
    "mitmproxy.proxy.server:ConnectionHandler.server_event": "(self, event: mitmproxy.proxy.events.Event) -> None",
    "mitmproxy.proxy.server:ConnectionHandler.hook_task": "(self, hook: mitmproxy.proxy.commands.StartHook) -> None",
}

# Tells whether ours do the same as what they take the place of, by its name.
_AGREE = {
    "Headers.get_all": "jwtproxy.mitm.lookups:agree",
    "_Option.current": "jwtproxy.mitm.lookups:options_agree",
    "Context.fork": "jwtproxy.mitm.contexts:agree",
    "decode_huffman": "jwtproxy.mitm.huffman:agree",
}

_ABSENT = object()
_replaced: dict[Patch, Any] = {}  # and what was there before


def install(*, faster: bool = False) -> list[str]:
    """Put ours in place, once; what mitmproxy lacks of `faster`, and so goes without.

    Raises SettingsError, and changes nothing, where it lacks what makes it safe.
    """
    if lacking := missing(NEEDED):
        hint = f"install a suitable one: pip install '{SUITABLE}'"
        raise SettingsError(f"this mitmproxy is not suitable: it lacks {', '.join(lacking)}", hint)
    lacking = missing(FASTER) or _changed() if faster else []
    for patch in NEEDED if lacking or not faster else NEEDED + FASTER:
        if patch not in _replaced:
            owner = pkgutil.resolve_name(patch.owner)
            _replaced[patch] = vars(owner).get(patch.name, _ABSENT)
            setattr(owner, patch.name, pkgutil.resolve_name(patch.ours))
    return lacking


def install_or_exit() -> None:
    """For a script: what it raises, mitmproxy only logs, and goes on to serve without it."""
    try:
        install()
    except SettingsError as error:
        sys.exit(f"jwtproxy: error: {error}\njwtproxy: hint: {error.hint}")


def require_suitable(*, pyjwt: bool = False) -> None:
    """For a script: end where mitmproxy is too old a one, or has no PyJWT if that is needed, before it trips over it.

    The whole process ends: before 12.2, mitmproxy goes on, and passes requests unsigned, if a script exits.
    """
    if tuple(map(int, re.findall("[0-9]+", VERSION)[:2])) < _OLDEST:
        _end(
            f"this is mitmproxy {VERSION}, and Python {platform.python_version()}",
            f"install a suitable one, with Python 3.12 or newer: pip install '{SUITABLE}'",
        )
    try:
        if pyjwt:
            importlib.import_module("jwt")
    except ModuleNotFoundError as error:
        if error.name != "jwt":
            raise
        _end(
            "PyJWT is not installed in mitmproxy's environment",
            "run: pipx inject mitmproxy pyjwt, or pip install pyjwt in that environment",
        )


def _end(error: str, hint: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"jwtproxy: error: {error}\njwtproxy: hint: {hint}\n")
    sys.stderr.flush()
    os._exit(1)


def undo() -> None:
    """Put mitmproxy's own parts back."""
    while _replaced:
        patch, before = _replaced.popitem()
        owner = pkgutil.resolve_name(patch.owner)
        if before is _ABSENT:
            delattr(owner, patch.name)
        else:
            setattr(owner, patch.name, before)


def missing(patches: tuple[Patch, ...]) -> list[str]:
    """The names that this mitmproxy lacks of those that the patches need."""
    return [name for patch in patches for name in _lacking(patch)]


def _lacking(patch: Patch) -> list[str]:
    owner = _find(patch.owner)
    part = getattr(owner, patch.name, None)
    if part is None:
        return [patch.name]
    lacking = [f"{patch.name}.{name}" for name in patch.relies_on.split() if not hasattr(part, name)]
    return lacking + [name for name in patch.also.split() if not hasattr(owner, name)]


def _changed() -> list[str]:
    """The names whose signature is another than it was, or that do something else."""
    reshaped = [
        name.partition(":")[2]
        for name, signature in _SIGNATURES.items()
        if not (found := _find(name)) or str(inspect.signature(found)) != signature
    ]
    return reshaped + [name for name, agree in _AGREE.items() if not pkgutil.resolve_name(agree)()]


def _find(name: str) -> Any:
    """What mitmproxy has by this name; None if nothing."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None
