"""Names are looked up beside one another, once for all who ask, and one that hangs holds up nobody."""

from __future__ import annotations

import _thread
import asyncio
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jwtproxy.conduct import names
from jwtproxy.conduct.names import LONGEST_LINE, PLACES
from jwtproxy.launcher.processes import resolver
from jwtproxy.launcher.processes.resolver import Question, Resolver

SOON = 5.0
"""Seconds that a busy machine may take for what takes none."""


class System:
    """A getaddrinfo that knows what ends with `.good`, hangs for what ends with `.lost`, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()
        self.hangs = False

    def __call__(self, host: str, port: Any, *kind: int) -> list[Any]:
        self.asked.append(host)
        if host.endswith(".lost"):
            self.hangs = True
            self.released.wait(SOON)
            self.hangs = False
        if host.endswith(".limit"):
            raise OSError(24, "Too many open files")
        if not host.endswith(".good"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


class Running:
    """A resolver in a running loop."""

    def __init__(self) -> None:
        self.system = System()
        self.resolver = Resolver(asyncio.get_running_loop(), self.system)

    def ask(self, host: Any, port: Any = 80, asker: str = "a") -> asyncio.Task[Any]:
        """Have a name looked up."""
        return asyncio.ensure_future(self.resolver.resolve(_question(host, port), asker))

    async def addresses(self, host: str, port: Any = 80, asker: str = "a") -> list[Any]:
        """Of a name, soon."""
        async with asyncio.timeout(SOON):
            return [info[4] for info in await self.ask(host, port, asker)]

    async def hang(self, count: int, asker: str = "a") -> list[asyncio.Task[Any]]:
        """Have names looked up that hang; those that may be under way are."""
        before = len(self.system.asked)
        tasks = [self.ask(f"{asker}{number}.lost", asker=asker) for number in range(count)]
        await _until(lambda: len(self.system.asked) - before == min(count, PLACES // 2))
        return tasks


def _question(host: Any, port: Any) -> Question:
    return Question(host, port, type=socket.SOCK_STREAM)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.01)


def _run(steps: Callable[[Running], Awaitable[None]]) -> None:
    async def run() -> None:
        running = Running()
        try:
            await steps(running)
        finally:
            running.system.released.set()

    asyncio.run(run())


# --- what is known


def test_a_name_is_looked_up_once_for_all_ports_and_for_a_while() -> None:
    async def steps(running: Running) -> None:
        for port in (80, 443, None, 0):
            assert await running.addresses("a.good", port) == [("192.0.2.1", port or 0)]
        assert running.system.asked == ["a.good"]
        assert await running.addresses("a.good", "http") == [("192.0.2.1", "http")], "which only the system knows"
        assert running.system.asked == ["a.good"] * 2

    _run(steps)


def test_many_who_ask_at_once_share_a_look_up() -> None:
    async def steps(running: Running) -> None:
        tasks = [running.ask("a.lost", asker=asker) for asker in "aabbcc"]
        await _until(lambda: bool(running.system.asked))
        running.system.released.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [socket.gaierror] * 6
        assert len({id(error) for error in errors}) == 6, "each raises its own"
        assert running.system.asked == ["a.lost"]

    _run(steps)


def test_what_each_gets_is_its_own() -> None:
    async def steps(running: Running) -> None:
        for port in (80, "http"):
            (await running.ask("a.good", port)).clear()
            assert len(await running.ask("a.good", port)) == 1

    _run(steps)


def test_a_failure_is_remembered_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(running: Running) -> None:
        for _ in range(3):
            with pytest.raises(socket.gaierror, match="Name or service not known"):
                await running.ask("a.bad")
        assert running.system.asked == ["a.bad"]
        monkeypatch.setattr(names, "BAD_FOR", 0.0)
        with pytest.raises(socket.gaierror):
            await running.ask("a.bad")
        assert running.system.asked == ["a.bad"] * 2

    _run(steps)


def test_what_is_not_the_names_fault_is_not_remembered() -> None:
    async def steps(running: Running) -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="Too many open files"):
                await running.ask("a.limit")
        assert running.system.asked == ["a.limit"] * 2

    _run(steps)


# --- what needs no look-up


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", ("127.0.0.1", 80)),
        ("127.1", ("127.0.0.1", 80)),
        ("0x7f000001", ("127.0.0.1", 80)),
        ("::1", ("::1", 80, 0, 0)),
        ("::ffff:127.0.0.1", ("::ffff:127.0.0.1", 80, 0, 0)),
    ],
)
def test_an_address_takes_no_thread(host: str, address: tuple[Any, ...]) -> None:
    async def steps(running: Running) -> None:
        assert await running.addresses(host) == [address]
        assert running.system.asked == []

    _run(steps)


def test_no_host_is_every_address() -> None:
    async def steps(running: Running) -> None:
        assert ("127.0.0.1", 80) in [info[4] for info in await running.ask(None)]
        assert running.system.asked == []

    _run(steps)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "a." + "x" * 64 + ".good"])
def test_what_cannot_be_a_name_is_an_error_like_others(host: str) -> None:
    async def steps(running: Running) -> None:
        with pytest.raises(socket.gaierror):
            await running.ask(host)
        assert running.system.asked == []

    _run(steps)


# --- names that hang


def test_60_names_that_hang_delay_no_other() -> None:
    async def steps(running: Running) -> None:
        hanging = await running.hang(60)
        began = time.monotonic()
        for number in range(4):
            assert await running.addresses(f"{number}.good")
        print(f"{(time.monotonic() - began) / 4 * 1000:.1f} ms each")
        assert not any(task.done() for task in hanging)

    _run(steps)


def test_a_thousand_names_that_hang_delay_only_who_asks_for_them() -> None:
    async def steps(running: Running) -> None:
        assert await running.addresses("known.good")
        hanging = await running.hang(1000)
        done = [task for task in hanging if task.done()]
        assert len(hanging) - len(done) == PLACES // 2 + LONGEST_LINE
        assert {str(task.exception()) for task in done} == {"[Errno -3] Too many other names are being looked up"}
        assert await running.addresses("other.good", asker="b"), "whoever else asks is served"
        assert await running.addresses("known.good"), "what is known needs no look-up"
        assert await running.addresses("127.0.0.1"), "nor does an address"

    _run(steps)


@pytest.mark.parametrize(("waiting", "asked"), [(1, 1), (LONGEST_LINE, 0)])
def test_what_was_known_is_better_than_to_wait(waiting: int, asked: int) -> None:
    async def steps(running: Running) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]
        then = asyncio.get_running_loop().time() - names.GOOD_FOR - 1
        running.resolver._memory.keep(_question("known.good", 0), found, then)
        hanging = await running.hang(PLACES // 2 + waiting)
        assert await running.addresses("known.good") == [("192.0.2.7", 80)]
        assert "known.good" not in running.system.asked
        running.system.released.set()
        await asyncio.wait(hanging)
        await _until(lambda: not running.resolver._look_ups)
        assert running.system.asked.count("known.good") == asked, "in its turn, if there was room in the line"

    _run(steps)


def test_what_was_known_is_not_used_where_a_look_up_can_begin() -> None:
    async def steps(running: Running) -> None:
        then = asyncio.get_running_loop().time() - names.GOOD_FOR - 1
        running.resolver._memory.keep(_question("known.good", 0), [], then)
        assert await running.addresses("known.good") == [("192.0.2.1", 80)]

    _run(steps)


def test_names_that_nobody_waits_for_any_more_are_not_looked_up() -> None:
    async def steps(running: Running) -> None:
        hanging = await running.hang(PLACES)
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
        running.system.released.set()
        assert await running.addresses("a.good")
        await _until(lambda: not running.resolver._look_ups)
        assert len(running.system.asked) == PLACES // 2 + 1
        assert running.resolver._turns.take() is None

    _run(steps)


def test_a_look_up_is_of_use_to_others_when_who_asked_has_gone() -> None:
    async def steps(running: Running) -> None:
        (first,) = await running.hang(1)
        other = running.ask("a0.lost")
        await asyncio.sleep(0.01)
        first.cancel()
        running.system.released.set()
        with pytest.raises(socket.gaierror):
            await other
        assert running.system.asked == ["a0.lost"]

    _run(steps)


def test_where_there_are_no_more_threads_a_look_up_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def steps(running: Running) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_thread, "start_new_thread", start)
            for _ in range(2 * PLACES):
                with pytest.raises(OSError, match="can't start new thread"):
                    await running.ask("a.good")
        assert await running.addresses("a.good"), "and the next does not"

    _run(steps)


def test_a_thread_that_never_begins_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """There was memory for it, but not for its first steps."""

    async def steps(running: Running) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_thread, "start_new_thread", lambda *_: 1)
            patch.setattr(resolver, "_BEGINS_WITHIN", 0.05)
            with pytest.raises(OSError, match="no thread could look it up"):
                await running.ask("a.good")
        assert await running.addresses("a.good"), "and the next does not"

    _run(steps)


def test_one_that_begins_late_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Callable[[], None]] = []

    async def steps(running: Running) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_thread, "start_new_thread", lambda work, args: begun.append(lambda: work(*args)))
            patch.setattr(resolver, "_BEGINS_WITHIN", 0.05)
            with pytest.raises(OSError, match="no thread could look it up"):
                await running.ask("a.good")
        begun[0]()
        assert await running.addresses("a.good")
        assert running.system.asked == ["a.good"] * 2

    _run(steps)


def test_what_there_is_no_memory_to_report_is_reported_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(running: Running) -> None:
        loop = asyncio.get_running_loop()
        report, failures = loop.call_soon_threadsafe, [MemoryError(), MemoryError()]

        def lacks(*arguments: Any) -> Any:
            if failures:
                raise failures.pop()
            return report(*arguments)

        monkeypatch.setattr(loop, "call_soon_threadsafe", lacks)
        monkeypatch.setattr(resolver, "_AGAIN", 0.01)
        assert await running.addresses("a.good")
        assert not failures

    _run(steps)


def test_signals_are_not_for_its_threads() -> None:
    """Who blocks one while it leaves must not find it delivered to another."""
    masks = []

    def look_up(*_: Any) -> list[Any]:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return []

    async def ask() -> None:
        await Resolver(asyncio.get_running_loop(), look_up).resolve(Question("a.good", 1), "")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    asyncio.run(ask())
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP} <= masks[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_look_up_that_hangs_does_not_hold_up_the_end() -> None:
    began = time.monotonic()
    system = System()

    async def ask() -> None:
        asking = asyncio.ensure_future(Resolver(asyncio.get_running_loop(), system).resolve(Question("a.lost", 1), ""))
        await _until(lambda: system.hangs)
        asking.cancel()

    asyncio.run(ask())
    assert time.monotonic() - began < SOON / 2
    assert system.hangs
    system.released.set()  # its loop is closed, and it says nothing of that
    while system.hangs:
        assert time.monotonic() - began < 2 * SOON
        time.sleep(0.01)
