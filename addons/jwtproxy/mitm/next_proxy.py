"""What we say to the next proxy when mitmproxy asks it for a tunnel (`--mode upstream:…`)."""

from weakref import WeakKeyDictionary

from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy.mode_specs import UpstreamMode

from ..conduct.fields import Fields
from .gate import Gate

_PASSED = {b"via", b"proxy-authorization"}


class NextProxy:
    """mitmproxy addon: its CONNECT says what the client's says to proxies, and names us (RFC 9110 §7.6.3, §11.7.2)."""

    def __init__(self, gate: Gate) -> None:
        """`gate`: knows our name."""
        self._gate = gate
        self._said: WeakKeyDictionary[Client, dict[tuple[str, int], Fields]] = WeakKeyDictionary()

    def http_connect(self, flow: HTTPFlow) -> None:
        """Keep what the client says to the next proxy."""
        if isinstance(flow.client_conn.proxy_mode, UpstreamMode):
            fields = tuple(field for field in flow.request.headers.fields if field[0].lower() in _PASSED)
            self._said.setdefault(flow.client_conn, {})[_destination(flow)] = fields

    def http_connect_upstream(self, flow: HTTPFlow) -> None:
        """Pass it on, but for credentials where mitmproxy's `upstream_auth` has its own."""
        headers = flow.request.headers
        said = self._said.get(flow.client_conn, {}).get(_destination(flow), ())
        headers.fields += tuple(field for field in said if field[0] not in headers)
        headers.fields = self._gate.connect_fields(headers.fields)


def _destination(flow: HTTPFlow) -> tuple[str, int]:
    """Several CONNECTs may come by one connection, over HTTP/2."""
    return flow.request.host, flow.request.port
