"""Judge where a connection is about to go: what a name leads to is known when its address is dialled, and not before.

Whoever owns a name may have it lead elsewhere the next time it is looked up, so an address that was looked at earlier
tells nothing. Both carriers, and mitmproxy in all its modes, dial by the event loop's `sock_connect`: there each
address is judged that is about to be dialled, in the name of the connection that the task makes. Other connections that
addons make by the same loop are theirs.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, events, server, server_hooks
from mitmproxy.proxy.mode_specs import ReverseMode, UpstreamMode

from ..conduct import addresses
from ..conduct.access import Denial
from ..conduct.addresses import OwnAddresses
from . import flows, gate, limits, upstream_limit


class DeniedError(OSError):
    """An address that may not be dialled. What it says is all that mitmproxy hands on of an error."""


class Guard:
    """Knows which addresses are the proxy's own; mitmproxy knows only some of its names."""

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


class _Dial:
    """A connection that is being made."""

    def __init__(self, client: Client, upstream: Server) -> None:
        self._client, self._upstream = client, upstream
        self._denial: Denial | None = None

    def judge(self, sock: socket.socket, address: Any) -> None:
        """Look at an address. Raises DeniedError; of a name with several, each time the same. OSError if it is none."""
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or self._upstream.state is not ConnectionState.CLOSED:
            return
        ip = addresses.parse_ip(str(address[0]))
        if ip is None:  # the loop would look it up, and nobody judge what it finds
            raise OSError("not an address")
        if denial := self._denies(ip, address[1]):
            if not self._denial:
                self._denial = denial
                limits.reached(denial.limit)
            raise DeniedError(self._denial.reason)

    def _denies(self, ip: addresses.IP, port: int) -> Denial | None:
        if _own_addresses().include(ip, port):
            return Denial.OWN
        if self._is_given():
            return None
        asked = self._upstream.address
        return gate.gate_of(ctx.options).access.denies_address(asked[0] if asked else str(ip), ip, port)

    def _is_given(self) -> bool:
        """Whether the operator has said that all requests of this client's go there."""
        mode, address = self._client.proxy_mode, self._upstream.address
        return isinstance(mode, ReverseMode | UpstreamMode) and address is not None and mode.address == address[:2]

    def judge_datagrams(self) -> None:
        """The same of a connection by UDP, which does not go by the loop: a literal address nearly always."""
        host, port = (self._upstream.address or ("", 0))[:2]
        if ip := addresses.parse_ip(host):
            denial = self._denies(ip, port)
        else:
            denial = None if self._is_given() else gate.gate_of(ctx.options).access.denies_name(host, port)
        if denial:
            limits.reached(denial.limit)
            self._upstream.error = denial.reason


_dial: ContextVar[_Dial | None] = ContextVar("dial", default=None)


@contextlib.contextmanager
def judged(client: Client, upstream: Server) -> Iterator[_Dial]:
    """Have each address judged that this task dials to make the connection."""
    _watch(asyncio.get_running_loop())
    dial = _Dial(client, upstream)
    token = _dial.set(dial)
    try:
        yield dial
    finally:
        _dial.reset(token)


def _own_addresses() -> OwnAddresses:
    """As they are now: nobody tells between the moment a server listens and the moment all of them do."""
    proxyserver = ctx.master.addons.get("proxyserver")
    return OwnAddresses(proxyserver.listen_addrs() if proxyserver else ())


def _watch(loop: Any) -> None:
    """Stand before the loop's `sock_connect`. Raises AttributeError where a loop does not let us, and nothing goes."""
    if "sock_connect" in vars(loop):
        return
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        if dial := _dial.get():
            dial.judge(sock, address)
        await connect(sock, address)

    loop.sock_connect = sock_connect


_open_connection = server.ConnectionHandler.open_connection


@functools.wraps(_open_connection)
async def open_connection(self: server.ConnectionHandler, command: commands.OpenConnection) -> None:
    """Connect, as mitmproxy does, to where one may go; who has asked hears of it also where mitmproxy is silent."""
    upstream, before = command.connection, command.connection.timestamp_start
    upstream_limit.make_room(self, upstream, ctx.options)
    try:
        with judged(self.client, upstream) as dial:
            if upstream.transport_protocol == "udp":
                dial.judge_datagrams()
            await _open_connection(self, command)  # which ends with the connection
    except (AssertionError, TypeError):
        if upstream.peername is not None or upstream not in self.transports:
            raise
        # mitmproxy asks for its address, and whoever has accepted us has hung up by then.
        await _tell_of_reset(self, command)
    except asyncio.CancelledError:
        if upstream.timestamp_start is before:  # while a hook waited, or it waited for its turn
            await _tell(self, command, flows.CLIENT_GONE)
        raise
    finally:
        upstream_limit.leave(upstream)


async def _tell_of_reset(handler: server.ConnectionHandler, command: commands.OpenConnection) -> None:
    upstream, reason = command.connection, "connection reset by peer"
    writer: Any = handler.transports.pop(upstream).writer
    writer.transport.abort()
    upstream.state = ConnectionState.CLOSED
    handler.log(f"error establishing server connection: {reason}")
    await _tell(handler, command, reason)


async def _tell(handler: server.ConnectionHandler, command: commands.OpenConnection, reason: str) -> None:
    """Do what mitmproxy does where a connection cannot be made: who has asked for it would wait for ever."""
    command.connection.error = reason
    data = server_hooks.ServerConnectionHookData(client=handler.client, server=command.connection)
    await handler.handle_hook(server_hooks.ServerConnectErrorHook(data))
    await handler.server_event(events.OpenConnectionCompleted(command, reason))
