"""Sign every request that leaves the proxy, or refuse it.

JWT_SHARED_SECRET=… mitmdump -s addons/jwt_inject.py
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from mitmproxy import addonmanager, ctx, exceptions, http

from jwtproxy.mitm import patches

patches.require_suitable(pyjwt=True)

from jwtproxy.config import options
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import carrying, connect_deadline, filters, gate, redacted, stock
from jwtproxy.observe import pages
from jwtproxy.policy import settings
from jwtproxy.policy.current import Change, CurrentPolicy, announce, follow
from jwtproxy.policy.judge import Policy
from jwtproxy.tokens import key_source
from jwtproxy.tokens.key_source import KeySource

# Those that this addon declares.
OPTIONS = (*settings.OPTIONS, *carrying.OPTIONS)

logger = logging.getLogger(__name__)


class JwtInject:
    """mitmproxy addon: attach a fresh token to each request."""

    def __init__(
        self, source: KeySource | None = None, current: CurrentPolicy | None = None, *, announces: bool = True
    ) -> None:
        """`source`: of the key; a script finds its own. `current`: the policy in force, if it has been read already.

        `announces`: whether to log what becomes of changed files; of several workers, none does, but who forked them.
        """
        self._source, self._inherited, self._announces = source, current, announces
        self.on_change: Callable[[bool], None] = lambda taken: None
        self._is_script, self._unknown, self.done_by_lane = source is None, list[str](), ("request",)
        self.current: CurrentPolicy | None = None
        self.gate = gate.Gate(lambda: self.current.policy if self.current else None)
        self._following: asyncio.Task[None] | None = None
        self._connecting = connect_deadline.ConnectDeadline()
        self.addons = [self._connecting, *carrying.addons(self.gate)]

    @property
    def policy(self) -> Policy | None:
        """What decides now; None while the settings cannot be used."""
        return self.current.policy if self.current else None

    @property
    def published(self) -> tuple[str, int]:
        """The JWKS, and for how many seconds it may be kept."""
        if not self.current:
            return pages.NOTHING_PUBLISHED
        return self.current.policy.jwks, self.current.settings.jwks_max_age

    def load(self, loader: addonmanager.Loader) -> None:
        """Declare the options; from here on nothing passes but by our gate."""
        patches.install_or_exit()
        gate.hang(ctx.options, self.gate)
        options.declare(loader, OPTIONS, os.environ)

    def configure(self, updated: set[str]) -> None:
        """Check the settings. What a script raises at first, mitmproxy only logs and goes on: so do we, closed."""
        if self.current and not any(name.startswith("jwt_") or name == "modify_headers" for name in updated):
            return
        try:
            self._apply()
        except SettingsError as error:
            if self.current or not self._is_script:
                raise exceptions.OptionsError(str(error)) from error
            logger.error("jwtproxy: error: %s\njwtproxy: hint: %s", error, error.hint)

    def running(self) -> None:
        """Say what will pass unsigned, or has no effect, keep tokens off the terminal, follow changed files."""
        for warning in (*stock.bypasses(ctx.options), *self._unknown):
            logger.warning("jwtproxy: warning: %s", warning)
        redacted.terminal(ctx.master.addons)
        if self.current:
            self._following = asyncio.get_running_loop().create_task(follow(lambda: self.current, self._tell))

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Sign before the body is there: a streamed request leaves right after this hook."""
        if not flow.error and not flow.response:
            self.gate.protect(flow)

    def request(self, flow: http.HTTPFlow) -> None:
        """Sign what never had headers of its own (a replay), or was changed since; in the fast lane there is none."""
        if not flow.error and not flow.response and not flow.request.stream:
            self.gate.protect(flow)

    def done(self) -> None:
        """Without us requests would pass unsigned: refuse them, and stop unless a reload brings the next of us."""
        gate.shut(ctx.options)
        if self._following:
            self._following.cancel()
        if not _is_registered():  # at the end of the run we still are
            asyncio.get_running_loop().call_soon(_stop_if_shut)

    def reload(self) -> None:
        """Take over now what the files of keys and rules say."""
        if self.current:
            self._tell(self.current.reload())

    def _tell(self, change: Change | None) -> None:
        if self._announces:
            announce(change)
            if change:
                self.on_change(isinstance(change, str))

    def _apply(self) -> None:
        """Take over the options. Raises SettingsError and changes nothing then."""
        if self._is_script:  # the launcher has looked itself
            self._unknown = options.warnings(os.environ, (*OPTIONS, *pages.OPTIONS))
        options.check_known(ctx.options.deferred, (*OPTIONS, *pages.OPTIONS))
        options.check_elsewhere(pages.OPTIONS, ctx.options, os.environ)
        current = self._current_for(settings.parse(ctx.options))
        stock.check_header_rules(ctx.options, current.policy.headers)
        times = carrying.apply(ctx.options)
        self.current, self._connecting.timeout = current, times["connect_timeout"]

    def _current_for(self, parsed: settings.Settings) -> CurrentPolicy:
        """The policy that these settings make; not read again where it has been."""
        for current in (self.current, self._inherited):
            if current and current.settings == parsed:
                return current
        named = {key_source.KEY_FILE: parsed.key_file, key_source.KEY_DIR: parsed.key_dir}
        source = self._source or key_source.find_for_script(named, os.environ)
        return CurrentPolicy(parsed, source, filters.compile_filter)


def _is_registered() -> bool:
    return ctx.master.addons.get(JwtInject.__name__.lower()) is not None


def _stop_if_shut() -> None:
    if gate.is_shut(ctx.options) and not _is_registered():
        logger.error("jwtproxy: error: jwt_inject is no longer loaded; stopping, as requests would leave unsigned")
        sys.exit(1)


addons = [JwtInject()]
