"""Where an attack is played: a proxy, an honest client whose waiting is timed, and a look at memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.support import servers
from tests.support.harness import SECRET, Process, Proxy, clean_env, launcher

MIB = 1 << 20
REST = 5.0
"""Seconds after which memory is to be back."""
RETURNED = 20.0
"""MiB over what it was before that the proxy may hold then."""
_SHORTEST = 0.5
"""Seconds of rest where memory is back at once."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Outcome:
    """What an attack did."""

    name: str
    before: float = 0.0
    """MiB, as the next two."""
    peak: float = 0.0
    after: float = 0.0
    p99_ms: float = 0.0
    honest: int = 0
    """Honest requests that were answered."""
    failed: int = 0
    said: str = ""
    """What the attacker got."""
    logged: int = 0
    """Bytes."""


@dataclass
class Stage:
    """What an attack has to do with."""

    port: int
    """The proxy's."""
    seconds: float
    """How long it may take."""
    authority: trustme.CA
    said: list[str] = field(default_factory=list)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        """Whether time is up."""
        return time.monotonic() > self.deadline

    @property
    def left(self) -> float:
        """Seconds, at least a few."""
        return max(0.01, self.deadline - time.monotonic())

    async def upstream(self, serve: Serve, context: ssl.SSLContext | None = None) -> int:
        """The port of a server that does this with each connection."""

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, EOFError):
                await serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context, limit=1 << 18)
        self._stack.push_async_callback(servers.end, server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the proxy, which the attack need not close."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 18)
        self._stack.callback(_abort, writer)
        return reader, writer

    async def pour(self, writer: asyncio.StreamWriter, piece: bytes, most: int = 512 * MIB) -> None:
        """Send this again and again until time is up, nobody takes it any more, or so many bytes were sent."""
        sent = 0
        with contextlib.suppress(OSError, TimeoutError):
            while not (self.over or writer.is_closing()) and sent < most:
                writer.write(piece)
                sent += len(piece)
                await self.drain(writer)
        self.said.append(f"sent {sent / MIB:.0f} MiB")

    async def drain(self, writer: asyncio.StreamWriter) -> None:
        """Wait until there is room for more; raises OSError when the connection is lost, TimeoutError in the end.

        Within TLS, asyncio's own `drain` does not let it be known that it is lost while there is room.
        """
        await asyncio.sleep(0)
        await asyncio.wait_for(writer.drain(), self.left)

    async def hear(self, reader: asyncio.StreamReader) -> None:
        """Note the first line that comes, if one does."""
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            line = await asyncio.wait_for(reader.readline(), self.left)
            self.said.append(line.decode("latin-1").strip() or "closed")

    async def wait(self) -> None:
        """Wait until time is up."""
        await asyncio.sleep(max(0.0, self.deadline - time.monotonic()))

    async def close(self) -> None:
        """End everything."""
        await self._stack.aclose()


Attack = Callable[[Stage], Awaitable[None]]


def _abort(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.transport.abort()


@contextlib.contextmanager
def _proxy(folder: Path, *flags: str) -> Iterator[Process]:
    env = clean_env(folder, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    command = [*launcher(), "--set", f"confdir={folder}", "--set", "ssl_insecure=true", *flags]
    with Process(command, env=env, cwd=folder, ready=Proxy.READY) as process:
        yield process


def play(name: str, attack: Attack, seconds: float, *flags: str, rest: float = REST) -> Outcome:
    """Play one attack on a new proxy with these flags; memory is to be back within a rest of so many seconds."""
    outcome = Outcome(name)
    with tempfile.TemporaryDirectory(prefix="attack") as folder, _proxy(Path(folder), *flags) as proxy:
        asyncio.run(_play(outcome, attack, seconds, proxy, rest))
        proxy.stop()
        outcome.logged = len(proxy.stdout) + len(proxy.stderr)
        if found := re.search(r"Traceback.*?\n(\w+Error[^\n]*)", proxy.stdout + proxy.stderr, re.DOTALL):
            outcome.said += f" TRACEBACK {found[1]}"
    return outcome


async def _play(outcome: Outcome, attack: Attack, seconds: float, proxy: Process, rest: float) -> None:
    honest = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.honest", str(proxy.port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert honest.stdin
    assert honest.stdout
    await honest.stdout.readline()
    outcome.before = memory(proxy)
    stage = Stage(proxy.port, seconds, trustme.CA())
    watch = asyncio.create_task(_watch(outcome, proxy))
    try:
        with contextlib.suppress(OSError, EOFError):
            await asyncio.wait_for(attack(stage), seconds + 5)
    finally:
        honest.stdin.write(b"stop\n")
        told = json.loads(await honest.stdout.readline())
        await stage.close()
        await honest.wait()
    outcome.p99_ms, outcome.honest, outcome.failed = told["p99_ms"], told["answered"], told["failed"]
    outcome.said = ", ".join(dict.fromkeys(stage.said))
    await _rest(outcome, proxy, rest)
    watch.cancel()


async def _rest(outcome: Outcome, proxy: Process, seconds: float) -> None:
    """Wait until memory is back, or so many seconds at most."""
    began = time.monotonic()
    await asyncio.sleep(_SHORTEST)
    outcome.after = memory(proxy)
    while outcome.after > outcome.before + RETURNED and time.monotonic() < began + seconds:
        await asyncio.sleep(0.1)
        outcome.after = memory(proxy)


async def _watch(outcome: Outcome, proxy: Process) -> None:
    while True:
        outcome.peak = max(outcome.peak, memory(proxy))
        await asyncio.sleep(0.05)


def memory(proxy: Process) -> float:
    """MiB of the proxy's processes."""
    total = 0
    for pid in proxy.pids():
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / MIB
