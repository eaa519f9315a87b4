"""The faults: each a context manager, within which what the proxy stands on is broken."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.workers import children

from .stage import Stage


class Fault(NamedTuple):
    """One of them."""

    name: str
    put_in: Callable[[Stage], AbstractAsyncContextManager[None]]
    hold: float = 1.5
    """Seconds."""
    possible: Callable[[Stage], bool] = lambda stage: True
    least: float = 0.2
    """Seconds below which it would not be felt."""
    harmless: bool = False
    """Whether no request may fail for it."""
    crude: bool = False
    """Whether it may show in trace-backs: what is wanting may be wanting anywhere."""


@asynccontextmanager
async def _upstream_killed(stage: Stage) -> AsyncIterator[None]:
    stage.upstream.kill()
    yield
    await asyncio.to_thread(stage.start_upstream)


@asynccontextmanager
async def _upstream_resets(stage: Stage) -> AsyncIterator[None]:
    stage.upstream.send_signal(signal.SIGUSR1)
    yield
    stage.upstream.send_signal(signal.SIGUSR2)


@asynccontextmanager
async def _upstream_stopped(stage: Stage) -> AsyncIterator[None]:
    stage.upstream.send_signal(signal.SIGSTOP)
    yield
    stage.upstream.send_signal(signal.SIGCONT)


@asynccontextmanager
async def _name_gone(stage: Stage) -> AsyncIterator[None]:
    hosts = stage.hosts.read_text()
    stage.hosts.write_text("")
    yield
    stage.hosts.write_text(hosts)


@asynccontextmanager
async def _key_file_broken(stage: Stage) -> AsyncIterator[None]:
    new = secrets.token_hex(64)
    with stage.secrets.open("a") as file:
        file.write(f"{new}\n")
    stage.key_file.write_text(new[:63])
    yield
    stage.key_file.unlink()
    await asyncio.sleep(1)
    stage.key_file.write_text(new)


@asynccontextmanager
async def _rules_broken(stage: Stage) -> AsyncIterator[None]:
    rules = stage.rules.read_text()
    stage.rules.write_text("rules: [")
    yield
    stage.rules.write_text(rules)


@asynccontextmanager
async def _disk_full(stage: Stage) -> AsyncIterator[None]:
    """As far as the proxy can tell: no file may grow any more."""
    _limit(stage.proxy.pid, resource.RLIMIT_FSIZE, 1)
    yield
    await asyncio.to_thread(stage.proxy.wait_for_output, "its recording has ended")


@asynccontextmanager
async def _worker_killed(stage: Stage) -> AsyncIterator[None]:
    victim = children(stage.proxy.pid)[0]
    os.kill(victim, signal.SIGKILL)
    yield
    while len(children(stage.proxy.pid)) < stage.workers:  # requests go on, and tell if that takes too long
        await asyncio.sleep(0.02)


@asynccontextmanager
async def _reload(stage: Stage) -> AsyncIterator[None]:
    stage.proxy.send_signal(signal.SIGHUP)
    yield


@asynccontextmanager
async def _no_descriptors(stage: Stage) -> AsyncIterator[None]:
    before = [_limit(pid, resource.RLIMIT_NOFILE, _first_free(pid)) for pid in stage.proxy.pids()]
    yield
    _restore(stage, resource.RLIMIT_NOFILE, max(before))


@asynccontextmanager
async def _no_memory(stage: Stage) -> AsyncIterator[None]:
    """No more than there is already."""
    for pid in stage.proxy.pids():
        _limit(pid, resource.RLIMIT_AS, _size(pid))
    yield
    _restore(stage, resource.RLIMIT_AS, resource.RLIM_INFINITY)


def _size(pid: int) -> int:
    """Bytes of its address space."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _first_free(pid: int) -> int:
    """The descriptor that the process would get next."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208  # names are all we need
    return next(number for number in itertools.count() if number not in taken)


def _restore(stage: Stage, what: int, soft: int) -> None:
    """Lift a limit, for workers that were forked meanwhile, too."""
    for pid in stage.proxy.pids():
        with contextlib.suppress(OSError):
            _limit(pid, what, soft)


def _limit(pid: int, what: int, soft: int) -> int:
    """Set a soft limit of a process; what it was."""
    was, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, hard))
    return was


FAULTS = (
    Fault("disk full under -w", _disk_full, possible=lambda stage: stage.records, harmless=True),
    Fault("upstream killed, and started", _upstream_killed),
    Fault("upstream resets", _upstream_resets),
    Fault("upstream stopped for 2 s", _upstream_stopped, 2.0, harmless=True),
    Fault("name gone", _name_gone, 7.0, least=6.0, possible=lambda stage: stage.knows_names),
    Fault("key file broken, gone, new", _key_file_broken, 2.0, harmless=True),
    Fault("rules file broken, mended", _rules_broken, 2.0, harmless=True),
    Fault("reload (SIGHUP)", _reload, harmless=True),
    Fault("a worker killed", _worker_killed, possible=lambda stage: stage.workers > 1),
    Fault("no descriptors", _no_descriptors, crude=True),
    Fault("no memory", _no_memory, crude=True),
)
"""In this order: what is recorded goes past the fast lane, until that ends."""
