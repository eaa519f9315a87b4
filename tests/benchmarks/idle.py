"""Many connections that have made one request each and are kept alive: what does each cost in memory?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from . import targets
from .load import Spec
from .targets import Place, Running
from .upstream import Upstream

_PATIENCE = 60.0  # seconds for opening; slow targets then hold fewer
_AT_ONCE = 64


def idle_connections(count: int, server: Upstream, place: Place, progress: Callable[[str], None]) -> dict[str, Any]:
    """KiB of PSS for each connection, by target."""
    results: dict[str, Any] = {}
    for target in (targets.ours(1), targets.MITMDUMP, targets.PROXY_PY, targets.ASGI):
        progress(f"idle connections: {target.label}")
        try:
            with targets.start(target, place) as running:
                results[target.key] = {"label": target.label, **asyncio.run(_hold(count, server, running))}
        except (RuntimeError, OSError, EOFError) as error:
            progress(f"{target.label}: {error}")
            results[target.key] = {"label": target.label, "reason": f"failed: {type(error).__name__}"}
    return results


async def _hold(count: int, server: Upstream, running: Running) -> dict[str, float]:
    spec = Spec(upstream=server.ports["http"], proxy=running.port)
    writers: list[asyncio.StreamWriter] = []
    deadline = time.monotonic() + _PATIENCE
    wanted = iter(range(count))

    async def open_some() -> None:
        for _ in wanted:
            if time.monotonic() > deadline:
                return
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writers.append(writer)
            await _exchange(reader, writer, spec)

    await _warm_up(spec, running)
    before = running.pss()
    await asyncio.gather(*(open_some() for _ in range(_AT_ONCE)))
    await asyncio.sleep(1)
    grown = running.pss() - before
    for writer in writers:
        writer.close()
    with contextlib.suppress(OSError):
        await asyncio.gather(*(writer.wait_closed() for writer in writers))
    each = grown * 1024 / max(1, len(writers))
    return {"connections": len(writers), "mib": round(grown, 1), "kib_each": round(each, 1)}


async def _warm_up(spec: Spec, running: Running) -> None:
    """Make one request first: what is loaded or cached then is not the connections' cost."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    await _exchange(reader, writer, spec)
    writer.close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spec: Spec) -> None:
    writer.write(spec.head())
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
