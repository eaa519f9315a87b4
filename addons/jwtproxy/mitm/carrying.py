"""Whatever lets requests in, and carries them to upstreams: its addons and options."""

from typing import Any

from mitmproxy.options import Options

from ..config import options
from . import limits, proxy_auth, time_limits, upstream_limit
from .clients import Clients
from .gate import Gate
from .heap import Heap
from .next_proxy import NextProxy
from .tls_deadline import TlsDeadline

OPTIONS = (
    *time_limits.ALL,
    *upstream_limit.OPTIONS,
    *proxy_auth.OPTIONS,
    *limits.OPTIONS,
)


def addons(gate: Gate) -> list[object]:
    """What is told of connections and of the run."""
    return [TlsDeadline(), Heap(), NextProxy(gate), Clients(gate)]


def apply(of: Options) -> dict[str, Any]:
    """Have what carries requests keep to what these options say; their checked values. Raises SettingsError."""
    values = options.parse(OPTIONS, of)
    limits.hang(of, values)
    time_limits.hang(of, values)
    return values
