"""Answer for `jwtproxy.test`: with the request as an upstream would have got it, and by a connection to nobody."""

from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.commands import OpenConnection
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator, NextLayer
from mitmproxy.proxy.layers.tls import TlsClienthelloHook
from mitmproxy.proxy.mode_specs import RegularMode, UpstreamMode

from ..conduct import echo
from ..observe import echo as shown
from ..observe.pages import Page
from .flows import RULE, accept_of, head_of
from .gate import Gate

MOST_DRAINED = 64 * 1024 * 1024
"""Bytes of a body that is let in before the answer."""
TOO_LONG = shown.TOO_LONG

_HUNG = "jwtproxy_echo"
EXPLICIT = (RegularMode, UpstreamMode)
"""Where clients know that there is a proxy, and ask it for URLs."""


def hang(options: Options, *, on: bool) -> None:
    """Have all streams of the master with these options answer, or not."""
    vars(options)[_HUNG] = on  # past what mitmproxy takes for the setting of an option


def is_on(options: Options) -> bool:
    """Whether there is an answer at all."""
    return bool(vars(options).get(_HUNG))


def answers(options: Options, client: Client, host: str, port: int) -> bool:
    """Whether we answer what this client asks of there, so that no upstream may be looked for."""
    return echo.is_echo(host, port) and is_on(options) and isinstance(client.proxy_mode, EXPLICIT)


def is_shown(options: Options, flow: HTTPFlow) -> bool:
    """Whether this request is one that we answer so."""
    request = flow.request.data
    return answers(options, flow.client_conn, request.host, request.port)


def page(flow: HTTPFlow, gate: Gate, length: int | None) -> Page:
    """The answer to a request that has passed the gate. `length`: of its body, in bytes, as far as that is known."""
    request = flow.request
    if request.headers.get("upgrade", "").lower() == "websocket":
        return shown.NO_WEBSOCKET
    asked = shown.Asked(
        request.method,
        _url(flow),
        "HTTP/2" if request.is_http2 else request.http_version,
        request.headers.fields,
        length,
        gate.token_fields,
        flow.metadata.get(RULE),
    )
    return shown.page(asked, accept_of(flow))


def _url(flow: HTTPFlow) -> str:
    """As its client has written it, but for scheme and host, which are in their one spelling."""
    path = flow.request.data.path.decode("utf-8", "backslashreplace")
    return head_of(flow).destination.origin + ("" if path == "*" else path)


class Island(layer.Layer):
    """What is at the end of a tunnel that leads to no server: TLS or not, as the client begins it.

    mitmproxy would have a look at the upstream's TLS before it speaks that with the client, and, whatever it takes the
    tunnel's content for, might connect. Where hooks send a request elsewhere, it goes there.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._child = NextLayer(self.context)

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.HookCompleted) and isinstance(event.command, TlsClienthelloHook):
            event.command.data.establish_server_tls_first = False
        refused: OpenConnection | None = None
        for command in self._child.handle_event(event):
            if isinstance(command, OpenConnection) and _is_nowhere(command):
                refused = command  # for which the child waits now
            else:
                yield command
        if refused:
            yield from self._handle_event(events.OpenConnectionCompleted(refused, f"{echo.NAME} is nowhere"))


def _is_nowhere(command: OpenConnection) -> bool:
    address = getattr(command.connection, "address", None)
    return address is None or echo.is_echo(*address[:2])
