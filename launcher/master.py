"""mitmdump's master, with our addons built in and errors of the start told in our voice."""

import logging

from mitmproxy import addons, master
from mitmproxy.addons import keepserving, next_layer, readfile
from mitmproxy.options import Options

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.addons.status import Status
from jwtproxy.mitm import dispatch, patches
from jwtproxy.mitm.next_layer import NextLayer
from jwtproxy.observe.counters import Counters

from .addons.drain import Drain
from .addons.recordings import Recordings
from .addons.start_check import StartCheck
from .addons.streaming import Streaming
from .addons.terminal import Logs, Requests

logger = logging.getLogger(__name__)


class Master(master.Master):
    """Runs mitmdump's addons and ours."""

    def __init__(self, options: Options) -> None:
        """Raises SettingsError where this mitmproxy is not suitable."""
        super().__init__(options)
        lacking = patches.install(faster=True)
        if not lacking:
            self.addons = dispatch.AddonManager(self)
        self._termlog_addon = self._logs = Logs()
        self._drain = Drain()
        defaults = [NextLayer() if type(addon) is next_layer.NextLayer else addon for addon in addons.default_addons()]
        self.addons.add(self._termlog_addon, Recordings(), *defaults, Requests(), keepserving.KeepServing())
        self.addons.add(readfile.ReadFileStdin(), StartCheck())
        if lacking:
            logger.warning("this mitmproxy differs in %s, so jwtproxy is slower", ", ".join(lacking))

    def add_ours(self, signing: JwtInject, counters: Counters | None = None, *, announces: bool = True) -> None:
        """Add our addons, last: what the others change is what gets signed."""
        self._logs.announces = announces
        self.addons.add(Streaming(), self._drain, Status(counters or Counters()), signing)

    async def drain(self, grace: float) -> None:
        """Take no more connections and let requests in flight finish, for at most `grace` seconds."""
        await self._drain.drain(grace)
