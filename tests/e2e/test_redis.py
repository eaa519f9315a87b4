"""Several machines show their totals together; Redis may go and come back empty, and nothing waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jwtproxy.stores.redis import RECORDS
from tests.support.clients import Raw, message
from tests.support.harness import ADDONS, SECRET, Process, StartProxy, clean_env, launcher, thorough
from tests.support.mistakes import Mistake, RunLauncher, Start, check
from tests.support.redis_server import RedisServer, needs_redis
from tests.support.upstreams import Recorder
from tests.support.workers import Load, await_workers, children, slack, status, until

PASSWORD = "open-sesame-of-redis"
WORKERS = 2


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def _start(start_proxy: StartProxy, redis: RedisServer, *arguments: str, workers: int = WORKERS) -> Process:
    proxy = start_proxy("--workers", str(workers), *arguments, env={"JWT_REDIS_URL": redis.url})
    await_workers(proxy, workers)
    return proxy


def _states(proxy: Process) -> list[str]:
    return [one["state"] for one in status(proxy.port)["instances"]]


def _await_all(proxies: list[Process], true: Callable[[dict[str, Any]], object], seconds: float) -> None:
    """Wait until it is so in what every worker says: each is asked by chance."""
    until(lambda: all(true(status(one.port)) for one in proxies for _ in range(4)), seconds * slack(), "status")


def _sees(live: int, gone: int = 0) -> Callable[[dict[str, Any]], bool]:
    def sees(said: dict[str, Any]) -> bool:
        states = [one["state"] for one in said["instances"]]
        return said["redis"] == "connected" and (states.count("live"), states.count("gone")) == (live, gone)

    return sees


@contextlib.contextmanager
def _load(proxies: list[Process], upstream: Recorder) -> Iterator[None]:
    """All of these under load, of which each request is answered as it should be."""
    loads = [Load(one.port, upstream, clients=2, pause=0.005) for one in proxies]
    with contextlib.ExitStack() as running:
        for load in loads:
            running.enter_context(load)
        yield
    assert [(load.codes, load.broken) for load in loads] == [({200}, [])] * len(loads)


@needs_redis
def test_totals_are_exact_also_when_redis_was_restarted_empty(start_proxy: StartProxy, redis: RedisServer) -> None:
    proxies = [_start(start_proxy, redis) for _ in range(3)]
    _await_all(proxies, _sees(live=3), 10)
    with Recorder() as upstream:
        with _load(proxies, upstream):
            time.sleep(0.5)
            redis.kill()
            _await_all(proxies, lambda said: said["redis"] == "away" and len(said["instances"]) == 3, 10)
            redis.start()
            _await_all(proxies, _sees(live=3), 15)
        passed = len(upstream.requests)
        _await_all(proxies, lambda said: said["total"]["proxied_requests"] == passed, 10)
        for one in proxies:
            said = status(one.port)
            assert said["total"]["instances"] == 3
            assert sum(instance["proxied_requests"] for instance in said["instances"]) == passed
            assert said["total"]["outcomes"]["2xx"] == passed
            assert said["total"]["bytes_sent"] == passed * len(b"ok")
    proxies[2].stop()
    _await_all(proxies[:2], _sees(live=2, gone=1), 10)
    for one in proxies[:2]:
        assert one.stderr.count("is away") == 1, "of two workers, one tells"
        assert len(re.findall(r"^jwtproxy: Redis at \S+ is back$", one.stderr, re.MULTILINE)) == 1


def _of_the_last(said: dict[str, Any]) -> tuple[Any, Any]:
    last = said["instances"][-1] if said["instances"] else {"state": "", "proxied_requests": 0}
    return last["state"], last["proxied_requests"]


@needs_redis
@thorough
def test_who_was_killed_is_gone_with_its_totals(start_proxy: StartProxy, redis: RedisServer) -> None:
    """Also after Redis was restarted, empty: the others know them."""
    proxies = [_start(start_proxy, redis) for _ in range(3)]
    _await_all(proxies, _sees(live=3), 10)
    with Recorder() as upstream:
        with _load(proxies[2:], upstream):
            time.sleep(0.5)
        passed = len(upstream.requests)
        _await_all(proxies, lambda said: said["total"]["proxied_requests"] == passed, 10)
        with _load(proxies[:2], upstream):
            for pid in (proxies[2].pid, *children(proxies[2].pid)):
                os.kill(pid, signal.SIGKILL)
            _await_all(proxies[:2], _sees(live=2, gone=1), 20)
            redis.kill()
            redis.start()
            until(lambda: redis.command("HLEN", RECORDS) == "3\n", 20 * slack(), "all records")
            _await_all(proxies[:2], _sees(live=2, gone=1), 15)
        _await_all(proxies[:2], lambda said: _of_the_last(said) == ("gone", passed), 10)
        newcomer = _start(start_proxy, redis)
        _await_all([newcomer], _sees(live=3, gone=1), 10)
        gone = ("gone", passed)  # whichever of its workers answers: each asks Redis by itself
        _await_all([newcomer], lambda said: _of_the_last(said) == gone, 10)
        total = len(upstream.requests) - passed
        _await_all([newcomer], lambda said: said["total"]["proxied_requests"] == total, 10)


@needs_redis
@thorough
def test_a_script_does_the_same(start_bare: Any, start_proxy: StartProxy, redis: RedisServer) -> None:
    scripts = (ADDONS / "jwt_inject.py", ADDONS / "status.py")
    bare = start_bare(scripts=scripts, env={"JWT_REDIS_URL": redis.url})
    proxy = _start(start_proxy, redis, workers=1)
    _await_all([bare, proxy], _sees(live=2), 10)
    bare.stop()
    _await_all([proxy], _sees(live=1, gone=1), 10)


@needs_redis
def test_a_password_is_nowhere(start_proxy: StartProxy, tmp_path: Path, run: RunLauncher[Start]) -> None:
    with RedisServer(tmp_path, "--requirepass", PASSWORD) as server:
        url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}"
        proxy = start_proxy("-v", env={"JWT_REDIS_URL": url})
        until(lambda: status(proxy.port)["redis"] == "connected", 10 * slack(), "Redis")
        with Raw(proxy.port) as client:
            page = client.request(message("GET", "/metrics", "Host: x")).body.decode()
        assert "jwtproxy_redis_up 1.0" in page
        shown = [json.dumps(status(proxy.port)), page, Path(f"/proc/{proxy.pid}/cmdline").read_text()]
        server.kill()
        until(lambda: "is away" in proxy.stderr, 10 * slack(), "the line that it is away")
        server.start()
        until(lambda: "is back" in proxy.stdout + proxy.stderr, 15 * slack(), "the line that it is back")
        wrong = start_proxy("-v", env={"JWT_REDIS_URL": url.replace(PASSWORD, f"{PASSWORD}-not")})
        until(lambda: "it does not accept the user and password" in wrong.stderr, 10 * slack(), "the reason")
        proxy.stop()
        wrong.stop()
        shown += [proxy.output, wrong.output]
    for arguments in (["--check"], ["--check", "--json"], ["--options"]):
        done = run(*arguments, cwd=tmp_path, env={"JWT_REDIS_URL": url})
        assert done.returncode == 0, done.stderr
        assert arguments == ["--options"] or f"redis://127.0.0.1:{server.port}" in done.stdout
        shown.append(done.stdout + done.stderr)
    assert [text for text in shown if PASSWORD in text] == []


MISTAKES = {
    "another scheme": Mistake(
        "bad URL in JWT_REDIS_URL: it is none of redis://", env={"JWT_REDIS_URL": f"http://:{PASSWORD}@x"}
    ),
    "no host": Mistake("it names no host", env={"JWT_REDIS_URL": f"redis://:{PASSWORD}@"}, hint="write it as redis://"),
    "in .env": Mistake("its port is none", files={".env": f"JWT_REDIS_URL=redis://x:{PASSWORD}"}),
    "file is missing": Mistake(
        "cannot read the file that JWT_REDIS_URL_FILE names: no such file", env={"JWT_REDIS_URL_FILE": "missing"}
    ),
    "an option": Mistake(
        "unknown option 'jwt_redis_url'", ["--set", "jwt_redis_url=redis://x"], hint="set the variable JWT_REDIS_URL"
    ),
    "misspelt": Mistake("unknown variable JWT_REDIS_URI", env={"JWT_REDIS_URI": "redis://x"}, hint="JWT_REDIS_URL"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_the_start(mistake: Mistake, run: RunLauncher[Start], tmp_path: Path) -> None:
    done = check(run, mistake, tmp_path)
    assert not done.bound
    assert PASSWORD not in done.stderr


@needs_redis
@pytest.mark.parametrize("where", [pytest.param("environment", marks=thorough), ".env"])
def test_exec_has_nothing_to_do_with_it(where: str, redis: RedisServer, tmp_path: Path, confdir: Path) -> None:
    """Neither its proxy nor its command: the one does not tell, the other is not told."""
    extra: Mapping[str, str] = {"JWT_SHARED_SECRET": SECRET}
    if where == "environment":
        extra = {**extra, "JWT_REDIS_URL": redis.url, "JWT_REDIS_URL_FILE": ""}
    else:
        (tmp_path / ".env").write_text(f"JWT_REDIS_URL={redis.url}\n")
    words = ["sh", "-c", "sleep 1; env | grep REDIS; exit 7"]
    argv = [*launcher(), "exec", "--set", f"confdir={confdir}", "--", *words]
    done = subprocess.run(argv, env=clean_env(tmp_path, extra), cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (7, b""), done.stderr
    assert redis.command("KEYS", "*").strip() == ""
    assert _connections(redis) <= 3


def _connections(redis: RedisServer) -> int:
    """So many have come, of which one is ours to know that it listens, and one each for redis-cli."""
    lines = redis.command("INFO", "stats").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("total_connections_received"))


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_who_never_answers_does_not_hold_up_the_end(workers: int, start_proxy: StartProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, Recorder() as upstream:
        proxy = start_proxy(
            *("--workers", str(workers)), env={"JWT_REDIS_URL": f"redis://127.0.0.1:{silent.getsockname()[1]}"}
        )
        with Raw(proxy.port) as client:
            assert client.request(message("GET", f"{upstream.url}/", "Host: x")).status == 200
        assert status(proxy.port)["redis"] == "away"
        began = time.monotonic()
        proxy.popen.send_signal(signal.SIGINT)
        proxy.popen.wait(10)
        assert time.monotonic() - began < 1.5 * slack()
