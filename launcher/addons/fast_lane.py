"""The fast lane: its option, and how connections get to it."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from jwtproxy.config import options
from jwtproxy.config.errors import SettingsError
from jwtproxy.lane import switch
from jwtproxy.lane.doors import Factory, listener_of, open_to
from jwtproxy.lane.engine import Engine
from jwtproxy.lane.switch import Lane
from jwtproxy.lane.tunnel import put_before_http
from jwtproxy.mitm.pages_mode import PagesMode


class FastLane:
    """mitmproxy addon: takes the connections of mitmproxy's listeners."""

    def __init__(self, count: Callable[[], None], *, possible: bool = True) -> None:
        """`count`: called for each request that sets out. `possible`: whether mitmproxy is as the lane needs it."""
        self._count, self._possible = count, possible
        self._lanes: list[Lane] = []

    def load(self, loader: Loader) -> None:
        """Declare the option."""
        options.declare(loader, switch.OPTIONS, os.environ)

    def configure(self, updated: set[str]) -> None:
        """Check the option."""
        if "jwt_fast_lane" in updated:
            try:
                options.parse(switch.OPTIONS, ctx.options)
            except SettingsError as error:
                raise exceptions.OptionsError(str(error)) from error

    def wrap(self, factory: Factory) -> Factory:
        """What makes the protocols of a server that is about to listen."""
        listener: Any = listener_of(factory) if self._possible else None
        if not listener or isinstance(listener.mode, PagesMode):
            return factory
        modes = {server.mode for server in ctx.master.addons.get("proxyserver").servers}
        self._lanes = [lane for lane in self._lanes if lane.connections or lane.mode in modes]  # others are over
        self._lanes.append(Lane(ctx.master, listener.mode, self._count))
        return open_to(self._lanes[-1], factory)

    def put_before_http(self, context: Context, layer: Layer | None) -> Layer | None:
        """Have the lane carry what is boring where mitmproxy is about to speak HTTP/1.1."""
        lane = next((lane for lane in self._lanes if lane.mode is context.client.proxy_mode), None)
        return put_before_http(lane, context, layer)

    def connections(self) -> Iterator[Engine]:
        """Those that are in the lane now."""
        for lane in self._lanes:
            yield from lane.connections

    def done(self) -> None:
        """The end has come."""
        for engine in list(self.connections()):
            engine.transport.abort()
