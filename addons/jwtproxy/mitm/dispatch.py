"""mitmproxy's addon manager, made fast: half of a request's time went into asking forty addons for each event.

- Which hooks listen to an event is found out once, and anew when addons or options change. An addon whose options
  leave it nothing to do stays loaded but is not asked for each flow; one of ours says so by its attribute `idle`.
- Hooks that need not wait run at once, without a task for each.
- Each direction of a connection goes at its own pace.
- What users bring (scripts and their addons) is looked up at every event, as mitmproxy does: its hooks may come and go.

Order, error isolation and AddonHalt are mitmproxy's.
"""

import asyncio
import functools
import inspect
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, NamedTuple

from mitmproxy import addonmanager, exceptions, flow, hooks, http
from mitmproxy import addons as theirs
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, mode_servers
from mitmproxy.proxy.layers import tls
from mitmproxy.utils import asyncio_utils

from ..conduct import fair
from . import pressure, stock, turns


class Step(NamedTuple):
    """One addon of the chain and its hook for some event; no hook where it has to be asked each time."""

    addon: Any
    hook: Callable[..., Any] | None


# Of each flow, and frequent. Everything else, such as starting and ending, reaches every addon.
_PER_FLOW = frozenset(("requestheaders", "request", "responseheaders", "response", "error"))


class AddonManager(addonmanager.AddonManager):
    """mitmproxy's, with a table of hooks."""

    def __init__(self, master: Any) -> None:
        super().__init__(master)
        self._table: dict[str, tuple[Step, ...]] = {}
        self._begun: dict[hooks.Hook, Awaitable[None]] = {}
        self.version = 0
        """Rises whenever addons or options have changed, and with them what `listeners` tells."""

    def register(self, addon: Any) -> Any:
        """Register an addon."""
        self._forget()
        return super().register(addon)

    def add(self, *addons: Any) -> None:
        """Add addons to the end of the chain."""
        super().add(*addons)
        self._forget()

    def remove(self, addon: Any) -> None:
        """Remove an addon."""
        super().remove(addon)
        self._forget()

    def clear(self) -> None:
        """Remove all addons."""
        super().clear()
        self._forget()

    def _configure_all(self, updated: set[str]) -> None:
        super()._configure_all(updated)
        self._forget()

    def _forget(self) -> None:
        self._table.clear()
        self.version += 1

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        """Run an event's hooks, or what `finish` left of them."""
        rest = self._begun.pop(event, None) or self._run(event)
        if rest is not None:
            await rest
        message = getattr(event, _field(type(event)))
        if isinstance(message, flow.Flow) and self.listeners("update"):
            await self.trigger_event(hooks.UpdateHook([message]))

    async def trigger_event(self, event: hooks.Hook) -> None:
        """Run an event's hooks."""
        if (rest := self._run(event)) is not None:
            await rest

    def trigger(self, event: hooks.Hook) -> None:
        """Run the hooks of an event, if there are any: for most log records there are none."""
        if self.listeners(event.name):
            super().trigger(event)

    def finish(self, event: hooks.Hook) -> bool:
        """Run an event's hooks if none of them has to wait; else begin, and leave the rest to `handle_lifecycle`."""
        rest = self._run(event)
        message = getattr(event, _field(type(event)))
        if isinstance(message, flow.Flow) and rest is None and (message.intercepted or self.listeners("update")):
            rest = _nothing()
        if rest is not None:
            self._begun[event] = rest
        return rest is None

    def _run(self, event: hooks.Hook) -> Awaitable[None] | None:
        """Run hooks up to the first that waits; what is left then."""
        arguments = [getattr(event, name) for name in _fields(type(event))]
        steps = self.listeners(event.name)
        for index, (_, hook) in enumerate(steps):
            if hook is None:
                return self._run_rest(event, steps[index:], None)
            try:
                result = hook(*arguments)
            except exceptions.AddonHalt:
                return None
            except Exception:
                with addonmanager.safecall():
                    raise
            else:
                if result is not None and inspect.isawaitable(result):
                    return self._run_rest(event, steps[index:], result)
        return None

    async def _run_rest(self, event: hooks.Hook, steps: tuple[Step, ...], begun: Awaitable[Any] | None) -> None:
        """As mitmproxy's trigger_event, whose first hook may have begun already."""
        for addon, hook in steps:
            try:
                with addonmanager.safecall():
                    if begun is not None:
                        await begun
                    elif hook is None:
                        await self.invoke_addon(addon, event)
                    elif inspect.isawaitable(result := hook(*event.args())):
                        await result
            except exceptions.AddonHalt:
                return
            begun = None

    def listeners(self, name: str) -> tuple[Step, ...]:
        """Who hears of this event, in order."""
        steps = self._table.get(name)
        if steps is None:
            steps = self._table[name] = tuple(step for addon in self.chain for step in self._steps(addon, name))
        return steps

    def _steps(self, addon: Any, name: str) -> Iterator[Step]:
        if not type(addon).__module__.startswith(("mitmproxy.addons.", "jwtproxy.")):
            yield Step(addon, None)
        elif isinstance(addon, theirs.script.ScriptLoader):
            if addon.addons:
                yield Step(addon, None)
        elif isinstance(addon, theirs.onboarding.Onboarding) and name == "request":
            yield Step(addon, functools.partial(_onboard, addon))
        elif not (name in _PER_FLOW and (stock.is_idle(addon, self.master.options) or getattr(addon, "idle", False))):
            for member in addonmanager.traverse([addon]):
                if callable(hook := getattr(member, name, None)):
                    yield Step(member, hook)


