"""Keys change under load, and no verifier that keeps the JWKS as long as it may ever meets a key it does not know."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import threading
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from joserfc import jwk, jwt

from .clients import Raw, Reply, message
from .harness import Process, StartProxy, run_launcher, thorough
from .test_workers import WORKERS, await_workers, children, get, server_of, slack, until
from .upstreams import Recorder, Seen

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


class Fetch(NamedTuple):
    """The JWKS as somebody got it, and may use it until it is too old."""

    at: float
    keys: Mapping[str, Any]
    """By kid."""


class Fetches:
    """Somebody fetches the JWKS every few milliseconds, over new connections, from whoever answers; a context manager.

    Each stands for one verifier that begins to use it just then.
    """

    def __init__(self, port: int, max_age: int, rate: float = 20.0) -> None:
        self._port, self._max_age, self._rate = port, max_age, rate
        self._stop = threading.Event()
        self.found: list[Fetch] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(15)

    def _run(self) -> None:
        for _ in pace(self._rate, self._stop):
            try:
                with Raw(self._port) as client:
                    reply = client.request(JWKS)
                assert (reply.status, reply.values("cache-control")) == (200, [f"public, max-age={self._max_age}"])
                keys = {key["kid"]: key for key in json.loads(reply.body)["keys"]}
                self.found.append(Fetch(time.time(), keys))
            except (OSError, EOFError, ValueError, AssertionError) as error:
                self.failures.append(repr(error))


def strangers(seen: Sequence[Seen], fetches: Sequence[Fetch], max_age: int) -> list[str]:
    """The tokens that some verifier would have refused.

    That is: for which there was a JWKS, no older than it may be, that did not hold the token's key.
    """
    found = []
    for one in seen:
        kid = kid_of(one)
        lacking = [fetch.at for fetch in fetches if fetch.at <= one.at < fetch.at + max_age and kid not in fetch.keys]
        if lacking:
            age = one.at - min(lacking)
            found.append(f"{one.at:.2f} {one.target} {kid[:6]}: unknown to {len(lacking)} verifiers, {age:.2f} s old")
    return found


def check_signatures(seen: Sequence[Seen], keys: Mapping[str, Any]) -> None:
    """Each request has one token, which joserfc accepts with the published key of its kid."""
    known = {kid: jwk.ECKey.import_key(dict(key)) for kid, key in keys.items()}
    ids = [jwt.decode(one.token, known[kid_of(one)], algorithms=["ES256"]).claims["jti"] for one in seen]
    assert len(set(ids)) == len(seen)


def out_of_step(proxy: Process) -> list[int]:
    """The workers, once one was replaced: it looks for changes at other moments than those that began together."""
    victim, *others = await_workers(proxy, WORKERS)
    time.sleep(0.25)  # half the time between two looks
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(children(proxy.pid)) - {victim}) == WORKERS, 5 * slack(), "its replacement")
    workers = children(proxy.pid)
    assert set(others) < set(workers)
    return workers


def errors(proxy: Process) -> list[str]:
    """The lines that tell of an error so far, each with its hint."""
    return re.findall(r"jwtproxy: error: .*(?:\n.*jwtproxy: hint: .*)?", proxy.stderr + proxy.stdout)


class Watch(NamedTuple):
    """What happens while keys change."""

    traffic: Traffic
    fetches: Fetches

    def saw(self, *kids: str) -> bool:
        """Whether the last few verifiers got just these keys, whichever worker answered."""
        last = self.fetches.found[-15:]
        return len(last) == 15 and all(set(fetch.keys) == set(kids) for fetch in last)

    def keep_on(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)


@contextlib.contextmanager
def watched(
    proxy: Process, recorder: Recorder, workers: Sequence[int], max_age: int, rate: tuple[float, float] = (10, 20)
) -> Iterator[Watch]:
    """Load, and verifiers; in the end nothing may have failed, been unsigned or been refused by any verifier."""
    with Fetches(proxy.port, max_age) as fetches:
        until(lambda: len(fetches.found) > 5 or fetches.failures, 5 * slack(), "the first JWKS")
        with Traffic(proxy, recorder, workers, *rate) as traffic:
            yield Watch(traffic, fetches)
    seen = recorder.wait(traffic.answered)
    print(f"{len(seen)} requests, {len(fetches.found)} JWKS; by kid {Counter(map(kid_of, seen))}")
    assert (traffic.failures, fetches.failures) == ([], [])
    assert len(seen) == traffic.answered
    check_signatures(seen, {kid: key for fetch in fetches.found for kid, key in fetch.keys.items()})
    refused = strangers(seen, fetches.found, max_age)
    assert not refused, f"{len(refused)} tokens of {len(seen)}: {refused[:3]} … {refused[-3:]}"
    assert not [line for line in errors(proxy) if "SIGKILL" not in line], proxy.output


@pytest.mark.parametrize("max_age", [2, pytest.param(5, marks=thorough)])
def test_a_rotation_under_load_is_noticed_by_no_verifier(
    start_proxy: StartProxy, recorder: Recorder, tmp_path: Path, max_age: int
) -> None:
    """Old, both, new: 50 requests a second, and verifiers that keep the JWKS to the last moment they may."""
    folder = tmp_path / "keys"
    old = _new_key(folder)
    started = time.monotonic()
    settings = {"JWT_KEY_DIR": str(folder), "JWT_JWKS_MAX_AGE": str(max_age), "WORKERS": str(WORKERS)}
    proxy = start_proxy(env=settings, secret=None)
    workers = out_of_step(proxy)
    with watched(proxy, recorder, workers, max_age) as watch:
        (first,) = watch.fetches.found[0].keys
        watch.traffic.everywhere(lambda seen: kid_of(seen) == first, time.time())
        watch.keep_on(0.5)

        added = time.time()
        new = _new_key(folder)
        until(lambda: any(len(fetch.keys) == 2 for fetch in watch.fetches.found), 5 * slack(), "both keys")
        (second,) = {kid for fetch in watch.fetches.found for kid in fetch.keys} - {first}
        took = watch.traffic.everywhere(lambda seen: kid_of(seen) == second, added, max_age + 6)
        print(f"the new key signed everywhere {took:.2f} s after `keys new` began")
        watch.keep_on(max_age + 0.5)

        old.unlink()
        deleted = time.time()
        until(lambda: watch.saw(second), 4 * slack(), "the new key only")
        print(f"only the new key was published {time.time() - deleted:.2f} s after the old one was deleted")
        watch.keep_on(max_age + 1.0)
    counts = Counter(map(kid_of, recorder.requests))
    assert set(counts) == {first, second}
    assert min(counts.values()) > 100, counts
    shown = {frozenset(fetch.keys) for fetch in watch.fetches.found}
    assert shown == {frozenset({first}), frozenset({first, second}), frozenset({second})}
    assert new.name > old.name
    assert proxy.stdout.count("jwtproxy: reloaded: ") == 2, proxy.output
    print(f"{time.monotonic() - started:.1f} s in all")


def _new_key(folder: Path) -> Path:
    """Make one more key as users do."""
    done = run_launcher("keys", "new", "--out", f"{folder}/", cwd=folder.parent, secret=None, measured=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[0])


@thorough
def test_keys_change_places_at_the_second_that_the_manifest_names(
    start_proxy: StartProxy, recorder: Recorder, tmp_path: Path
) -> None:
    """In a folder that Kubernetes mounts: all files change at once, by a link; the workers need not agree on it."""
    max_age = 1
    volume, old, new = Volume(tmp_path / "keys"), made(), made()
    volume.hold({"2025.pem": old.text})
    settings = {"JWT_KEY_DIR": str(volume.folder), "JWT_JWKS_MAX_AGE": str(max_age), "WORKERS": str(WORKERS)}
    proxy = start_proxy(env=settings, secret=None)
    workers = await_workers(proxy, WORKERS)
    with watched(proxy, recorder, workers, max_age, (10, 10)) as watch:
        # Time for all workers to see it, for the JWKS to grow old, and for a busy machine.
        moment = math.ceil(time.time()) + max_age + 6  # 3 of them are the margin that workers have
        manifest = f"2025.pem: {{not_after: {_text(moment + 1)}}}\n2026.pem: {{not_before: {_text(moment)}}}\n"
        volume.hold({"2025.pem": old.text, "2026.pem": new.text, "keys.yaml": manifest})
        until(lambda: watch.saw(old.kid, new.kid), 4 * slack(), "both keys")
        watch.keep_on(max(0.0, moment + 1.5 - time.time()))

        volume.hold({"2026.pem": new.text})
        until(lambda: watch.saw(new.kid), 4 * slack(), "the new key only")
        watch.keep_on(max_age)
    for seen in recorder.requests:
        iat = jwt.decode(seen.token, (old if kid_of(seen) == old.kid else new).key, algorithms=["ES256"]).claims["iat"]
        assert kid_of(seen) == (new.kid if iat >= moment else old.kid)
    assert min(Counter(map(kid_of, recorder.requests)).values()) > 40


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


def _text(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
