"""Keys that change while a proxy serves: making them, mounting them, and steady requests that show which one signs."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from joserfc import jwk

from tests.support.clients import Raw, Reply, message
from tests.support.harness import Process
from tests.support.upstreams import Recorder, Seen
from tests.support.workers import get, server_of, slack, until

JWKS = message("GET", "/.well-known/jwks.json", "Host: proxy", "Connection: close")


class Made(NamedTuple):
    """A key made for a test."""

    text: str
    """What to write in its file."""
    kid: str
    key: jwk.ECKey


def made() -> Made:
    """A new key for ES256."""
    key = jwk.ECKey.generate_key("P-256")
    return Made(key.as_pem(private=True).decode(), key.thumbprint(), key)


def header_of(token: str) -> dict[str, Any]:
    """The JOSE header of a token, unverified."""
    part = token.split(".")[0]
    return dict(json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def kid_of(seen: Seen) -> str:
    """The kid in a request's one token."""
    return str(header_of(seen.token).get("kid", ""))


class Traffic:
    """Requests at a steady rate, over a kept-alive connection to each worker and over new ones; a context manager.

    rate: requests per second of each kept-alive connection, whose path is the worker's pid. fresh: the same of new
    connections, of which each carries one request, for `path`. Whatever is not a whole answer 200 is in `failures`,
    beside the pid of its worker (0: of a new connection).
    """

    def __init__(
        self, proxy: Process, upstream: Recorder, workers: Sequence[int], rate: float, fresh: float, path: str = "/new"
    ) -> None:
        self._proxy, self._upstream = proxy, upstream
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.workers = list(workers)
        self.answered = 0
        self.failures: list[tuple[int, str]] = []
        kept = connect_to_each(proxy.port, workers)
        self._threads = [
            threading.Thread(target=self._keep_asking, args=(pid, client, rate), daemon=True)
            for pid, client in kept.items()
        ]
        self._threads.append(threading.Thread(target=self._ask_anew, args=(path, fresh), daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive()

    def of_worker(self, pid: int, since: float = 0.0) -> list[Seen]:
        """What has arrived of the connection kept to a worker."""
        return [seen for seen in list(self._upstream.requests) if seen.target == f"/{pid}" and seen.at >= since]

    def everywhere(self, holds: Callable[[Seen], bool], since: float, timeout: float = 4.0) -> float:
        """Wait until it holds for a request of each worker that came after `since`; how long the last took."""

        def firsts() -> list[float | None]:
            return [next((seen.at for seen in self.of_worker(pid, since) if holds(seen)), None) for pid in self.workers]

        until(lambda: None not in firsts(), timeout * slack(), f"in force in each worker: {firsts()}")
        return max(at for at in firsts() if at is not None) - since

    def _keep_asking(self, pid: int, client: Raw, rate: float) -> None:
        for _ in pace(rate, self._stop):
            self._count(pid, lambda: client.request(get(f"{self._upstream.url}/{pid}")))
        client.close()

    def _ask_anew(self, path: str, rate: float) -> None:
        def ask() -> Reply:
            with Raw(self._proxy.port) as client:
                return client.request(get(f"{self._upstream.url}{path}"))

        for _ in pace(rate, self._stop):
            self._count(0, ask)

    def _count(self, pid: int, ask: Callable[[], Reply]) -> None:
        failure = ""
        try:
            reply = ask()
            if reply.status != 200:
                failure = f"{reply.status} {reply.body!r}"
        except (OSError, EOFError) as error:
            failure = repr(error)
        with self._lock:
            self.answered += not failure
            if failure:
                self.failures.append((pid, failure))


def pace(rate: float, stop: threading.Event) -> Iterator[None]:
    """Go on at this rate, in Hz, until told to stop."""
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        yield
        due = max(due + 1 / rate, time.monotonic() - 0.5)


def connect_to_each(port: int, workers: Sequence[int]) -> dict[int, Raw]:
    """A connection that stays, to each worker; the kernel is not fair, so this may take several."""
    found: dict[int, Raw] = {}
    deadline = time.monotonic() + 10 * slack()
    while set(workers) - set(found):
        assert time.monotonic() < deadline, f"some of {workers} get no connections"
        client = Raw(port)
        assert client.request(message("GET", "/status", "Host: x")).status == 200  # it has been accepted
        pid = server_of(client, workers)
        if not pid or found.setdefault(pid, client) is not client:
            client.close()
    return found


def errors(proxy: Process) -> list[str]:
    """The lines that tell of an error so far, each with its hint."""
    return re.findall(r"jwtproxy: error: .*(?:\n.*jwtproxy: hint: .*)?", proxy.stderr + proxy.stdout)


class Volume:
    """A folder such as Kubernetes makes of a Secret: links to `..data`, itself a link that is replaced as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def hold(self, files: Mapping[str, str]) -> None:
        """Hold just these files from now on; the order of the steps is that of Kubernetes' atomic writer."""
        before = [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        data = self.folder / f"..{time.time_ns()}"
        data.mkdir()
        for name, text in files.items():
            (data / name).write_text(text)
        (self.folder / "..data_tmp").symlink_to(data.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for link in self.folder.iterdir():
            if not link.name.startswith("..") and link.name not in files:
                link.unlink()
        for folder in before:
            shutil.rmtree(folder)