def call(hooks_in_order: Iterable[Callable[[Any], Any]], message: Any) -> bool:
    """Run hooks at once, with mitmproxy's isolation; false, and no further, where one of them would have to wait."""
    for hook in hooks_in_order:
        try:
            result = hook(message)
        except exceptions.AddonHalt:
            return True
        except Exception:
            with addonmanager.safecall():
                raise
        else:
            if result is not None and inspect.isawaitable(result):
                if inspect.iscoroutine(result):
                    result.close()
                return False
    return True


class Address(commands.RequestWakeup):
    """Leads a Wakeup to the layer that has sent it up, whenever somebody has one for it: no timer is set."""

    def __init__(self) -> None:
        super().__init__(0)


class ConnectionHandler(mode_servers.ProxyConnectionHandler):
    """mitmproxy's, but hooks that need not wait are run on the spot, and no direction waits for the other."""

    _portioned: frozenset[Connection] = frozenset()
    """Those of whose bytes some have been read, and not been taken."""
    _dear: Mapping[Connection, float] = MappingProxyType({})
    """What the last bytes took of those that have to wait for their turn, in seconds."""

    @property
    def has_events_waiting(self) -> bool:
        """Whether something that has happened already has yet to get to the layers."""
        return bool(self._server_event_lock._waiters) or bool(self._portioned)

    async def handle_client(self) -> None:
        """Serve one client connection."""
        self.layer = _Hooked(self.layer, self.master.addons)  # type: ignore[assignment]
        await super().handle_client()

    async def handle_connection(self, connection: Connection) -> None:
        """Read from a connection until it ends; little more than is asked for, lest others wait for the copy."""
        io: Any = self.transports[connection]
        transport: Any = getattr(io.writer, "transport", None)  # there is none of UDP
        if hasattr(transport, "max_size") and hasattr(io.reader, "_limit"):
            transport.max_size = READ
            io.reader._limit = READ // 4  # asyncio's; twice as much is what may wait: it would be twice what is read
        await super().handle_connection(connection)

    async def server_event(self, event: events.Event) -> None:
        """Take what has happened; of what a peer sends, no more at a time than leaves others their turn."""
        if not isinstance(event, events.DataReceived) or event.connection.transport_protocol != "tcp":
            await self._deliver(event)
            if isinstance(event, events.ConnectionClosed):
                self._note_cost(event.connection, 0.0)
            return
        try:
            await self._take_all(event.connection, event.data)
        finally:
            if self._portioned:
                self._portioned -= {event.connection}

    async def _take_all(self, connection: Connection, data: bytes) -> None:
        """In portions, unless it is closed meanwhile."""
        try:
            if self._dear and connection in self._dear:
                await self._wait(connection)
            while data and connection.state is not ConnectionState.CLOSED:
                size = vars(connection).get(_PORTION, fair.FIRST)
                if len(data) > size:  # who takes the connection over is to know, lest what it reads overtake the rest
                    self._portioned |= {connection}
                elif self._portioned:
                    self._portioned -= {connection}
                await self._take(connection, data[:size], size)
                data = data[size:]
                if data:
                    await self._wait(connection)
        except asyncio.CancelledError as error:
            # Whose connection is closed meanwhile is to hear of that where mitmproxy expects it: as it waits for more.
            # Elsewhere it would forget the connection, and leave it open.
            if data and connection.state is not ConnectionState.CLOSED:
                await self._deliver(events.DataReceived(connection, data))
            _cancel_later(error)

    async def _wait(self, connection: Connection) -> None:
        """Let others have their turn before more of what is there is taken."""
        self._portioned |= {connection}
        cost = self._dear.get(connection)
        await (turns.turn(cost) if cost else asyncio.sleep(0))

    async def _deliver(self, event: events.Event) -> None:
        """Have the layers hear of something, also in a task that is cancelled while it waits for its turn."""
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                await super().server_event(event)  # which waits for nothing once it has begun
                break
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            _cancel_later(cancelled)

    async def _take(self, connection: Connection, data: bytes, allowed: int) -> None:
        """Take what a peer sends, and see how long that takes."""
        began = time.thread_time() if fair.is_worth_timing(allowed, len(data)) else 0.0
        await super().server_event(events.DataReceived(connection, data))
        took = time.thread_time() - began if began else 0.0
        if began:
            vars(connection)[_PORTION] = fair.portion(allowed, len(data), took, READ)
        self._note_cost(connection, took if turns.has_to_wait(took) else 0.0)

    def _note_cost(self, connection: Connection, cost: float) -> None:
        """Note what the last bytes of a connection took, if the next have to wait for their turn."""
        if cost:
            self._dear = {**self._dear, connection: cost}
        elif connection in self._dear:
            self._dear = {other: took for other, took in self._dear.items() if other is not connection}

    async def hook_task(self, hook: commands.StartHook) -> None:
        """Run hooks, where one of them has to wait, or all have."""
        if isinstance(hook, turns.Turn | tls.TlsClienthelloHook):
            await turns.turn()
        await super().hook_task(hook)

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Connect."""
        # For Loop.getaddrinfo: mitmproxy notes it only after an eager task has run up to its first wait.
        asyncio_utils.set_current_task_debug_info(name="dial", client=self.client.peername)
        await super().open_connection(command)

    async def drain_writers(self) -> None:
        """Wait until there is room for more of what the peer of this task's connection sends.

        mitmproxy waits for all connections, one task after the other: a client that sends before it reads, and a server
        that does, would wait for ever. A server waits for itself only where much of what it has to read came of what
        it has sent itself, and not of what clients have. Nobody else waits for one that is paced.
        """
        task = asyncio.current_task()
        layer: Any = self.layer
        for connection, io in list(self.transports.items()):
            if io.handler is task and (valve := pressure.valve_of(connection)):
                await valve.passage()
            if io.writer is None:
                continue
            if not (layer.has_room(connection, io.writer) if io.handler is task else pressure.is_paced(connection)):
                await pressure.drain(io)


_PORTION = "jwtproxy_portion"
"""Among a connection's attributes: how many bytes of what it sends are taken at a time."""
READ = 64 * 1024
"""Bytes that mitmproxy reads at a time."""

