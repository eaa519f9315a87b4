"""What a connection turns out to speak, decided a little later than mitmproxy does."""

from mitmproxy.addons import next_layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer


class NextLayer(next_layer.NextLayer):
    """mitmproxy's own, but for a TLS handshake whose first bytes come one at a time, which it takes for HTTP."""

    name = "nextlayer"

    def _next_layer(self, context: Context, data_client: bytes, data_server: bytes) -> Layer | None:
        if context.client.transport_protocol == "tcp" and data_client in (b"\x16", b"\x16\x03"):
            raise next_layer.NeedsMoreData
        return super()._next_layer(context, data_client, data_server)
