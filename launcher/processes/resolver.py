"""Resolve names in threads of our own, so that one that hangs holds up neither other names nor the end of the process.

asyncio does it in a few threads for all, which a few names that do not resolve keep busy, and whose end it awaits.
The threads here run getaddrinfo, and so ask whom the system asks: the hosts file, a container engine, DNS. They are
`_thread`'s: `threading` waits until one has begun, for ever where there is no memory for that, and with it the loop.
"""

import _thread
import asyncio
import contextlib
import copy
import signal
import socket
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from jwtproxy.conduct.names import STALE_FOR, Memory, Turns

_BEGINS_WITHIN = 2.0
"""Seconds that a thread may take to begin."""
_AGAIN = 0.1
"""Seconds until one tries again to report for which there was no memory."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)

Found = list[tuple[Any, ...]]
"""What getaddrinfo returns."""


class Question(NamedTuple):
    """The arguments of getaddrinfo."""

    host: Any
    port: Any
    family: int = 0
    type: int = 0
    proto: int = 0
    flags: int = 0


class _LookUp:
    """One that waits for its turn, or is under way."""

    def __init__(self) -> None:
        self.is_under_way = self.has_begun = False
        self.waiting: set[asyncio.Future[Found]] = set()


class Resolver:
    """Resolves names for an event loop, in which all of this is called."""

    def __init__(self, loop: asyncio.AbstractEventLoop, look_up: Callable[..., Any] = socket.getaddrinfo) -> None:
        """`look_up`: what runs in the threads."""
        self._loop, self._look_up = loop, look_up
        self._memory = Memory[Found]()
        self._turns = Turns[Question]()
        self._look_ups: dict[Question, _LookUp] = {}

    async def resolve(self, question: Question, asker: Hashable) -> Found:
        """As getaddrinfo. `asker`: who has to wait if it asks too much. Raises OSError."""
        if question.host is None:
            return socket.getaddrinfo(*question)
        port = question.port
        if port is not None and not (isinstance(port, int) and 0 <= port <= 0xFFFF):
            return list(await self._find(question, asker))
        found = await self._find(question._replace(port=0), asker)  # known for each port
        return [(*info[:4], (address[0], port or 0, *address[2:])) for info in found for address in info[4:]]

    async def _find(self, question: Question, asker: Hashable) -> Found:
        now = self._loop.time()
        if found := self._memory.answer(question, now) or _literal(question):
            return found
        if failure := self._memory.failure(question, now):
            raise copy.copy(failure)
        look_up = self._ask_for(question, asker)
        if not (look_up and look_up.is_under_way) and (stale := self._memory.answer(question, now, STALE_FOR)):
            return stale  # what stands in line goes on to do so
        if not look_up:
            raise socket.gaierror(socket.EAI_AGAIN, "Too many other names are being looked up")
        return await self._wait(question, look_up)

    def _ask_for(self, question: Question, asker: Hashable) -> _LookUp | None:
        """Have a name looked up, at once or in its turn; None where too many wait already."""
        look_up = self._look_ups.get(question)
        if look_up and look_up.is_under_way:
            return look_up
        if not self._turns.wait(asker, question):
            return None
        look_up = self._look_ups.setdefault(question, _LookUp())
        self._begin()
        return look_up

    async def _wait(self, question: Question, look_up: _LookUp) -> Found:
        future: asyncio.Future[Found] = self._loop.create_future()
        look_up.waiting.add(future)
        try:
            return await future
        finally:
            look_up.waiting.discard(future)
            if not look_up.waiting and not look_up.is_under_way:
                self._turns.leave(question)
                del self._look_ups[question]

    def _begin(self) -> None:
        """Look up what has its turn."""
        while turn := self._turns.take():
            asker, question = turn
            look_up = self._look_ups[question]
            look_up.is_under_way = True
            try:
                _start(self._run, asker, question, look_up)
            except (RuntimeError, MemoryError) as error:  # there may be no more threads, whoever has them
                reason = OSError(str(error) or "not enough memory")
                self._loop.call_soon(self._finish, asker, question, look_up, reason)
            else:
                self._loop.call_later(_BEGINS_WITHIN, self._check, asker, question, look_up)

    def _check(self, asker: Hashable, question: Question, look_up: _LookUp) -> None:
        if not look_up.has_begun:
            self._finish(asker, question, look_up, OSError("no thread could look it up"))

    def _run(self, asker: Hashable, question: Question, look_up: _LookUp) -> None:
        """In a thread."""
        look_up.has_begun = True
        outcome: Found | Exception
        try:
            outcome = self._look_up(*question)
        except Exception as error:
            outcome = error.with_traceback(None)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            while not self._report(asker, question, look_up, outcome):
                time.sleep(_AGAIN)

    def _report(self, *outcome: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._finish, *outcome)
        except MemoryError:
            return False
        return True

    def _finish(self, asker: Hashable, question: Question, look_up: _LookUp, outcome: Found | Exception) -> None:
        """Remember what a look-up has found, and tell who waits for it."""
        if self._look_ups.get(question) is not look_up:
            return  # it was given up
        self._turns.give_back(asker)
        if not isinstance(outcome, Exception):
            self._memory.keep(question, outcome, self._loop.time())
        elif isinstance(outcome, socket.gaierror):  # others, such as too many open files, say nothing of the name
            self._memory.keep_failure(question, outcome, self._loop.time())
        for future in self._look_ups.pop(question).waiting:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(copy.copy(outcome))
            else:
                future.set_result(outcome)
        self._begin()


def _start(work: Callable[..., None], *arguments: Any) -> None:
    """Start a thread that takes no signals: one that is blocked in ours, as when we are leaving, must stay so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        _thread.start_new_thread(work, arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _literal(question: Question) -> Found | None:
    """The address that is written there, in any form that getaddrinfo knows; None for a name. Asks nobody."""
    try:
        return socket.getaddrinfo(*question._replace(flags=question.flags | socket.AI_NUMERICHOST))
    except socket.gaierror:
        return None
    except UnicodeError:  # as asyncio, and mitmproxy with it, does not expect
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
