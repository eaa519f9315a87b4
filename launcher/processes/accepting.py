"""Accept connections: as many as there is room for, none before the start is over, and quietly when none can be.

asyncio's own way at the end of descriptors is a trace-back for each attempt, of which it makes a thousand a second.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from jwtproxy.conduct.crowd import Crowd, Full, site

logger = logging.getLogger(__name__)

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE = 0.25
"""Seconds until accepting is tried again, unless a connection ends before."""
_SILENCE = 60.0
"""Seconds from one warning to the next."""
_MOST_REFUSED = 8
"""Refused clients that are heard out at a time, so that no reset overtakes what they are told; others are cut off."""
_HEARD_OUT = 1.0
"""Seconds for that."""

Factory = Callable[[], Any]
Refusal = Callable[[Full], bytes]
"""What to send to a client for whom there is no room."""


class Acceptor:
    """Everything that listens in a process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.crowd = Crowd()
        self.refused: Callable[[Full], None] = lambda full: None
        """Called for each connection for which there is no room."""
        self._loop = loop
        self._servers: list[Server] = []
        self._is_open = True
        self._waking: asyncio.Handle | None = None
        self._quiet_until = 0.0
        self._heard_out = 0

    def open_later(self) -> None:
        """Accept nothing until `open` is called: clients wait in the sockets' queues."""
        self._is_open = False

    def open(self) -> None:
        """Accept from now on."""
        self._is_open = True
        for server in self._servers:
            server.watch()

    def add(self, sockets: Iterable[socket.socket], factory: Factory, refusal: Refusal, at_once: int) -> "Server":
        """Serve what connects to these listening sockets by the protocols that `factory` makes."""
        server = Server(self, self._loop, sockets, factory, refusal, at_once)
        self._servers.append(server)
        if self._is_open and not self._waking:
            server.watch()
        return server

    def remove(self, server: "Server") -> None:
        """It is closed."""
        self._servers.remove(server)

    def close(self) -> None:
        """Accept nothing more."""
        for server in list(self._servers):
            server.close()
        if self._waking:
            self._waking.cancel()

    def pause(self, error: OSError) -> None:
        """Nothing can be accepted: try again when a connection has ended, or soon."""
        for server in self._servers:
            server.look_away()
        self._waking = self._waking or self._loop.call_later(_PAUSE, self._wake)
        if (now := time.monotonic()) >= self._quiet_until:
            self._quiet_until = now + _SILENCE
            reason = (error.strerror or str(error)).lower()
            logger.warning("jwtproxy: warning: new connections wait, as none can be accepted: %s", reason)

    def ended(self, who: str) -> None:
        """A connection that was counted has ended, and its descriptor is free."""
        self.crowd.leave(who)
        if self._waking and not self._loop.is_closed():
            self._waking.cancel()
            self._waking = self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = None
        for server in self._servers:
            server.watch()

    def refuse(self, sock: socket.socket, words: bytes, full: Full) -> None:
        """Tell a client that there is no room, and hang up."""
        self.refused(full)
        if not words or self._heard_out >= _MOST_REFUSED:
            _cut_off(sock, words)
            return
        self._heard_out += 1
        self._loop.create_task(_serve(self._loop, sock, lambda: _Farewell(self._loop, words, self._has_left)))

    def _has_left(self) -> None:
        self._heard_out -= 1


class Server:
    """Listening sockets that are one server, as far as mitmproxy cares."""

    def __init__(
        self,
        acceptor: Acceptor,
        loop: asyncio.AbstractEventLoop,
        sockets: Iterable[socket.socket],
        factory: Factory,
        refusal: Refusal,
        at_once: int,
    ) -> None:
        self.sockets = tuple(sockets)
        self._acceptor, self._loop = acceptor, loop
        self._factory, self._refusal, self._at_once = factory, refusal, at_once
        for sock in self.sockets:
            sock.setblocking(False)

    def watch(self) -> None:
        """Accept what comes."""
        for sock in self.sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def look_away(self) -> None:
        """Accept nothing for now."""
        for sock in self.sockets:
            self._loop.remove_reader(sock)

    def close(self) -> None:
        """Accept nothing more."""
        if self.sockets:
            self.look_away()
            for sock in self.sockets:
                sock.close()
            self.sockets = ()
            self._acceptor.remove(self)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._at_once):
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._acceptor.pause(error)
                return  # others are errors of the one connection (accept(2))
            self._receive(sock, peer)

    def _receive(self, sock: socket.socket, peer: Any) -> None:
        who = site(peer[0])
        if full := self._acceptor.crowd.enter(who):
            self._acceptor.refuse(sock, self._refusal(full), full)
        else:
            counted = _Counted(sock, peer, self._acceptor, who)
            self._loop.create_task(_serve(self._loop, counted, self._factory))


class _Counted(socket.socket):
    """A connection, whoever carries it and hands it on, until its descriptor is closed."""

    __slots__ = ("_acceptor", "_peer", "_who")

    def __init__(self, sock: socket.socket, peer: Any, acceptor: Acceptor, who: str) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self._peer = peer
        self._acceptor: Acceptor | None = acceptor
        self._who = who

    def getpeername(self) -> Any:
        """Who has connected, also when that has been reset since."""
        return self._peer

    def close(self) -> None:
        """End it."""
        super().close()
        if acceptor := self._acceptor:
            self._acceptor = None
            acceptor.ended(self._who)


class _Farewell(asyncio.Protocol):
    """Says something, and closes the connection when the client has read it, or after a while."""

    def __init__(self, loop: asyncio.AbstractEventLoop, words: bytes, left: Callable[[], None]) -> None:
        self._loop, self._words, self._left = loop, words, left
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Say it."""
        transport.write(self._words)
        transport.write_eof()
        self._timer = self._loop.call_later(_HEARD_OUT, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        if self._timer:
            self._timer.cancel()
        self._left()


async def _serve(loop: asyncio.AbstractEventLoop, sock: socket.socket, factory: Factory) -> None:
    try:
        await loop.connect_accepted_socket(factory, sock)
    except BaseException:
        sock.close()
        raise


def _cut_off(sock: socket.socket, words: bytes) -> None:
    sock.setblocking(False)
    with sock, suppress(OSError):
        sock.send(words)
