"""The options of whatever lets requests in, and carries them to upstreams."""

from . import connect_deadline, proxy_auth, response_timeout, upstream_limit

OPTIONS = (
    *connect_deadline.OPTIONS,
    *response_timeout.OPTIONS,
    *upstream_limit.OPTIONS,
    *proxy_auth.OPTIONS,
)
