"""What a connection turns out to speak, decided a little later than mitmproxy does, or never."""

from collections.abc import Callable

from mitmproxy.addons import next_layer
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer


class NextLayer(next_layer.NextLayer):
    """mitmproxy's own, but for a TLS handshake whose first bytes come one at a time, which it takes for HTTP.

    Nor is there a next layer for a client that is gone: mitmproxy's for TLS would begin no handshake with it, and fail
    at what it has left.
    """

    name = "nextlayer"

    def __init__(self, change: Callable[[Context, Layer | None], Layer | None] = lambda _, layer: layer) -> None:
        """`change`: what becomes of each decision."""
        super().__init__()
        self._change = change

    def _next_layer(self, context: Context, data_client: bytes, data_server: bytes) -> Layer | None:
        if context.client.state is ConnectionState.CLOSED:
            return None
        if context.client.transport_protocol == "tcp" and data_client in (b"\x16", b"\x16\x03"):
            raise next_layer.NeedsMoreData
        return self._change(context, super()._next_layer(context, data_client, data_server))
