"""Listen early: sockets are bound before anything else starts, and shared by all workers."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from jwtproxy.conduct.crowd import site
from jwtproxy.config.errors import SettingsError

from .accepting import Acceptor, Factory, Refusal
from .resolver import Found, Question, Resolver

BACKLOG = 1024
"""Connections that may wait to be accepted. asyncio's own 100 is full in a moment when clients come in a burst."""
_AT_ONCE = 16
"""Connections that are accepted at one go of the event loop."""


PORTS = "choose another port with --port or HTTP_PORT, another address with --host or HTTP_HOST"


def bind(host: str, port: int, hint: str = PORTS) -> list[socket.socket]:
    """Listen on every address of a host; all addresses if it is empty. Raises SettingsError with this hint."""
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
        raise SettingsError(f"cannot listen on {host or '*'}:{port}: {reason.lower()}", hint) from None
    return sockets


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers take sockets that are bound already, and which resolves names by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._bound: dict[tuple[str, int], list[socket.socket]] = {}
        self._at_once = _AT_ONCE
        self.wrap: Callable[[Factory], Factory] = lambda factory: factory
        """What becomes of the factory of a server's protocols."""
        self.refusal: Callable[[Factory], Refusal] = lambda factory: lambda full: b""
        """What its clients are told for whom there is no room."""
        self.acceptor = Acceptor(self)
        self._resolver = Resolver(self)

    def take(self, bound: dict[tuple[str, int], list[socket.socket]], *, shared: bool) -> None:
        """Listen on these sockets when asked for their host and port. Shared: other processes accept from them too."""
        self._bound = dict(bound)
        # Few are accepted at a time: connections under way wait for them, and where processes share, others accept too.
        self._at_once = 1 if shared else _AT_ONCE

    async def create_server(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """Listen, on our sockets if this is where they are bound."""
        sockets = self._bound.pop((host, port), None)
        if sockets is None:
            bound = await super().create_server(protocol_factory, host, port, start_serving=False, **options)
            sockets = [sock.dup() for sock in bound.sockets]
            bound.close()
        for sock in sockets:
            sock.listen(BACKLOG)
        refusal = self.refusal(protocol_factory)
        return self.acceptor.add(sockets, self.wrap(protocol_factory), refusal, self._at_once)

    async def getaddrinfo(self, host: Any, port: Any, **kind: int) -> Found:
        """Resolve a name for the client whose task this is: mitmproxy notes in each whose it is."""
        client = getattr(asyncio.current_task(self), "client", None)
        return await self._resolver.resolve(Question(host, port, **kind), client and site(client[0]))

    def stop_listening(self) -> None:
        """Accept nothing more: the task of a connection that comes while the loop closes would be lost, with a cry."""
        self.acceptor.close()
