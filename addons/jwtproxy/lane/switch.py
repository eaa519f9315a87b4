"""Whether the fast lane carries anything, and what all of its connections share."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from mitmproxy.connection import Client, ConnectionState
from mitmproxy.net.http import url
from mitmproxy.options import Options
from mitmproxy.proxy import mode_specs, server_hooks
from mitmproxy.utils import asyncio_utils, human

from ..conduct import destination, host
from ..conduct.echo import is_echo
from ..conduct.fields import Fields
from ..config.options import Option, one_of
from ..mitm import echo, gate, guard, response_timeout, stock, time_limits, upstream_limit
from ..mitm.dispatch import AddonManager, call
from ..mitm.gate import Gate
from ..mitm.ledger import Ledger, ledger_of
from ..mitm.limits import DEFAULT, limits_of
from . import boring
from .boring import Head

if TYPE_CHECKING:
    from .engine import Engine

OPTIONS = (
    Option(
        "jwt_fast_lane",
        "on",
        one_of("on", "off"),
        "speed",
        "Whether plain requests take a short way past mitmproxy's layers, through the same hooks: on or off.",
    ),
)

_HOOKS = (
    "requestheaders",
    "request",
    "responseheaders",
    "response",
    "error",
    "client_connected",
    "client_disconnected",
)
_MOST_PLACES = 1024
_LOOK = 60.0

_journal = logging.getLogger("mitmproxy.proxy.server")  # where mitmproxy tells of its connections


class Route(NamedTuple):
    """Where the requests of a connection may go, and how they say so."""

    scheme: str = "http"
    only: destination.Destination | None = None
    """Where all of them go, being in origin form; None: they name it, in absolute form."""
    address: tuple[str, int] | None = None
    """The same, as it is dialled."""
    tunnel: str = ""
    """The origin that a CONNECT asked for."""
    host: bytes = b""
    """What their Host becomes; empty: it stays."""


class Lane:
    """What the connections of one listener share."""

    def __init__(self, master: Any, mode: mode_specs.ProxyMode, count: Callable[[], None]) -> None:
        """`mode`: of the listener. `count`: called for each request that sets out for an upstream."""
        self.master, self.mode = master, mode
        self.connections: set[Engine] = set()
        self.response_timeout = 0.0
        """Seconds."""
        self.sizes = DEFAULT
        self.limits = time_limits.NONE
        self.look = _LOOK
        """Seconds between two looks at what is late."""
        self._version = -1
        self._on = False
        self.hooks: dict[str, tuple[Callable[[Any], Any], ...]] = {}
        """Whom to call for each event."""
        self.left_out: dict[str, tuple[Callable[[Any], Any], ...]] = {}
        """Who need not be called, as the fast lane does for them what they would (their `done_by_lane`)."""
        self.ledger: Ledger | None = None
        """Who is told of each answer."""
        self._places: dict[tuple[Route, bytes], tuple[str, int] | None] = {}
        """Where requests go, by what their connection says of it and they do."""
        self._crl = b""
        self._own_host = ""
        self._echoes = False
        self._count = count
        master.addons.get("proxyserver").servers.changed.connect(self._forget_places)

    @property
    def addons(self) -> AddonManager:
        """Whom to tell."""
        addons: AddonManager = self.master.addons
        return addons

    @property
    def gate(self) -> Gate:
        """What each request passes."""
        return gate.gate_of(self.master.options)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """That of the master."""
        return asyncio.get_running_loop()

    def is_on(self) -> bool:
        """Whether requests may be carried here, as addons and options are now."""
        if self._version != self.addons.version:
            self._look_around()
        return self._on

    def place(self, route: Route, head: Head) -> tuple[str, int] | None:
        """Where a request goes; None where only mitmproxy knows what becomes of it."""
        if self._crl and head.path.endswith(self._crl):
            return None
        key = (route, head.authority)
        if key not in self._places:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            self._places[key] = self._find(route, head.authority)
        return self._places[key]

    def fields(self, route: Route, head: Head) -> Fields:
        """Its fields, as hooks get to see them."""
        if not route.host or head.authority == route.host:
            return head.fields
        return host.only_host(head.fields, route.host)

    def count(self) -> None:
        """One more request sets out for an upstream."""
        gate.count(self.master.options)
        self._count()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done that waits."""
        return self.loop.create_task(work)

    def welcome(self, transport: Any) -> Client:
        """A client has come. Where hooks do not want it, it has an error."""
        client = Client(
            peername=transport.get_extra_info("peername"),
            sockname=transport.get_extra_info("sockname"),
            timestamp_start=time.time(),
            proxy_mode=self.mode,
            state=ConnectionState.OPEN,
        )
        self._log(client, "client connect")
        if not call(self.hooks["client_connected"], client):
            client.error = "a hook would have to wait"
        return client

    def farewell(self, client: Client) -> None:
        """A client has left."""
        self._log(client, "client disconnect")
        client.timestamp_end = time.time()
        call(self.hooks["client_disconnected"], client)

    async def dial(self, data: server_hooks.ServerConnectionHookData, make: Callable[[], Any]) -> tuple[Any, str]:
        """Connect as mitmproxy does, with its hooks; the connection, or why there is none."""
        upstream = None
        try:
            upstream, reason = await self._dial(data, make)
        finally:
            if not upstream:
                upstream_limit.leave(data.server)
        return upstream, reason

    async def _dial(self, data: server_hooks.ServerConnectionHookData, make: Callable[[], Any]) -> tuple[Any, str]:
        server, address = data.server, data.server.address
        assert address
        asyncio_utils.set_current_task_debug_info(name="dial", client=data.client.peername)  # see Loop.getaddrinfo
        await self.addons.handle_lifecycle(server_hooks.ServerConnectHook(data))
        if server.error:
            return await self._not_connected(data, f"Connection killed: {server.error}")
        server.timestamp_start = time.time()
        try:
            with guard.judged(data.client, server):
                transport, upstream = await self.loop.create_connection(make, *address, local_addr=server.sockname)
        except (OSError, asyncio.CancelledError) as error:
            server.error = str(error) or "connection cancelled"
            return await self._not_connected(data, server.error)
        server.timestamp_tcp_setup = time.time()
        server.state = ConnectionState.OPEN
        server.peername = transport.get_extra_info("peername")
        server.sockname = transport.get_extra_info("sockname")
        self._log(data.client, f"server connect {human.format_address(address)}")
        await self.addons.handle_lifecycle(server_hooks.ServerConnectedHook(data))
        return upstream, ""

    async def _not_connected(self, data: server_hooks.ServerConnectionHookData, reason: str) -> tuple[None, str]:
        self._log(data.client, f"error establishing server connection: {reason}")
        await self.addons.handle_lifecycle(server_hooks.ServerConnectErrorHook(data))
        return None, reason

    def disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """An upstream's connection is gone."""
        upstream_limit.leave(data.server)
        data.server.timestamp_end = time.time()
        self._log(data.client, f"server disconnect {human.format_address(data.server.address)}")
        if not self.addons.finish(event := server_hooks.ServerDisconnectedHook(data)):
            self.start(self.addons.handle_lifecycle(event))

    def route(self) -> Route | None:
        """How the requests of a plain connection are carried; None: not here."""
        if isinstance(self.mode, mode_specs.RegularMode):
            return Route()
        if isinstance(self.mode, mode_specs.ReverseMode) and self.mode.scheme == "http":
            return self.reverse_route("http", *self.mode.address[:2])
        return None

    def reverse_route(self, scheme: str, name: str, port: int) -> Route | None:
        """How the requests to a fixed upstream are carried."""
        try:
            only = destination.normalise(scheme, name, port)
        except ValueError:
            return None
        host = b"" if self.master.options.keep_host_header else url.hostport(scheme, name, port).encode()
        return Route(scheme, only, (name, port), host=host)

    def _look_around(self) -> None:
        """See who listens, and to what; anew whenever addons or options have changed."""
        addons, options = self.addons, self.master.options
        self._version = addons.version
        self._places.clear()
        hooks: dict[str, tuple[Callable[[Any], Any], ...]] = {}
        left_out: dict[str, tuple[Callable[[Any], Any], ...]] = {}
        unknown = False
        for name in _HOOKS:
            steps = [step for step in addons.listeners(name) if not stock.is_quiet(step.addon, name, self.mode)]
            unknown = unknown or any(step.hook is None for step in steps)
            known = [(step.hook, name in getattr(step.addon, "done_by_lane", ())) for step in steps if step.hook]
            hooks[name] = tuple(hook for hook, done in known if not done)
            left_out[name] = tuple(hook for hook, done in known if done)
        self.hooks, self.left_out, self.ledger = hooks, left_out, ledger_of(options)
        self._on = not unknown and not addons.listeners("update") and self._is_wanted(options)
        self.response_timeout = response_timeout.limit(options)
        self.sizes = limits_of(options)
        self.limits = found = time_limits.in_force(options)
        every = self.response_timeout, found.head, found.keepalive, found.body, found.idle
        self.look = time_limits.shortest(*every) or _LOOK
        tls = addons.get("tlsconfig")
        self._crl = tls.crl_path().encode() if tls and tls.certstore else b""
        onboarding = addons.get("onboarding")
        self._own_host = onboarding.host if onboarding else ""
        self._echoes = echo.is_on(options)

    def _is_wanted(self, options: Options) -> bool:
        return options.jwt_fast_lane == "on" and not stock.uncommon(options)

    def _find(self, route: Route, authority: bytes) -> tuple[str, int] | None:
        if route.tunnel and route.only and not destination.agrees((authority,), route.only):
            return None
        fixed = (route.only.host, route.only.port) if route.only and route.host else None
        named = fixed or boring.place(route.scheme, authority)
        if not named or named[0] == self._own_host or (self._echoes and is_echo(*named)):
            return None
        if route.address:
            return route.address
        return None if named[1] in self._own_ports() else named

    def _forget_places(self) -> None:
        self._places.clear()

    def _own_ports(self) -> set[int]:
        return {address[1] for address in self.addons.get("proxyserver").listen_addrs()}

    def _log(self, client: Client, message: str) -> None:
        if _journal.isEnabledFor(logging.INFO):
            _journal.info(message, extra={"client": client.peername})
