"""Several workers behind one port: gunicorn's arbiter forks, watches and replaces them."""

import asyncio
import gc
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.workers import base

from jwtproxy.config.errors import trace

from ..report import MISTAKEN, report

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
_HEARTBEAT = 1.0
_PAUSE = 1.0
"""Seconds."""
_FAILED = 1
_HUNG_AFTER = 10
"""Seconds without a heartbeat until a worker is killed and replaced."""

NOT_BOOTED: int = Arbiter.WORKER_BOOT_ERROR
"""The exit status of a worker that could not start; it ends the whole."""

Work = Callable[[int, Iterable[socket.socket], Callable[[], Awaitable[None]]], int]
"""Serve as worker number n on these sockets, with a heartbeat to keep running, until told to end; the exit status."""


Ended = Callable[[int], None]
"""Be told of a worker that is no longer there, by its number."""


def run(
    work: Work,
    descriptors: list[int],
    workers: int,
    grace: float,
    refresh: Callable[[bool], None],
    ended: Ended = lambda number: None,
) -> int:
    """Run this many workers on these listening sockets; the exit status of the whole.

    `grace`: the most seconds from SIGTERM to a worker's end.

    `refresh` is called once a second, and told whether a SIGHUP asks for it: what it renews in this process is what
    workers start with that are forked later.
    """
    gc.collect()
    gc.freeze()  # what is loaded by now is shared by all workers, if the collector leaves its pages alone
    parent = os.getpid()
    try:
        _Arbiter(_Application(work, descriptors, workers, grace, ended), refresh).run()
    except SystemExit as end:
        if os.getpid() != parent:  # a worker's: the arbiter has to see its status as it is
            raise
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # the interpreter's own handlers are back in a moment
        return MISTAKEN if end.code == NOT_BOOTED else int(end.code or 0)
    return 0


class _Arbiter(Arbiter):  # type: ignore[misc]
    # Not USR1, USR2: re-executing is not a thing this proxy does.
    SIGNALS: ClassVar = [*_ENDS, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU]
    _halting = False
    _is_short = False
    """Whether a worker could not be started for want of processes, memory or descriptors, and it was said."""

    def __init__(self, application: BaseApplication, refresh: Callable[[bool], None]) -> None:
        super().__init__(application)
        self._refresh = refresh

    def init_signals(self) -> None:
        """Take signals, also a SIGHUP that came during the start."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])

    def handle_hup(self) -> None:
        """Have everybody read keys and rules again; gunicorn would replace the workers."""
        self._refresh(True)
        self.kill_workers(signal.SIGHUP)

    def spawn_worker(self) -> int | None:
        """Start one. What is wanting may be there a second later; if it is wanting for the first, nothing is served."""
        try:
            pid: int = super().spawn_worker()
        except OSError as error:
            reason = (error.strerror or "error").lower()
            if self.worker_age == 1:
                report(f"cannot start a worker: {reason}", "allow more processes, memory or descriptors")
                raise HaltServer(reason, NOT_BOOTED) from None
            if not self._is_short:
                report(f"cannot start a worker: {reason}; trying again")
            self._is_short = True
            return None
        self._is_short = False
        return pid

    def murder_workers(self) -> None:
        """Once a second: see to hung workers, and to what has changed."""
        self._refresh(False)
        super().murder_workers()

    def reap_workers(self) -> None:
        """Wait for those that ended. Several that cannot start end the whole only once."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._halting:
                self._halting = True
                raise

    def handle_term(self) -> NoReturn:
        """Have the workers finish; told again, do not wait for them."""
        signal.signal(signal.SIGTERM, lambda *_: self.SIG_QUEUE.put_nowait(signal.SIGQUIT))
        raise StopIteration


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(
        self, work: Work, descriptors: list[int], workers: int, grace: float, ended: Ended = lambda number: None
    ) -> None:
        self.work = work
        shared_memory = Path("/dev/shm")  # noqa: S108  # for the heartbeats: a file each, unlinked at once
        self._config = {
            "bind": [f"fd://{descriptor}" for descriptor in descriptors],
            "workers": workers,
            "worker_class": _Worker,
            "logger_class": _Log,
            "timeout": _HUNG_AFTER,
            "graceful_timeout": math.ceil(grace) + 1,  # the workers keep to the grace themselves
            "child_exit": lambda _, worker: ended(worker.age),
            "control_socket_disable": True,
            "worker_tmp_dir": str(shared_memory) if os.access(shared_memory, os.W_OK) else None,
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._config.items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """Nothing to load: it is loaded already."""


class _Worker(base.Worker):  # type: ignore[misc]
    def init_process(self) -> NoReturn:
        for number in _ENDS:  # until the event loop has its own handlers; the arbiter's only queue
            signal.signal(number, lambda *_: os._exit(0))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what we start with is fresh
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.exit(self._work())

    def _work(self) -> int:
        """Serve; the exit status. Only those that the service begins with can end it by failing to start."""
        try:
            status: int = self.app.work(self.age, [listener.sock for listener in self.sockets], self._beat)
            served = False
        except Exception as error:
            _tell_of(error)
            status, served = NOT_BOOTED, self.booted
        if status != NOT_BOOTED or not (served or self.age > self.cfg.workers):
            return status
        time.sleep(_PAUSE)  # what was wanting may be there when the next one starts
        return _FAILED

    async def _beat(self) -> None:
        """Tell the arbiter that we are alive; leave when it is not."""
        while os.getppid() == self.ppid:
            self.notify()
            await asyncio.sleep(_HEARTBEAT)
            self.booted = True
        os._exit(1)


def _tell_of(error: Exception) -> None:
    if isinstance(error, OSError | MemoryError):
        report(f"a worker ended: {(getattr(error, 'strerror', None) or 'not enough memory').lower()}")
    else:
        report(f"a worker ended: {type(error).__name__}")
        sys.stderr.write(f"{trace(error)}\n")


class _Log:
    """gunicorn's log in our voice: only what is wrong, and not what the worker has said itself."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg

    def warning(self, message: str, *arguments: Any, **_: Any) -> None:
        if arguments[-1:] != (NOT_BOOTED,) and not message.startswith(("Shutting down", "Reason")):
            report(message % arguments if arguments else message)

    error = critical = warning

    def exception(self, message: str, *arguments: Any, **_: Any) -> None:
        self.warning(f"{message}: {sys.exception()!r}", *arguments)

    def info(self, *_: Any, **__: Any) -> None:
        pass

    debug = close_on_exec = reopen_files = info
