"""mitmdump's master, with our addons built in and errors of the start told in our voice."""

import asyncio
import logging

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.addons.status import Status
from mitmproxy import addons, ctx, master
from mitmproxy.addons import errorcheck, keepserving, next_layer, readfile
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from jwtproxy.counters import Counters
from jwtproxy.settings import SettingsError

from . import dispatch, lookups
from .drain import Drain
from .redact import Redact
from .streaming import Streaming
from .terminal import Logs, Requests

logger = logging.getLogger(__name__)


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
            raise SettingsError(self.logger.has_errored[0].getMessage(), "mend what it names; -v shows more")

    def finish(self) -> None:
        """The start is over: from here on errors are logged."""
        super().finish()
        ctx.master.addons.get("termlog").starting = False


class Master(master.Master):
    """Runs mitmdump's addons and ours."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        fast = dispatch.install(self) and lookups.install()
        self._termlog_addon = self._logs = Logs()
        self._drain = Drain()
        defaults = [NextLayer() if type(addon) is next_layer.NextLayer else addon for addon in addons.default_addons()]
        self.addons.add(self._termlog_addon, Redact(), *defaults, Requests(), keepserving.KeepServing())
        self.addons.add(readfile.ReadFileStdin(), StartCheck())
        if not fast:
            logger.warning("this mitmproxy is newer than jwtproxy: some of its own, slower, parts are used")

    def add_ours(self, signing: JwtInject, counters: Counters | None = None, *, first: bool = True) -> None:
        """Add our addons, last: what the others change is what gets signed."""
        self._logs.first = first
        self.addons.add(Streaming(), self._drain, Status(counters or Counters()), signing)

    async def drain(self, grace: float) -> None:
        """Take no more connections and let requests in flight finish, for at most `grace` seconds."""
        await self._drain.drain(grace)
