"""How many connections clients may have, and how many to upstreams: the options, and what is told at their end."""

import os
from typing import Any

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader

from jwtproxy.conduct.crowd import Crowd, Full, most_each_for, most_for, most_upstream_for
from jwtproxy.conduct.proxy_status import ErrorType
from jwtproxy.config import options
from jwtproxy.config.errors import SettingsError
from jwtproxy.lane.doors import Factory, listener_of
from jwtproxy.mitm import limits, upstream_limit
from jwtproxy.mitm.clients import speaks_http
from jwtproxy.mitm.http1 import error_answer
from jwtproxy.observe import pages
from jwtproxy.policy.connections import OPTIONS

from ..processes import descriptors
from ..processes.accepting import Refusal
from ..processes.sockets import Loop


class Connections:
    """mitmproxy addon: bounds what is accepted."""

    def __init__(self) -> None:
        self._crowd, self._upstreams = Crowd(), Crowd()

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        options.declare(loader, OPTIONS, os.environ)

    def configure(self, updated: set[str]) -> None:
        """Check the options, and keep to them from now on."""
        try:
            most, most_each = options.parse(OPTIONS, ctx.options).values()
        except SettingsError as error:
            raise exceptions.OptionsError(str(error)) from error
        crowd, usual = self._crowd, most_for(descriptors.limit())
        crowd.most = usual if most is None else most
        crowd.most_each = most_each_for(crowd.most) if most_each is None else most_each
        self._upstreams.most = most_upstream_for(crowd.most, usual)
        self._upstreams.most_each = most_upstream_for(crowd.most_each, most_each_for(usual))
        upstream_limit.hang(ctx.options, self._upstreams)
        limits.keep_to(ctx.options, {Full.ALL: crowd.most, Full.CLIENT: crowd.most_each})

    def attend(self, loop: Loop) -> None:
        """Bound what this loop accepts, which is nothing until the start is over."""
        loop.acceptor.crowd, loop.acceptor.refused = self._crowd, limits.reached
        loop.acceptor.open_later()
        loop.refusal = refusal_of


def refusal_of(factory: Factory) -> Refusal:
    """What the clients of a server are told for whom there is no room: nothing where it may not speak HTTP."""
    listener: Any = listener_of(factory)
    return _answer if listener and speaks_http(listener.mode) else lambda full: b""


def _answer(full: Full) -> bytes:
    return error_answer(pages.text(503, full.text, ErrorType.HTTP_REQUEST_DENIED))
