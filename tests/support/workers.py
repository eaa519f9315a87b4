"""A proxy of several workers: what its processes do, and load that notices what happens to them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.clients import Raw, message
from tests.support.harness import Process
from tests.support.upstreams import Recorder

WORKERS = 3


def slack() -> float:
    """How much longer than on a quiet machine things may take on this one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def children(pid: int) -> list[int]:
    """The living children of a process; a zombie is none."""
    return [child for child in _every_child(pid) if state_of(child) not in ("Z", "")]


def await_workers(proxy: Process, count: int) -> list[int]:
    """The workers, once all are there: the proxy serves as soon as the first is."""
    expected = count if count > 1 else 0  # one is no child of anybody
    until(lambda: len(children(proxy.pid)) == expected, 5 * slack(), f"{expected} children")
    return children(proxy.pid)


def zombies(pid: int) -> list[int]:
    """The children of a process that ended and were not waited for."""
    return [child for child in _every_child(pid) if state_of(child) == "Z"]


def _every_child(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one) for path in Path(f"/proc/{pid}/task").glob("*/children") for one in path.read_text().split()]
    return []


def state_of(pid: int) -> str:
    """Its letter in /proc: R, S, Z …; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.1f} s: {what}"
        time.sleep(0.01)


def get(url: str, *lines: str) -> bytes:
    """A request for the proxy to forward."""
    return message("GET", url, f"Host: {url.split('/')[2]}", *lines)


def status(port: int) -> dict[str, Any]:
    """What the status page says on a connection of its own."""
    with Raw(port) as client:
        return dict(json.loads(client.request(message("GET", "/status", "Host: x", "Connection: close")).body))


def server_of(client: Raw, workers: Sequence[int]) -> int:
    """Which of these processes has accepted this connection; 0 if none has."""
    near, far = client.socket.getsockname()[1], client.socket.getpeername()[1]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = (f":{far:04X}", f":{near:04X}")
    inodes = {parts[9] for parts in lines if (parts[1][-5:], parts[2][-5:]) == wanted}
    return next((pid for pid in workers for inode in sockets_of(pid) if inode in inodes), 0)


def sockets_of(pid: int) -> Iterator[str]:
    """The inodes of its sockets."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(entry.readlink()).removeprefix("socket:[").removesuffix("]")


class Load:
    """Clients that ask again and again, each over one connection while it lasts; a context manager.

    pause: seconds between an answer and the next request. Which worker serves a client is known from the start. A
    client whose connection breaks connects again.
    """

    def __init__(
        self, port: int, upstream: Recorder, clients: int, workers: Sequence[int] = (), pause: float = 0.0
    ) -> None:
        self._port = port
        self._request = get(f"{upstream.url}/load")
        self._pause = pause
        self._stop = threading.Event()
        self.answered = 0
        self.codes: set[int] = set()
        self.broken: list[int] = []
        """For each connection that broke, the worker that served it (0: not yet known)."""
        self._lock = threading.Lock()
        self._clients = [Raw(port) for _ in range(clients)]
        self._served: dict[int, int] = {}
        if workers:  # the kernel is not fair: go on until everyone has one
            deadline = time.monotonic() + 10
            while set(workers) - set(self._served.values()):
                assert time.monotonic() < deadline, "a worker gets no connections"
                self._know(workers)
                self._clients.append(Raw(port))
            self._know(workers)
        else:
            self._served = dict.fromkeys(map(id, self._clients), 0)
        self.workers: Callable[[], Sequence[int]] = tuple
        """Who may serve a connection that takes the place of a broken one."""
        self._threads = [threading.Thread(target=self._run, args=(one,), daemon=True) for one in self._clients]

    def _know(self, workers: Sequence[int]) -> None:
        for client in self._clients:
            if not self._served.get(id(client)):
                assert client.request(self._request).status == 200
                self.answered += 1
                self._served[id(client)] = server_of(client, workers)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _run(self, client: Raw) -> None:
        server = self._served[id(client)]
        while not self._stop.wait(self._pause):
            try:
                reply = client.request(self._request)
                with self._lock:
                    self.answered += 1
                    self.codes.add(reply.status)
                if not server:
                    server = server_of(client, self.workers())
            except (OSError, EOFError):
                client.close()
                with self._lock:
                    self.broken.append(server)
                if self._stop.wait(0.01):
                    return
                with contextlib.suppress(OSError):
                    client, server = Raw(self._port), 0
        client.close()
