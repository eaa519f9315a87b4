"""Answer what is asked of the proxy itself, and count what passes.

mitmdump -s addons/jwt_inject.py -s addons/status.py
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from jwtproxy import addresses, http_stream, pages, settings
from jwtproxy.counters import Counters

logger = logging.getLogger(__name__)

_EXPLICIT = (mode_specs.RegularMode, mode_specs.UpstreamMode)
_NO_TUNNEL = pages.text(403, "no tunnel to the proxy itself")


class Status:
    """mitmproxy addon: the proxy's own pages."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters or Counters()
        self._pages = ""
        self._own = addresses.OwnAddresses(())
        self._readers: dict[str, pages.Read] = {
            pages.STATUS_PATH: lambda headers: pages.status(headers, self._counters.snapshot()),
            pages.JWKS_PATH: lambda headers: pages.jwks(headers, *http_stream.seam.published()),
        }

    def load(self, loader: Loader) -> None:
        """Declare the options, start to count."""
        http_stream.install()
        http_stream.seam.forwarded = self._counters.count
        for option, default in settings.defaults(os.environ).items():
            loader.add_option(option, str, default, _HELP[option])

    def configure(self, updated: set[str]) -> None:
        """Take over jwt_pages. What a script raises at first, mitmproxy only logs, at length: we do it shortly."""
        if self._pages and "jwt_pages" not in updated:
            return
        try:
            self._pages = settings.check("jwt_pages", ctx.options.jwt_pages)
        except settings.SettingsError as error:
            if self._pages:
                raise exceptions.OptionsError(str(error)) from error
            logger.error("jwtproxy: error: %s\njwtproxy: hint: %s", error, error.hint)

    def running(self) -> None:
        """Learn which addresses are ours, now and whenever a server comes or goes."""
        if proxyserver := ctx.master.addons.get("proxyserver"):
            proxyserver.servers.changed.connect(self._listen)
            self._listen()

    def requestheaders(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Answer a request made to the proxy itself."""
        if http_stream.to_self(flow) or self._is_own_path(flow):
            self._answer(flow)
        elif flow.request.port in self._own.ports and _is_explicit(flow):
            return self._when_own(flow.request.host, flow.request.port, lambda: self._answer(flow))
        return None

    def http_connect(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Refuse a tunnel to the proxy itself."""
        if flow.request.port in self._own.ports:
            return self._when_own(flow.request.host, flow.request.port, lambda: http_stream.respond(flow, _NO_TUNNEL))
        return None

    def server_connect(self, data: ServerConnectionHookData) -> Awaitable[None] | None:
        """Refuse to become our own upstream, whatever led here; mitmproxy knows only its names for this machine."""
        address = data.server.address
        if address and address[1] in self._own.ports:
            return self._when_own(*address[:2], lambda: setattr(data.server, "error", "that is the proxy itself"))
        return None

    def _is_own_path(self, flow: http.HTTPFlow) -> bool:
        """Where every request is in origin form, only the path tells: served if the user asked for it."""
        return self._pages == "on" and not _is_explicit(flow) and pages.is_own(flow.request.path)

    def _answer(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        http_stream.mark_to_self(flow)
        page = pages.NONE
        if self._pages != "off":
            page = pages.answer(request.method, request.path, request.headers, self._readers)
        http_stream.respond(flow, page)

    def _listen(self) -> None:
        self._own = addresses.OwnAddresses(ctx.master.addons.get("proxyserver").listen_addrs())

    async def _when_own(self, host: str, port: int, act: Callable[[], Any]) -> None:
        if any(self._own.include(ip, port) for ip in await _resolve(host)):
            act()


async def _resolve(host: str) -> list[addresses.IP]:
    """The addresses of a host; only asked for where the port is one of ours."""
    if ip := addresses.parse_ip(host):
        return [ip]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []  # mitmproxy will fail on it in its own way
    return [ip for *_, sockaddr in found if (ip := addresses.parse_ip(str(sockaddr[0])))]


def _is_explicit(flow: http.HTTPFlow) -> bool:
    return isinstance(flow.client_conn.proxy_mode, _EXPLICIT)


_HELP = {option.name: option.help for option in settings.OPTIONS}

addons = [Status()]
