"""Answer what is asked of the proxy itself, and count what passes.

mitmdump -s addons/jwt_inject.py -s addons/status.py
"""

import logging
import os
from collections.abc import Awaitable, Callable

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

from jwtproxy.mitm import patches

patches.require_suitable()

from jwtproxy.conduct.proxy_status import ErrorType
from jwtproxy.config import options
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.place import Place
from jwtproxy.mitm import carrying, echo, flows, gate, ledger, limits, pages_mode, proxy_auth, signer
from jwtproxy.mitm.gate import Gate
from jwtproxy.mitm.guard import Guard
from jwtproxy.mitm.ledger import Ledger
from jwtproxy.mitm.own_pages import OwnPages
from jwtproxy.mitm.pulse import Pulse
from jwtproxy.mitm.recent import Recent
from jwtproxy.observe import health, pages
from jwtproxy.observe.board import Board
from jwtproxy.observe.counters import Counters
from jwtproxy.observe.sharing import Sharing
from jwtproxy.policy import access, connections
from jwtproxy.policy.faults import UNSIGNED

# Those that this addon declares.
OPTIONS = pages.OPTIONS

LIMITS = tuple(row.name for row in (*access.OPTIONS, *connections.OPTIONS, *carrying.OPTIONS) if row.limit)
"""The options whose reaching is counted."""

logger = logging.getLogger(__name__)

_NO_TUNNEL = pages.text(403, "no tunnel to the proxy itself", ErrorType.DESTINATION_IP_PROHIBITED)


class Status:
    """mitmproxy addon: the proxy's own pages."""

    def __init__(
        self, counters: Counters | None = None, board: Board | None = None, sharing: Sharing | None = None
    ) -> None:
        """Each is that of all processes, where there are several; a script, which is alone, makes its own."""
        self._counters, self._is_script = counters or Counters(limits=LIMITS), counters is None
        self._pages: str | Place = ""
        self._phase = health.STARTING
        self._guard, self._ledger = Guard(), Ledger(self._counters)
        self._recent = Recent(self._ledger, board)
        self._sharing = sharing or Sharing(self._counters, is_script=self._is_script)
        self.addons = [self._guard, self._ledger, self._recent, self._sharing, Pulse(self._counters)]
        self._own = OwnPages(self._counters, LIMITS, lambda: self._phase, self._recent, self._sharing)

    def load(self, loader: Loader) -> None:
        """Declare the options, start to count."""
        patches.install_or_exit()
        gate.hang_if_none(ctx.options, Gate(lambda: UNSIGNED))  # alone, we sign nothing and nobody asked for it
        gate.count_with(ctx.options, self._counters.count)
        limits.count_with(ctx.options, self._counters.count_reached)
        ledger.hang(ctx.options, self._ledger)
        options.declare(loader, OPTIONS, os.environ)

    def configure(self, updated: set[str]) -> None:
        """Take over the options. What a script raises at first, mitmproxy only logs, at length: we do it shortly."""
        if self._pages and updated.isdisjoint(row.name for row in OPTIONS):
            return
        try:
            self._pages, kept = options.parse(OPTIONS, ctx.options).values()
            self._recent.most = kept if self._pages != "off" else 0  # where nobody can ask for them
        except SettingsError as error:
            if self._pages or not self._is_script:
                raise exceptions.OptionsError(str(error)) from error
            logger.error("jwtproxy: error: %s\njwtproxy: hint: %s", error, error.hint)
        echo.hang(ctx.options, on=self._pages != "off")

    def running(self) -> Awaitable[None] | None:
        """Learn which addresses are ours; the start is over."""
        self._phase = ""
        gate.gate_of(ctx.options).tell_time = self._counters.time_signing
        signer.tell_reloads(ctx.master.addons, self._counters.count_reload)
        if proxyserver := ctx.master.addons.get("proxyserver"):
            self._guard.listen(proxyserver)
            if self._is_script:  # else the launcher has seen to it
                return pages_mode.start(proxyserver, ctx.options, self._pages)
        return None

    def leave(self) -> None:
        """Say from now on that requests had better go elsewhere."""
        self._phase = health.DRAINING

    def requestheaders(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Answer a request made to the proxy itself."""
        explicit = isinstance(flow.client_conn.proxy_mode, echo.EXPLICIT)
        if flows.to_self(flow) or (not explicit and self._is_own_path(flow)):
            self._answer(flow)
        elif explicit:
            return self._when_own(flow, lambda: self._answer(flow))
        return None

    def http_connect(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Refuse a tunnel to the proxy itself."""
        if flows.to_self(flow):
            flows.respond(flow, _NO_TUNNEL)
            return None
        return self._when_own(flow, lambda: flows.respond(flow, _NO_TUNNEL))

    def _when_own(self, flow: http.HTTPFlow, act: Callable[[], None]) -> Awaitable[None] | None:
        request = flow.request.data
        if echo.answers(ctx.options, flow.client_conn, request.host, request.port):
            return None  # a name that nobody may look up
        return self._guard.when_own(request.host, request.port, act)

    def _is_own_path(self, flow: http.HTTPFlow) -> bool:
        """Where every request is in origin form, only the path tells: served if the user asked for it."""
        return self._pages == "on" and pages.is_own(flow.request.path)

    def _answer(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        flows.mark_to_self(flow)
        page = pages.NONE
        apart = isinstance(self._pages, Place)
        if self._pages != "off" and apart == pages_mode.is_for_pages(flow.client_conn):
            if not proxy_auth.lets_in(ctx.master.addons, flow, pages.reader_of(request.path)):
                return
            read = self._own.for_client(flow.client_conn, apart=apart)
            page = pages.answer(request.method, request.path, request.headers, read)
        flows.respond(flow, page)


addons = [Status()]