_AHEAD = 256 * 1024
"""Bytes that may wait for a peer to read them, while it sends on."""


class _Hooked:
    """A layer whose hooks are done, where they can be, before its commands get to mitmproxy."""

    def __init__(self, layer: Any, addons: Any) -> None:
        self._layer = layer
        self._addons: AddonManager = addons
        self._owed: Counter[Connection] = Counter()
        """Bytes for each server that came of what it had sent itself, since it last had little to read."""

    @property
    def context(self) -> Any:
        """What the layers below share."""
        return self._layer.context

    def has_room(self, connection: Connection, writer: Any) -> bool:
        """Whether a peer may send on before it has read what is there for it."""
        transport = getattr(writer, "transport", None)  # there is none of UDP
        if transport is None:
            return False
        if transport.get_write_buffer_size() <= _AHEAD:
            self._owed.pop(connection, None)
            return True
        # What a client has to read came of its requests, whoever it is that sends it.
        return isinstance(connection, Server) and self._owed[connection] <= _AHEAD

    def handle_event(self, event: events.Event) -> Iterator[commands.Command]:
        todo: deque[events.Event] = deque((event,))
        sender = _server_of(event)
        while todo:
            for command in self._layer.handle_event(todo.popleft()):
                if isinstance(command, Address):
                    continue
                if sender:
                    self._owe(sender, command)
                if not isinstance(command, commands.StartHook) or _waits(command) or not self._addons.finish(command):
                    yield command
                elif command.blocking:
                    todo.append(events.HookCompleted(command))
        if sender and isinstance(event, events.ConnectionClosed):
            del self._owed[sender]

    def _owe(self, sender: Server, command: commands.Command) -> None:
        if isinstance(command, commands.SendData) and command.connection is sender:
            self._owed[sender] += len(command.data)


def _server_of(event: events.Event) -> Server | None:
    """Of which it tells something, if it is of a server."""
    connection = getattr(event, "connection", None)
    return connection if isinstance(connection, Server) else None


def _cancel_later(error: asyncio.CancelledError) -> None:
    """Have this task be cancelled where it next waits."""
    if task := asyncio.current_task():
        task.cancel(*error.args)


def _waits(hook: commands.StartHook) -> bool:
    """Whether a hook waits for its turn."""
    if isinstance(hook, tls.TlsClienthelloHook):
        return not turns.may_begin(hook.data.context.client)
    return isinstance(hook, turns.Turn)


def _onboard(addon: theirs.onboarding.Onboarding, request_flow: http.HTTPFlow) -> Awaitable[None] | None:
    """Its hook is a coroutine, for the sake of the one host it serves: ask for the host before beginning one."""
    return addon.request(request_flow) if request_flow.request.pretty_host == addon.host else None


async def _nothing() -> None:
    pass


_FIELDS: dict[type, tuple[str, ...]] = {}


def _fields(event: type) -> tuple[str, ...]:
    names = _FIELDS.get(event)
    if names is None:
        names = _FIELDS[event] = tuple(field.name for field in fields(event))
    return names


def _field(event: type) -> str:
    return _fields(event)[0]
