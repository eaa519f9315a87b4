"""Listen early: sockets are bound before anything else starts, and shared by all workers."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from jwtproxy.config.errors import SettingsError

from .resolver import Found, Question, Resolver

BACKLOG = 1024
"""Connections that may wait to be accepted. asyncio's own 100 is full in a moment when clients come in a burst."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of a host; all addresses if it is empty. Raises SettingsError."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sockets: list[socket.socket] = []
        for family, address in dict.fromkeys((family, address) for family, *_, address in found):
            chosen = sockets[0].getsockname()[1] if sockets else port  # port 0: all families get the same
            try:
                sock = socket.create_server((address[0], chosen, *address[2:]), family=family, backlog=BACKLOG)
            except OSError:
                if host or family != socket.AF_INET6 or not sockets:  # a machine may know IPv6 and not have it
                    raise
                continue
            # What is accepted inherits this. asyncio sets it only on sockets that it made itself, and without it the
            # body of an answer waits for its head to be acknowledged: 40 ms.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(sock)
    except (OSError, UnicodeError) as error:
        code = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(code) if code and code > 0 else getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"cannot listen on {host or '*'}:{port}: {reason.lower()}",
            "choose another port with --port or HTTP_PORT, another address with --host or HTTP_HOST",
        ) from None
    return sockets


Factory = Callable[[], Any]


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers take sockets that are bound already, and which resolves names by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._bound: dict[tuple[str, int], list[socket.socket]] = {}
        self._backlog = BACKLOG
        self.wrap: Callable[[Factory], Factory] = lambda factory: factory
        """What becomes of the factory of a server's protocols."""
        self._serving: list[_Servers] = []
        self._resolver = Resolver(self)

    def take(self, bound: dict[tuple[str, int], list[socket.socket]], *, shared: bool) -> None:
        """Listen on these sockets when asked for their host and port. Shared: other processes accept from them too."""
        self._bound = dict(bound)
        # asyncio accepts as many connections at a time as its backlog says: where others wait for them too, take few.
        self._backlog = 1 if shared else BACKLOG

    async def create_server(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """Listen, on our sockets if this is where they are bound."""
        protocol_factory = self.wrap(protocol_factory)
        sockets = self._bound.pop((host, port), None)
        if sockets is None:
            return await super().create_server(protocol_factory, host, port, **options)
        options["backlog"] = self._backlog
        servers = [await super(Loop, self).create_server(protocol_factory, sock=sock, **options) for sock in sockets]
        for sock in sockets:
            sock.listen(BACKLOG)
        self._serving.append(_Servers(servers))
        return self._serving[-1]

    async def getaddrinfo(self, host: Any, port: Any, **kind: int) -> Found:
        """Resolve a name for the client whose task this is: mitmproxy notes in each whose it is."""
        client = getattr(asyncio.current_task(self), "client", None)
        return await self._resolver.resolve(Question(host, port, **kind), client and _site(client[0]))

    def stop_listening(self) -> None:
        """Accept nothing more: the task of a connection that comes while the loop closes would be lost, with a cry."""
        while self._serving:
            self._serving.pop().close()


def _site(address: str) -> str:
    """Who has this address: of IPv6, who has all that begin with the same 64 bits (RFC 4291 §2.5.4)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(parsed if parsed.version == 4 else ipaddress.ip_network((parsed, 64), strict=False))


class _Servers:
    """Several servers as one, as far as mitmproxy cares."""

    def __init__(self, servers: Iterable[asyncio.Server]) -> None:
        self._servers = tuple(servers)

    @property
    def sockets(self) -> tuple[Any, ...]:
        return tuple(sock for server in self._servers for sock in server.sockets)

    def close(self) -> None:
        for server in self._servers:
            server.close()
