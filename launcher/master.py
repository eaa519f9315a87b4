"""mitmdump's master, with our addons built in and errors of the start told in our voice."""

import asyncio
import os

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.addons.status import Status
from mitmproxy import addons, ctx, master
from mitmproxy.addons import errorcheck, keepserving, next_layer, readfile
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from jwtproxy.settings import SettingsError

from .streaming import Streaming
from .terminal import Logs, Requests


class NextLayer(next_layer.NextLayer):
    """mitmproxy's own, but for a TLS handshake whose first bytes come one at a time, which it takes for HTTP."""

    name = "nextlayer"

    def _next_layer(self, context: Context, data_client: bytes, data_server: bytes) -> Layer | None:
        if context.client.transport_protocol == "tcp" and data_client in (b"\x16", b"\x16\x03"):
            raise next_layer.NeedsMoreData
        return super()._next_layer(context, data_client, data_server)


class StartCheck(errorcheck.ErrorCheck):
    """mitmproxy addon: an error logged during the start ends it."""

    name = "errorcheck"

    async def shutdown_if_errored(self) -> None:
        """Raise SettingsError for the first error logged so far."""
        await asyncio.sleep(0)  # as in mitmproxy: what is being logged right now counts too
        if self.logger.has_errored:
            raise _listen_error() or SettingsError(self.logger.has_errored[0].getMessage())

    def finish(self) -> None:
        """The start is over: from here on errors are logged."""
        super().finish()
        ctx.master.addons.get("termlog").starting = False


class Master(master.Master):
    """Runs mitmdump's addons and ours."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._termlog_addon = Logs()
        defaults = [NextLayer() if type(addon) is next_layer.NextLayer else addon for addon in addons.default_addons()]
        self.addons.add(self._termlog_addon, *defaults, Requests(), keepserving.KeepServing(), readfile.ReadFileStdin())
        self.addons.add(StartCheck())

    def add_ours(self, secret: bytes) -> None:
        """Add our addons, last: what the others change is what gets signed."""
        self.addons.add(Streaming(), Status(), JwtInject(secret))


def _listen_error() -> SettingsError | None:
    """Why a server could not be started, if that is what went wrong."""
    for server in ctx.master.addons.get("proxyserver").servers:
        error = server.last_exception
        if isinstance(error, OSError):
            host = server.mode.listen_host(ctx.options.listen_host) or "*"
            port = server.mode.listen_port(ctx.options.listen_port)
            reason = _reason(error)
            return SettingsError(
                f"cannot listen on {host}:{port}: {reason}",
                "choose another address with --host or HTTP_HOST, another port with --port or HTTP_PORT",
            )
    return None


def _reason(error: OSError) -> str:
    """The system's own words, without asyncio's repetition of the address."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error).lower()
