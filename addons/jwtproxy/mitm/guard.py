"""Judge where a connection is about to go: not before the name is resolved is it known whether that is the proxy."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from ..conduct import addresses
from ..conduct.addresses import OwnAddresses


class Guard:
    """Addon hooks that keep the proxy from becoming its own upstream; mitmproxy knows only some of its names."""

    def __init__(self) -> None:
        self._own = OwnAddresses(())
        self._proxyserver: Any = None

    def listen(self, proxyserver: Any) -> None:
        """Learn which addresses are ours, now and whenever a server comes or goes."""
        self._proxyserver = proxyserver
        proxyserver.servers.changed.connect(self._learn)
        self._learn()

    def when_own(self, host: str, port: int, act: Callable[[], Any]) -> Awaitable[None] | None:
        """Act if a connection to there would come back to the proxy: to be awaited, but for ports that are not ours."""
        return self._resolve_and_act(host, port, act) if port in self._own.ports else None

    def server_connect(self, data: ServerConnectionHookData) -> Awaitable[None] | None:
        """Refuse a connection to the proxy itself, whatever led here."""
        if address := data.server.address:
            return self.when_own(*address[:2], lambda: setattr(data.server, "error", "that is the proxy itself"))
        return None

    def _learn(self) -> None:
        self._own = OwnAddresses(self._proxyserver.listen_addrs())

    async def _resolve_and_act(self, host: str, port: int, act: Callable[[], Any]) -> None:
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
