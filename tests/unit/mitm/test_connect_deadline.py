"""An upstream that does not let us connect is given up, and only such a one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import weakref
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from mitmproxy.connection import Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from jwtproxy.mitm import connect_deadline
from jwtproxy.mitm.connect_deadline import ConnectDeadline

TIMEOUT = 0.1
LONG = 2 * TIMEOUT  # one loop keeps the order of its timers, on a busy machine, too


class Attempt:
    """One connection attempt as mitmproxy makes it: `server_connect` runs in the task that then connects."""

    def __init__(self, timeout: float = TIMEOUT, *, starts_after: float = 0.0) -> None:
        self.deadline = ConnectDeadline()
        self.deadline.timeout = timeout
        self.server = tflow.tserver_conn()
        self.server.timestamp_start = None
        self.data = ServerConnectionHookData(self.server, tflow.tclient_conn())
        self.tls = SimpleNamespace(conn=self.server, context=SimpleNamespace(client=self.data.client))
        self._starts_after = starts_after

    async def begin(self) -> None:
        """Up to where the TCP connection is being made."""
        self.deadline.server_connect(self.data)
        await asyncio.sleep(self._starts_after)
        self.server.timestamp_start = time.time()

    def connected(self) -> None:
        """TCP is there."""
        self.deadline.server_connected(self.data)


def _outcome(steps: Callable[[Attempt], Awaitable[None]], attempt: Attempt) -> str:
    """What ends the attempt; nothing if nothing does."""

    async def run() -> str:
        task = asyncio.ensure_future(steps(attempt))
        try:
            await task
        except asyncio.CancelledError as error:
            return str(error)
        return ""

    return asyncio.run(run())


async def _hangs(attempt: Attempt) -> None:
    await attempt.begin()
    await asyncio.sleep(LONG)


async def _connects(attempt: Attempt) -> None:
    await attempt.begin()
    attempt.connected()
    await asyncio.sleep(LONG)


async def _hangs_in_tls(attempt: Attempt) -> None:
    await attempt.begin()
    attempt.connected()
    attempt.deadline.tls_start_server(attempt.tls)
    await asyncio.sleep(LONG)


async def _has_tls(attempt: Attempt) -> None:
    await attempt.begin()
    attempt.connected()
    attempt.deadline.tls_start_server(attempt.tls)
    attempt.deadline.tls_established_server(attempt.tls)
    await asyncio.sleep(LONG)


async def _fails_in_tls(attempt: Attempt) -> None:
    await attempt.begin()
    attempt.connected()
    attempt.deadline.tls_start_server(attempt.tls)
    attempt.deadline.tls_failed_server(attempt.tls)
    await asyncio.sleep(LONG)


async def _fails(attempt: Attempt) -> None:
    await attempt.begin()
    attempt.deadline.server_connect_error(attempt.data)
    attempt.deadline.tls_start_server(attempt.tls)  # of a connection it knows nothing of
    await asyncio.sleep(LONG)


async def _disconnects(attempt: Attempt) -> None:
    await attempt.begin()
    attempt.connected()
    attempt.deadline.server_disconnected(attempt.data)
    attempt.deadline.tls_start_server(attempt.tls)
    await asyncio.sleep(LONG)


async def _asks_for_tunnel(attempt: Attempt) -> None:
    await attempt.begin()
    attempt.connected()
    request = SimpleNamespace(host="origin", port=443)
    flow = SimpleNamespace(server_conn=attempt.server, client_conn=attempt.data.client, request=request)
    attempt.deadline.http_connect_upstream(flow)


def _inner(host: str = "origin") -> Server:
    """The connection inside of a tunnel."""
    inner = tflow.tserver_conn()
    inner.id = f"inside {inner.id}"
    inner.address = (host, 443)
    return inner


async def _hangs_as_tunnel(attempt: Attempt, *, to: str = "origin", tls: bool = False) -> None:
    await _asks_for_tunnel(attempt)
    if tls:
        inner = _inner(to)
        attempt.deadline.tls_start_server(SimpleNamespace(conn=inner, context=attempt.tls.context))
        await asyncio.sleep(0.3 * TIMEOUT)  # on a busy machine it takes longer, and must still be in time
        attempt.deadline.tls_established_server(SimpleNamespace(conn=inner))
    await asyncio.sleep(LONG)


async def _is_a_tunnel(attempt: Attempt) -> None:
    await _hangs_as_tunnel(attempt, tls=True)


async def _is_another_tunnel(attempt: Attempt) -> None:
    await _hangs_as_tunnel(attempt, to="elsewhere", tls=True)


async def _hangs_in_tls_in_a_tunnel(attempt: Attempt) -> None:
    """The upstream proxy has opened the tunnel, and TLS inside it stalls: mitmproxy waits in the proxy's own task."""
    await _asks_for_tunnel(attempt)
    await asyncio.sleep(0.7 * TIMEOUT)
    attempt.deadline.tls_start_server(SimpleNamespace(conn=_inner(), context=attempt.tls.context))
    await asyncio.sleep(LONG)


