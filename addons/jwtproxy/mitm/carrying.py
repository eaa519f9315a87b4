"""The options of whatever lets requests in, and carries them to upstreams."""

from typing import Any

from mitmproxy.options import Options

from ..config import options
from . import limits, proxy_auth, time_limits, upstream_limit

OPTIONS = (
    *time_limits.ALL,
    *upstream_limit.OPTIONS,
    *proxy_auth.OPTIONS,
    *limits.OPTIONS,
)


def apply(of: Options) -> dict[str, Any]:
    """Have what carries requests keep to what these options say; their checked values. Raises SettingsError."""
    values = options.parse(OPTIONS, of)
    limits.hang(of, values)
    time_limits.hang(of, values)
    return values
