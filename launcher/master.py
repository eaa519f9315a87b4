"""mitmdump's master, with our addons built in and errors of the start told in our voice."""

import asyncio
import logging

from mitmproxy import addons, master
from mitmproxy.addons import keepserving, next_layer, readfile
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from jwtproxy.addons import status
from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.addons.status import Status
from jwtproxy.lane import doors
from jwtproxy.mitm import dispatch, patches, recording
from jwtproxy.mitm.next_layer import NextLayer
from jwtproxy.observe.board import Board
from jwtproxy.observe.counters import Counters
from jwtproxy.observe.sharing import Sharing

from .addons.access_log import AccessLog
from .addons.connections import Connections
from .addons.drain import Drain
from .addons.fast_lane import FastLane
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
            lacking = doors.missing()
        self._termlog_addon = self._logs = Logs()
        self._lacking = lacking
        self.fast_lane: FastLane | None = None
        self._status: Status | None = None
        self.connections = Connections()
        self._drain = Drain(lambda: self.fast_lane.connections() if self.fast_lane else (), tells=not lacking)
        defaults = [
            NextLayer(self._put_before_http) if type(addon) is next_layer.NextLayer else addon
            for addon in addons.default_addons()
        ]
        self.addons.add(self._termlog_addon, Recordings(), *defaults, Requests(), keepserving.KeepServing())
        self.addons.add(readfile.ReadFileStdin(), StartCheck())
        if lacking:
            logger.warning("this mitmproxy differs in %s, so jwtproxy is slower", ", ".join(lacking))

    def add_ours(
        self,
        signing: JwtInject,
        counters: Counters | None = None,
        board: Board | None = None,
        sharing: Sharing | None = None,
        *,
        announces: bool = True,
    ) -> FastLane:
        """Add our addons, last: what the others change is what gets signed. The one that takes connections."""
        self._logs.announces = announces
        counters = counters or Counters(limits=status.LIMITS)
        self.fast_lane = FastLane(counters.count_fast, possible=not self._lacking)
        self._status = Status(counters, board, sharing)
        self.addons.add(AccessLog(), self.connections, self.fast_lane, Streaming(), self._drain, self._status, signing)
        return self.fast_lane

    def _put_before_http(self, context: Context, layer: Layer | None) -> Layer | None:
        return self.fast_lane.put_before_http(context, layer) if self.fast_lane else layer

    @property
    def status(self) -> int:
        """The exit status, once all is done."""
        return recording.status([self.addons.get("save"), self.addons.get("savehar")])

    async def drain(self, delay: float, grace: float) -> None:
        """Say that requests had better go elsewhere, and go on for `delay` seconds: who sends them hears it late.

        By half of that they have, so that clients which keep connections may be sent away: the next one that they make
        leads to another. Then take no more connections and let requests in flight finish, for at most `grace` seconds.
        """
        if self._status:
            self._status.leave()
        await asyncio.sleep(delay / 2)
        self._drain.begin()
        await asyncio.sleep(delay / 2)
        await self._drain.drain(grace)

    async def cut(self) -> None:
        """End what is still under way."""
        await self._drain.cut()