async def _is_a_tunnel_that_closes(attempt: Attempt) -> None:
    await _asks_for_tunnel(attempt)
    attempt.deadline.server_disconnected(attempt.data)


@pytest.mark.parametrize(
    ("steps", "given_up"),
    [
        (_hangs, True),
        (_connects, False),
        (_hangs_in_tls, True),
        (_has_tls, False),
        (_fails_in_tls, False),
        (_fails, False),
        (_disconnects, False),
        (_hangs_as_tunnel, True),
        (_is_a_tunnel, False),
        (_is_another_tunnel, True),
        (_hangs_in_tls_in_a_tunnel, True),
    ],
)
def test_only_an_attempt_that_hangs_is_given_up(steps: Callable[[Attempt], Awaitable[None]], given_up: bool) -> None:
    began = time.monotonic()
    assert _outcome(steps, Attempt()) == ("no connection within 0.1 s" if given_up else "")
    if given_up:
        assert time.monotonic() - began > 0.8 * TIMEOUT


@pytest.mark.parametrize("steps", [_hangs, _hangs_in_tls])
def test_zero_means_no_limit(steps: Callable[[Attempt], Awaitable[None]]) -> None:
    assert _outcome(steps, Attempt(timeout=0.0)) == ""


def test_waiting_for_its_turn_does_not_count() -> None:
    attempt = Attempt(starts_after=1.5 * TIMEOUT)
    began = time.monotonic()
    assert _outcome(_hangs, attempt) == "no connection within 0.1 s"
    assert time.monotonic() - began > 2.3 * TIMEOUT


@pytest.mark.parametrize("steps", [_hangs, _hangs_in_tls])
@pytest.mark.parametrize("starts_after", [0.0, 1.5 * TIMEOUT])
@pytest.mark.parametrize("hour", [-3600, 3600])
def test_a_clock_that_is_set_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, steps: Callable[[Attempt], Awaitable[None]], starts_after: float, hour: float
) -> None:
    """At each look at it, in the same direction."""
    clock = itertools.count(time.time(), hour)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    began = time.monotonic()
    assert _outcome(steps, Attempt(starts_after=starts_after)) == "no connection within 0.1 s"
    assert time.monotonic() - began > starts_after + 0.8 * TIMEOUT


def test_an_attempt_with_a_connection_that_was_open_before_is_another() -> None:
    attempt = Attempt(starts_after=1.5 * TIMEOUT)
    attempt.server.timestamp_start = time.time() - 60
    began = time.monotonic()
    assert _outcome(_hangs, attempt) == "no connection within 0.1 s"
    assert time.monotonic() - began > 2.3 * TIMEOUT


def test_the_limit_is_said_as_it_was_set() -> None:
    assert _outcome(_hangs, Attempt(timeout=0.05)) == "no connection within 0.05 s"


def test_outside_a_task_there_is_nothing_to_give_up() -> None:
    attempt, wrong = Attempt(), list[object]()
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda loop, context: wrong.append(context))
        loop.call_soon(attempt.deadline.server_connect, attempt.data)
        loop.call_later(2 * TIMEOUT, loop.stop)
        loop.run_forever()
    assert (dict(attempt.deadline._tasks), attempt.deadline._timers) == ({}, {})
    assert wrong == [], "neither at once nor when its time would be up"


def test_the_option_is_10_seconds_unless_it_is_set() -> None:
    (option,) = connect_deadline.OPTIONS
    assert (option.name, option.variable, option.check("")) == ("jwt_connect_timeout", "JWT_CONNECT_TIMEOUT", 10.0)


def test_an_attempt_that_is_over_is_forgotten() -> None:
    for steps in (_has_tls, _fails_in_tls, _fails, _disconnects, _is_a_tunnel_that_closes):
        attempt = Attempt()
        _outcome(steps, attempt)
        deadline = attempt.deadline
        assert (dict(deadline._tasks), deadline._timers, deadline._tunnels) == ({}, {}, {}), steps.__name__


def test_an_attempt_that_was_cancelled_before_its_turn_is_forgotten() -> None:
    """No hook tells of it where mitmproxy's own handler is in place, as in bare mitmdump."""
    attempt = Attempt(starts_after=LONG)

    async def run() -> None:
        task = asyncio.ensure_future(attempt.begin())
        await asyncio.sleep(TIMEOUT / 10)
        assert attempt.deadline._tasks
        task.cancel()
        await asyncio.sleep(TIMEOUT / 2)
        assert not attempt.deadline._tasks
        assert not attempt.deadline._timers

    asyncio.run(run())


def test_a_task_that_is_over_is_not_kept() -> None:
    attempt = Attempt()

    async def steps() -> None:
        await attempt.begin()
        attempt.connected()

    async def run() -> weakref.ref[asyncio.Task[None]]:
        task = asyncio.ensure_future(steps())
        await task
        return weakref.ref(task)

    assert asyncio.run(run())() is None
