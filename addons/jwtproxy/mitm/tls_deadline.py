"""Give up on a client that takes too long for its TLS handshake."""

import asyncio
from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Client
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import http, tls

from . import limits, time_limits
from .handlers import handler_of

_HANDSHAKE = b"\x16"
"""What a TLS connection begins with (RFC 8446 §5.1)."""


class TlsDeadline:
    """Addon hooks that end a client connection whose TLS takes too long.

    While an upstream is dialled, of whose certificate the client gets a likeness, it is not the client that is late.
    """

    def __init__(self) -> None:
        self._left: dict[str, float] = {}
        """Seconds that clients have when it is their turn again."""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def next_layer(self, layer: NextLayer) -> None:
        """Bytes came that may begin a handshake; asked again with each piece while nobody knows what they are."""
        client = layer.context.client
        limit = time_limits.of(ctx.options).tls
        if limit and client.id not in self._timers and _may_be_closed(layer) and _begins_handshake(layer):
            self._start(client, limit, layer)

    def tls_clienthello(self, data: Any) -> None:
        """The client has said what it wants."""
        client = data.context.client
        if timer := self._timers.pop(client.id, None):
            timer.cancel()
            self._left[client.id] = max(0.0, timer.when() - asyncio.get_running_loop().time())

    def tls_start_client(self, data: Any) -> None:
        """We answer, and it is its turn."""
        client = data.context.client
        if (left := self._left.pop(client.id, None)) is not None:
            self._start(client, left)

    def tls_established_client(self, data: Any) -> None:
        """TLS is there in time."""
        self._forget(data.context.client)

    def tls_failed_client(self, data: Any) -> None:
        """TLS failed."""
        self._forget(data.context.client)

    def client_disconnected(self, client: Client) -> None:
        """The connection is gone."""
        self._forget(client)

    def _start(self, client: Client, left: float, layer: NextLayer | None = None) -> None:
        self._timers[client.id] = asyncio.get_running_loop().call_later(left, self._expire, client, layer)

    def _expire(self, client: Client, layer: NextLayer | None) -> None:
        del self._timers[client.id]
        handler = handler_of(client)
        if handler and (layer is None or layer.layer is None or isinstance(layer.layer, tls.TLSLayer)):
            limits.reached(time_limits.TLS)
            asyncio.ensure_future(handler.on_timeout())  # noqa: RUF006 # it is over before anybody could forget it

    def _forget(self, client: Client) -> None:
        self._left.pop(client.id, None)
        if timer := self._timers.pop(client.id, None):
            timer.cancel()


def _begins_handshake(layer: NextLayer) -> bool:
    return bool(layer.data_client()[:1] == _HANDSHAKE)


def _may_be_closed(layer: NextLayer) -> bool:
    """Whether it is alone on its connection: not a tunnel among the streams of one by HTTP/2."""
    return not any(isinstance(each, http.HttpStream) and each.flow.request.is_http2 for each in layer.context.layers)
