"""The options of whatever carries requests to upstreams."""

from . import connect_deadline, response_timeout, upstream_limit

OPTIONS = (*connect_deadline.OPTIONS, *response_timeout.OPTIONS, *upstream_limit.OPTIONS)
