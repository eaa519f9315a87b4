"""The faster addon manager does what mitmproxy's does: same hooks, same order, same isolation."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mitmproxy import addonmanager, exceptions
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.master import Master as StockMaster
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import HttpRequestHeadersHook, HttpRequestHook
from mitmproxy.proxy.server import ConnectionIO
from mitmproxy.test import tflow

from jwtproxy.conduct import fair
from jwtproxy.launcher.master import Master
from jwtproxy.mitm import dispatch, patches, pressure, turns
from tests.support.inside import Opens

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream

pytestmark = pytest.mark.usefixtures("pristine")

_numbers = itertools.count()
Deeds = st.sampled_from(["returns", "waits", "raises", "waits and raises", "halts", "waits and halts", "has none"])
Addons = st.lists(st.tuples(Deeds, st.booleans(), st.lists(Deeds, max_size=2)), max_size=5)


def _addon(deed: str, ours: bool, said: list[str], label: str, children: list[Any]) -> Any:
    """An addon whose `request` hook does this; of a module that is looked up once, or of one that a user brought."""

    def end() -> None:
        if "raises" in deed:
            raise ValueError
        if "halts" in deed:
            raise exceptions.AddonHalt

    def request(self: Any, flow: Any) -> None:
        said.append(label)
        end()

    async def waiting(self: Any, flow: Any) -> None:
        said.append(label)
        await asyncio.sleep(0)
        said.append(f"{label} again")
        end()

    hooks = {} if deed == "has none" else {"request": waiting if "waits" in deed else request}
    made = type(f"Addon{next(_numbers)}", (), hooks | {"__module__": "jwtproxy.tests" if ours else "users"})()
    made.addons = children
    return made


def _heard(
    manager: Callable[[StockMaster], addonmanager.AddonManager], spec: list[tuple[str, bool, list[str]]]
) -> list[str]:
    """What the hooks of these addons, and of those they bring, say for one event."""
    said: list[str] = []

    async def run() -> None:
        master = StockMaster(Options())
        master.addons = manager(master)
        for index, (deed, ours, inner) in enumerate(spec):
            # Of ours, those with addons of their own do not share hooks with them.
            children = [_addon(one, ours, said, f"{index}.{n}", []) for n, one in enumerate(() if ours else inner)]
            master.addons.add(_addon(deed, ours, said, str(index), children))
        for _ in range(2):
            await master.addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))
        await master.done()

    asyncio.run(run())
    return said


@given(Addons)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hooks_are_heard_as_mitmproxy_would(spec: list[tuple[str, bool, list[str]]]) -> None:
    assert _heard(dispatch.AddonManager, spec) == _heard(addonmanager.AddonManager, spec)


class Listener:
    """An addon that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def request(self, flow: Any) -> None:
        self.heard.append("request")


class Updated(Listener):
    """One that also wants to know of any change."""

    def update(self, flows: Any) -> None:
        self.heard.append("update")


def _run(look: Callable[[Master], Any], **options: Any) -> Any:
    async def run() -> Any:
        master = Master(Options())
        master.options.update(**options)
        try:
            done = look(master)
            return await done if asyncio.iscoroutine(done) else done
        finally:
            await master.done()

    return asyncio.run(run())


def _names(master: Master, hook: str) -> set[str]:
    return {type(step.addon).__name__ for step in master.addons.listeners(hook)}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"anticache": True}, "AntiCache"),
        ({"map_remote": ["|a|b"]}, "MapRemote"),
        ({"modify_headers": ["/a/b"]}, "ModifyHeaders"),
        ({"proxyauth": "a:b"}, "ProxyAuth"),
        ({"stickycookie": "."}, "StickyCookie"),
    ],
)
def test_an_addon_is_asked_when_its_option_gives_it_something_to_do(options: dict[str, Any], name: str) -> None:
    def heard(master: Master) -> set[str]:
        return _names(master, "request") | _names(master, "requestheaders")

    assert name not in _run(heard)
    assert name in _run(heard, **options)

    def later(master: Master) -> set[str]:
        heard(master)
        master.options.update(**options)
        return heard(master)

    assert name in _run(later)


def test_addons_that_come_and_go_are_followed() -> None:
    async def look() -> None:
        master = StockMaster(Options())
        master.addons = manager = dispatch.AddonManager(master)
        hook, first, second = HttpRequestHook(tflow.tflow()), Listener(), Updated()
        await manager.handle_lifecycle(hook)
        manager.add(first, second)
        await manager.handle_lifecycle(hook)
        manager.remove(first)
        await manager.handle_lifecycle(hook)
        manager.clear()
        await manager.handle_lifecycle(hook)
        assert first.heard == ["request"]
        assert second.heard == ["request", "update"] * 2
        await master.done()

    asyncio.run(look())


