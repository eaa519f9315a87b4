"""Keep tokens off the terminal, which with -v mitmproxy would show, and what passes out of its logs."""

import logging
import sys
from types import TracebackType
from typing import Literal

from mitmproxy.addonmanager import AddonManager
from mitmproxy.proxy import server

from ..config.errors import trace
from ..observe.redaction import RedactedStream, without_bytes

_Raised = Literal[True] | tuple[type[BaseException], BaseException, TracebackType | None] | None


def terminal(addons: AddonManager) -> None:
    """Redact what mitmproxy prints flows and logs to."""
    termlog = addons.get("termlog")
    for printer, name in ((addons.get("dumper"), "outfp"), (termlog and termlog.logger, "file")):
        stream = getattr(printer, name, None)
        if stream and not isinstance(stream, RedactedStream):
            setattr(printer, name, RedactedStream(stream))


def log(self: server.ConnectionHandler, message: str, level: int = logging.INFO, exc_info: _Raised = None) -> None:
    """Log what concerns a connection, as mitmproxy, but nothing of what passes; with `proxy_debug` that is wanted."""
    if level > logging.DEBUG:
        message = without_bytes(message)
    if exc_info:
        error = sys.exception() if exc_info is True else exc_info[1]
        message = f"{message.removesuffix(str(error))}\n{trace(error)}"
    server.logger.log(level, message, extra={"client": self.client.peername})
