"""Names that do not resolve hold up nobody else: not other requests, not the end of the proxy."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import black_hole
from tests.support.clients import Raw, message
from tests.support.harness import Process, rows, thorough, verify
from tests.support.upstreams import Recorder

pytestmark = [
    pytest.mark.skipif(bool(black_hole.unable()), reason=black_hole.unable()),
    pytest.mark.timeout(60),
]

KNOWN = [f"known{number}.example" for number in range(20)]
LIMIT = 0.1
"""Seconds by which names that do not resolve may delay others."""
BUSY = 5.0
"""Seconds that anything may take on a busy machine. A name that hangs takes 30, and jwt_connect_timeout is 10."""

Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path, confdir: Path) -> Iterator[Start]:
    """Start a proxy that knows the names of KNOWN, and for which all others hang."""
    with contextlib.ExitStack() as stack:
        hosts = dict.fromkeys(KNOWN, "127.0.0.1")
        yield lambda *args, **env: stack.enter_context(
            black_hole.lost(*args, cwd=tmp_path, confdir=confdir, hosts=hosts, env=env)
        )


@contextlib.contextmanager
def unresolvable(proxy: Process, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Requests under way for that many names that hang, from this address."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", proxy.port), 10, source_address=(source, 0))
            clients.append(stack.enter_context(client))
            name = f"lost{number}.example"
            client.sendall(message("GET", f"http://{name}/", f"Host: {name}"))
        time.sleep(0.3)
        yield clients


def took(proxy: Process, upstream: Recorder, name: str) -> float:
    """How long a request to this name takes."""
    port = upstream.authority.partition(":")[2]
    began = time.monotonic()
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"http://{name}:{port}/", f"Host: {name}:{port}")).status == 200
    return time.monotonic() - began


def delays(proxy: Process, upstream: Recorder, names: list[str]) -> list[float]:
    """How long requests to these names take, one after another; each with a token."""
    found = [took(proxy, upstream, name) for name in names]
    shown = [f"{seconds * 1000:.0f}" for seconds in found]
    print(f"ms: {' '.join(shown)}")
    assert len(upstream.requests) >= len(names)
    assert all(verify(seen.token) for seen in upstream.requests)
    return found


def undelayed(found: list[float]) -> None:
    """None of them waited for a name that hangs; a busy machine does not slow down each of them."""
    assert min(found) < LIMIT
    assert max(found) < BUSY


WAYS: dict[str, list[str]] = {
    "lane": [],
    "mitmproxy": ["--set", "jwt_fast_lane=off"],
    "workers": ["--workers", "3"],
}


@pytest.mark.parametrize("args", rows(WAYS, "workers"))
def test_60_names_that_hang_delay_no_other(start: Start, recorder: Recorder, args: list[str]) -> None:
    """Neither names that were never asked for, nor those that are known, of the very same client."""
    proxy = start(*args)
    with unresolvable(proxy, 60):
        undelayed(delays(proxy, recorder, KNOWN))
        undelayed(delays(proxy, recorder, KNOWN[:1] * 10))


@thorough
@pytest.mark.parametrize("way", ["lane", "mitmproxy"])
def test_800_names_that_hang_delay_only_who_asks_for_them(start: Start, recorder: Recorder, way: str) -> None:
    """Another client has its own share, and known names are known to all."""
    proxy = start(*WAYS[way])
    took(proxy, recorder, KNOWN[0])
    with unresolvable(proxy, 800, "127.0.0.2"):
        undelayed(delays(proxy, recorder, KNOWN))


@thorough
def test_who_asks_for_too_many_names_at_once_is_told(start: Start) -> None:
    """64 are looked up, 256 wait, the next gets an answer."""
    proxy = start()
    with unresolvable(proxy, 330) as clients:
        clients[-1].settimeout(BUSY)
        assert b"too many other names are being looked up" in clients[-1].recv(4096)


def test_names_that_hang_do_not_hold_up_the_end(start: Start) -> None:
    """Ctrl-C ends the proxy at once, also if it is pressed again and again."""
    proxy = start()
    with unresolvable(proxy, 20):
        began = time.monotonic()
        while proxy.running and time.monotonic() - began < BUSY:
            proxy.send_signal(signal.SIGINT)
            proxy.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert not proxy.running
    assert (proxy.wait(), proxy.stderr) == (0, "")


def test_a_name_that_hangs_is_given_up(start: Start) -> None:
    """At jwt_connect_timeout."""
    proxy = start("--set", "jwt_connect_timeout=0.5")
    with unresolvable(proxy, 1) as (client,):
        assert b"no connection within 0.5 s" in client.recv(4096)