def test_hooks_that_a_user_adds_later_are_heard() -> None:
    async def look(master: Master) -> None:
        addon = Listener()
        master.addons.add(addon)
        await master.addons.handle_lifecycle(HttpRequestHeadersHook(tflow.tflow()))
        addon.requestheaders = lambda flow: addon.heard.append("requestheaders")  # type: ignore[attr-defined]
        await master.addons.handle_lifecycle(HttpRequestHeadersHook(tflow.tflow()))
        assert addon.heard == ["requestheaders"]

    _run(look)


def test_a_hook_that_is_no_function_is_ignored_or_reported_as_by_mitmproxy(caplog: pytest.LogCaptureFixture) -> None:
    async def look(master: Master) -> None:
        addon, number = Listener(), Updated()
        addon.request = ModuleType("request")  # type: ignore[method-assign,assignment]
        number.request = 1  # type: ignore[method-assign,assignment]
        master.addons.add(addon, number)
        await master.addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))

    _run(look)
    assert "not callable" in caplog.text


@pytest.mark.parametrize(
    ("spec", "finished"),
    [
        ([], True),
        (["returns", "raises"], True),
        (["halts", "waits"], True),
        (["returns", "waits"], False),
    ],
)
def test_what_need_not_wait_is_finished_at_once(spec: list[str], finished: bool) -> None:
    async def look() -> None:
        master, said = StockMaster(Options()), list[str]()
        master.addons = manager = dispatch.AddonManager(master)
        for index, deed in enumerate(spec):
            manager.add(_addon(deed, True, said, str(index), []))
        hook = HttpRequestHook(tflow.tflow())
        assert manager.finish(hook) is finished
        if not finished:
            await manager.handle_lifecycle(hook)
            assert said == ["0", "1", "1 again"], "each once"
        manager.add(Updated())
        assert not manager.finish(hook), "there is more to tell than the event itself"
        await manager.handle_lifecycle(hook)
        await master.done()

    asyncio.run(look())


def test_an_intercepted_flow_is_waited_for() -> None:
    class Intercepts:
        __module__ = "jwtproxy.tests"

        def request(self, flow: Any) -> None:
            flow.intercept()

    async def look() -> None:
        master = StockMaster(Options())
        master.addons = manager = dispatch.AddonManager(master)
        manager.add(Intercepts())
        hook = HttpRequestHook(tflow.tflow())
        assert not manager.finish(hook)
        await manager.handle_lifecycle(hook)
        await master.done()

    asyncio.run(look())


class Layer:
    """A layer that has two hooks, one that it waits for, and notes the events it gets."""

    def __init__(self) -> None:
        self.blocking, self.other = HttpRequestHook(tflow.tflow()), HttpRequestHeadersHook(tflow.tflow())
        self.other.blocking = False
        self.events: list[events.Event] = []

    def handle_event(self, event: events.Event) -> Iterator[commands.Command]:
        self.events.append(event)
        if isinstance(event, events.Start):
            yield self.blocking
            yield self.other
        else:
            yield commands.Log("it goes on")


@pytest.mark.parametrize(("deed", "at_once"), [("returns", True), ("waits", False)])
def test_a_layer_goes_on_at_once_where_nothing_has_to_wait(deed: str, at_once: bool) -> None:
    async def look() -> None:
        master, said, layer = StockMaster(Options()), list[str](), Layer()
        master.addons = manager = dispatch.AddonManager(master)
        manager.add(_addon(deed, True, said, "heard", []))
        yielded = list(dispatch._Hooked(layer, manager).handle_event(events.Start()))
        if at_once:
            assert [type(one) for one in yielded] == [commands.Log]
            done = layer.events[1]
            assert isinstance(done, events.HookCompleted)
            assert (done.command, len(layer.events)) == (layer.blocking, 2), "nobody waits for the other hook"
        else:
            assert yielded == [layer.blocking], "mitmproxy runs what is left, and tells the layer"
            await manager.handle_lifecycle(layer.blocking)
        assert said[0] == "heard"
        await master.done()

    asyncio.run(look())


