"""What a connection turns out to speak, decided a little later than mitmproxy does."""

from collections.abc import Callable

from mitmproxy.addons import next_layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer


class NextLayer(next_layer.NextLayer):
    """mitmproxy's own, but for a TLS handshake whose first bytes come one at a time, which it takes for HTTP."""

    name = "nextlayer"

    def __init__(self, change: Callable[[Context, Layer | None], Layer | None] = lambda _, layer: layer) -> None:
        """`change`: what becomes of each decision."""
        super().__init__()
        self._change = change

    def _next_layer(self, context: Context, data_client: bytes, data_server: bytes) -> Layer | None:
        if context.client.transport_protocol == "tcp" and data_client in (b"\x16", b"\x16\x03"):
            raise next_layer.NeedsMoreData
        return self._change(context, super()._next_layer(context, data_client, data_server))
