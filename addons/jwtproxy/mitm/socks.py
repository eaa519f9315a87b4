"""A client that takes the proxy for one that speaks SOCKS: it is told, and so is the terminal, but not all the time."""

import logging
import time

from mitmproxy.proxy.context import Context
from mitmproxy.utils import human

from ..conduct import socks
from .clients import speaks_http

logger = logging.getLogger(__name__)

_EVERY = 60.0
"""Seconds for which one line on the terminal will do, however many come."""
_TOLD = "jwtproxy_socks"
"""Among the attributes of a master's options: when that was told last."""


def refuse(context: Context, start: bytes) -> bytes:
    """What to say to a client that begins so, before it is hung up; nothing to one that may do so here."""
    refusal = socks.refusal(start)
    if not refusal or not speaks_http(context.client.proxy_mode):
        return b""
    known, now = vars(context.options), time.monotonic()
    if now - known.get(_TOLD, -_EVERY) >= _EVERY:
        known[_TOLD] = now
        who = human.format_address(context.client.peername)
        logger.warning("jwtproxy: warning: %s was refused as it speaks SOCKS: this is an HTTP proxy", who)
        logger.warning("jwtproxy: hint: have it use a proxy URL that begins with http://")
    return refusal
