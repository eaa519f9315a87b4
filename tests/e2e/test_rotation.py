"""Keys change under load, and no verifier that keeps the JWKS as long as it may ever meets a key it does not know."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from joserfc import jwk, jwt

from tests.support.clients import Raw
from tests.support.harness import Process, StartProxy, run_launcher, thorough
from tests.support.rotation import JWKS, Traffic, Volume, errors, kid_of, made, pace
from tests.support.upstreams import Recorder, Seen
from tests.support.workers import WORKERS, await_workers, children, slack, until


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


@pytest.mark.parametrize("max_age", [1, *(pytest.param(age, marks=thorough) for age in (2, 5))])
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
    done = run_launcher("keys", "new", "--out", f"{folder}/", cwd=folder.parent, secret=None)
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


def _text(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