def test_traffic_passes_by_it(serve: Serve, upstream: type[Upstream], monkeypatch: pytest.MonkeyPatch) -> None:
    assert patches.install(faster=True) == []
    monkeypatch.setattr(addonmanager, "AddonManager", dispatch.AddonManager)  # which each master makes one of

    async def run() -> None:
        async with upstream() as server, serve(gate := Opens()) as proxy, proxy.client() as client:
            for _ in range(2):
                assert (await client.ask(server.request())).code == 200
            assert proxy.master.addons._table, "hooks were looked up once"  # type: ignore[attr-defined]
            assert gate.count == 2

    asyncio.run(run())


def test_a_name_is_looked_up_in_the_name_of_its_client(
    serve: Serve, upstream: type[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that who asks for too many holds up no other."""
    assert patches.install(faster=True) == []
    monkeypatch.setattr(addonmanager, "AddonManager", dispatch.AddonManager)
    askers: list[str] = []

    async def run() -> None:
        async with upstream() as server, serve(Opens()) as proxy, proxy.client() as client:
            loop = asyncio.get_running_loop()
            resolve = loop.getaddrinfo

            async def getaddrinfo(*arguments: Any, **options: Any) -> Any:
                askers.extend(getattr(asyncio.current_task(), "client", ())[:1])
                return await resolve(*arguments, **options)

            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
            request = server.request().replace(b"127.0.0.1", b"localhost")
            assert (await client.ask(request)).code == 200

    asyncio.run(run())
    assert askers == ["127.0.0.1"]


# --- hooks that are called at once


def _deed(deed: str, said: list[str]) -> Callable[[Any], Any]:
    hook: Callable[[Any], Any] = _addon(deed, True, said, deed, []).request
    return hook


@pytest.mark.parametrize(
    ("deeds", "done", "heard"),
    [
        ([], True, []),
        (["returns", "returns"], True, ["returns", "returns"]),
        (["raises", "returns"], True, ["raises", "returns"]),
        (["halts", "returns"], True, ["halts"]),
        (["returns", "waits", "returns"], False, ["returns"]),
        (["halts", "waits"], True, ["halts"]),
    ],
)
def test_hooks_are_called_with_mitmproxys_isolation(
    deeds: list[str], done: bool, heard: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One that would have to wait is not begun: what it does might come too late."""
    said: list[str] = []
    assert dispatch.call([_deed(deed, said) for deed in deeds], tflow.tflow()) is done
    assert said == heard
    assert ("ValueError" in caplog.text) is ("raises" in deeds)


@pytest.mark.filterwarnings("error")
def test_a_hook_that_would_have_to_wait_leaves_nothing_behind() -> None:
    """No coroutine that was never awaited, and nothing that is cancelled while others wait for it."""

    async def run() -> None:
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert not dispatch.call([lambda _: promise], None)
        assert not promise.done()
        promise.cancel()
        assert not dispatch.call([_deed("waits", [])], None)
        gc.collect()

    asyncio.run(run())


def test_what_a_hook_returns_does_not_matter_otherwise() -> None:
    said: list[str] = []
    assert dispatch.call([lambda _: "something", _deed("returns", said)], None)
    assert said == ["returns"]


# --- who may ask whether there is anything new


def test_any_change_of_addons_or_options_is_a_new_version() -> None:
    async def look(master: Master) -> None:
        manager: Any = master.addons
        addon, versions = Listener(), [manager.version]
        changes: tuple[Callable[[], Any], ...] = (
            lambda: manager.add(addon),
            lambda: manager.remove(addon),
            lambda: master.options.update(anticache=True),
            lambda: master.options.update(anticache=False),
            lambda: manager.register(Listener()),
        )
        for change in changes:
            change()
            versions.append(manager.version)
        assert versions == sorted(set(versions))

    _run(look)


def test_an_addon_of_ours_may_say_that_it_is_idle() -> None:
    class Sleeps(Listener):
        __module__ = "jwtproxy.tests"
        idle = True

        def running(self) -> None:
            """Not one of each flow."""

    def look(master: Master) -> None:
        addon = Sleeps()
        master.addons.add(addon)
        assert "Sleeps" not in _names(master, "request")
        assert "Sleeps" in _names(master, "running")
        addon.idle = False
        master.addons._configure_all(set())
        assert "Sleeps" in _names(master, "request")

    _run(look)


def test_events_that_wait_are_known() -> None:
    """So that nobody overtakes them."""

    async def run() -> None:
        handler: Any = dispatch.ConnectionHandler.__new__(dispatch.ConnectionHandler)
        handler._server_event_lock = asyncio.Lock()
        assert not handler.has_events_waiting
        async with handler._server_event_lock:
            assert not handler.has_events_waiting
            waits = asyncio.ensure_future(handler._server_event_lock.acquire())
            await asyncio.sleep(0)
            assert handler.has_events_waiting
        await waits

    asyncio.run(run())


# --- both directions of a connection


class _Writer:
    """The writer of a connection with so many bytes unsent; of UDP, which does not tell, with None."""

    def __init__(self, unsent: int | None, error: OSError | None = None) -> None:
        if unsent is not None:
            self.transport = SimpleNamespace(get_write_buffer_size=lambda: unsent)
        self.drained, self._error = 0, error

    async def drain(self) -> None:
        self.drained += 1
        if self._error:
            raise self._error


class _Sends:
    """A layer that sends these bytes to somebody, of whatever comes."""

    def __init__(self, receiver: Connection, *data: bytes) -> None:
        self._commands = [commands.SendData(receiver, each) for each in data]

    def handle_event(self, event: events.Event) -> Iterator[commands.Command]:
        return iter(self._commands)


MUCH = bytes(256 * 1024)


@pytest.mark.parametrize(
    ("own", "unsent", "waits"),
    [
        (True, len(MUCH), False),
        (True, len(MUCH) + 1, False),
        (True, None, True),
        (False, 0, True),
        (False, 1 << 20, True),
    ],
)
def test_who_sends_waits_for_who_receives(own: bool, unsent: int | None, waits: bool) -> None:
    assert _has_waited(own=own, unsent=unsent, answers=()) == waits


@pytest.mark.parametrize(
    ("unsent", "answers", "waits"),
    [
        (len(MUCH), (MUCH, b"x"), False),  # which it has read, nearly all of it
        (len(MUCH) + 1, (MUCH,), False),
        (len(MUCH) + 1, (MUCH, b"x"), True),
    ],
)
def test_who_sends_waits_for_itself_where_it_does_not_read_what_it_asks_for(
    unsent: int, answers: tuple[bytes, ...], waits: bool
) -> None:
    assert _has_waited(own=True, unsent=unsent, answers=answers) == waits


@pytest.mark.parametrize(("unsent", "waits"), [(len(MUCH), False), (len(MUCH) + 1, True)])
def test_a_client_that_does_not_read_is_not_read(unsent: int, waits: bool) -> None:
    """Whoever answers it does so because it asks."""
    assert _has_waited(own=True, unsent=unsent, answers=(), peer=tflow.tclient_conn()) == waits


def _has_waited(*, own: bool, unsent: int | None, answers: tuple[bytes, ...], peer: Connection | None = None) -> bool:
    """Whether a sender to whom so much is unsent, these answers to itself perhaps, is made to wait for its reading."""
    writer, peer = _Writer(unsent), peer or Server(address=("127.0.0.1", 80))

    async def run() -> None:
        handler: Any = object.__new__(dispatch.ConnectionHandler)
        task = asyncio.current_task() if own else None
        handler.transports = {peer: ConnectionIO(task, None, writer), "opening": ConnectionIO()}  # type: ignore[arg-type]
        handler.layer = dispatch._Hooked(_Sends(peer, *answers), None)
        assert len(list(handler.layer.handle_event(events.DataReceived(peer, b"")))) == len(answers)
        await handler.drain_writers()

    asyncio.run(run())
    return writer.drained > 0


@pytest.mark.parametrize(("own", "waits"), [(False, False), (True, True)])
def test_nobody_but_its_own_sender_waits_for_one_that_is_paced(own: bool, waits: bool) -> None:
    peer = Server(address=("127.0.0.1", 80))
    pressure.pace(peer)
    assert _has_waited(own=own, unsent=len(MUCH) + 1, answers=(MUCH, b"x"), peer=peer) is waits


def test_a_connection_that_takes_nothing_more_is_over() -> None:
    async def run() -> None:
        handler: Any = object.__new__(dispatch.ConnectionHandler)
        handler.layer = None
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        gone, fine = _Writer(0, ConnectionResetError("gone")), _Writer(0)
        handler.transports = {
            tflow.tserver_conn(): ConnectionIO(task, None, gone),  # type: ignore[arg-type]
            tflow.tclient_conn(): ConnectionIO(None, None, gone),  # type: ignore[arg-type]
            Server(address=None): ConnectionIO(None, None, fine),  # type: ignore[arg-type]
        }
        await handler.drain_writers()
        assert (gone.drained, fine.drained) == (2, 1)
        with pytest.raises(asyncio.CancelledError, match="Error sending data: gone"):
            await task

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["more", "end"])
def test_a_task_that_is_cancelled_as_it_waits_for_its_turn_is_so_where_it_reads_on(kind: str) -> None:
    """Elsewhere mitmproxy forgets the connection and leaves it open. What has come is told all the same."""
    peer = tflow.tclient_conn()
    event = events.DataReceived(peer, b"x") if kind == "more" else events.ConnectionClosed(peer)
    heard: list[events.Event] = []

    def hear(event: events.Event) -> list[commands.Command]:
        heard.append(event)
        return []

    async def reads(handler: Any, said: list[str]) -> None:
        await handler.server_event(event)
        said.append("goes on")
        await asyncio.sleep(0)
        said.append("was not cancelled")

    async def run() -> None:
        handler: Any = object.__new__(dispatch.ConnectionHandler)
        handler._server_event_lock, handler._portioned = asyncio.Lock(), frozenset()
        handler.timeout_watchdog = SimpleNamespace(register_activity=lambda: None)
        handler.layer = SimpleNamespace(handle_event=hear)
        said: list[str] = []
        async with handler._server_event_lock:
            task = asyncio.create_task(reads(handler, said))
            await asyncio.sleep(0)
            task.cancel("closed by command")
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError, match="closed by command"):
            await task
        assert said == ["goes on"]

    asyncio.run(run())
    assert [type(one) for one in heard] == [type(event)]


@pytest.mark.parametrize("sizes", [[10, 10], [10_000, 300], [300, 0x10000]])
@pytest.mark.parametrize("took", [0.0, 0.0008, 0.1])
def test_all_is_taken_once_however_dear_it_is(sizes: list[int], took: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(clock) * took + 1)
    peer = tflow.tclient_conn()
    peer.state = ConnectionState.OPEN
    heard: list[bytes] = []
    handler: Any = object.__new__(dispatch.ConnectionHandler)
    left = 0

    def hear(event: events.DataReceived) -> list[commands.Command]:
        nonlocal left
        heard.append(event.data)
        left -= len(event.data)
        assert handler.has_events_waiting == (left > 0), "who takes the connection over here is overtaken by the rest"
        return []

    async def run() -> None:
        nonlocal left
        handler._server_event_lock = asyncio.Lock()
        handler.timeout_watchdog = SimpleNamespace(register_activity=lambda: None)
        handler.layer = SimpleNamespace(handle_event=hear)
        for size in sizes:
            left = size
            await asyncio.wait_for(handler.server_event(events.DataReceived(peer, bytes(size))), 5)
            assert not handler.has_events_waiting

    asyncio.run(run())
    assert all(heard)
    assert sum(map(len, heard)) == sum(sizes)


@pytest.mark.parametrize("writer", [SimpleNamespace(transport=SimpleNamespace(max_size=1 << 18)), SimpleNamespace()])
def test_no_more_is_read_than_is_asked_for(writer: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read and waits keeps others waiting for the copy. There is no such transport of UDP."""
    read: list[Connection] = []

    async def handle_connection(self: object, connection: Connection) -> None:
        read.append(connection)

    monkeypatch.setattr("mitmproxy.proxy.server.ConnectionHandler.handle_connection", handle_connection)
    handler: Any = object.__new__(dispatch.ConnectionHandler)
    peer = tflow.tclient_conn()
    reader = SimpleNamespace(_limit=1 << 16)
    handler.transports = {peer: SimpleNamespace(writer=writer, reader=reader)}
    asyncio.run(handler.handle_connection(peer))
    assert read == [peer]
    if hasattr(writer, "transport"):
        assert writer.transport.max_size == dispatch.READ
        assert 2 * reader._limit < dispatch.READ, "asyncio reads on until twice as much waits"


def test_nothing_is_kept_of_a_connection_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "has_to_wait", lambda took: True)
    peer = Server(address=("127.0.0.1", 80))
    peer.state = ConnectionState.OPEN

    async def run() -> None:
        handler: Any = object.__new__(dispatch.ConnectionHandler)
        handler._server_event_lock = asyncio.Lock()
        handler.timeout_watchdog = SimpleNamespace(register_activity=lambda: None)
        handler.transports = {}
        handler.layer = dispatch._Hooked(_Sends(peer, MUCH), None)
        await handler.server_event(events.DataReceived(peer, bytes(fair.FIRST)))
        assert handler._dear
        assert handler.layer._owed
        await handler.server_event(events.ConnectionClosed(peer))
        assert not handler._dear
        assert not handler.layer._owed

    asyncio.run(run())
