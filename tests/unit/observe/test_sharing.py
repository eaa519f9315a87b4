"""What passes here is told to others, and what they tell is known here; nothing waits for Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.observe import sharing
from jwtproxy.observe.counters import Counters
from jwtproxy.observe.sharing import URL, URL_FILE, Sharing, find
from jwtproxy.stores import redis
from tests.support.redis_server import RedisServer, needs_redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """In a tenth of the time."""
    for name, value in {"PAUSE": 0.05, "_FIRST": (0.0, 0.01), "_AGAIN": 0.02, "_LONGEST": 0.1}.items():
        monkeypatch.setattr(sharing, name, value)
    caplog.set_level(logging.INFO, logger=sharing.__name__)


def _sharing(url: str, counters: Counters | None = None) -> Sharing:
    return Sharing(counters or Counters(), redis.Address.parse(url))


async def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def _while_running(*all_of: Sharing, use: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        for one in all_of:
            one.running()
        try:
            await use()
        finally:
            for one in all_of:
                one.done()
            await asyncio.sleep(0.05)

    asyncio.run(run())


def _states(one: Sharing) -> dict[str, str]:
    return {told["id"]: told["state"] for told in one.members()["instances"]}


# --- where Redis is


def test_the_first_source_that_says_anything_counts(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://in-a-file/1\n")
    assert find() is None
    assert find({}, {URL: "", URL_FILE: ""}) is None
    first, second = {URL: " redis://first "}, {URL_FILE: str(file)}
    found = [find(first, second), find({}, second), find(second, first)]
    assert [one.shown for one in found if one] == [
        "redis://first:6379",
        "redis://in-a-file:6379/1",
        "redis://in-a-file:6379/1",
    ]


@pytest.mark.parametrize(
    ("environ", "content", "says"),
    [
        ({URL: "redis://a", URL_FILE: "f"}, "", "both JWT_REDIS_URL and JWT_REDIS_URL_FILE are set"),
        ({URL: "geheim"}, "", "bad URL in JWT_REDIS_URL: it is none of redis://, rediss:// and unix://"),
        ({URL_FILE: "f"}, "", "the file that JWT_REDIS_URL_FILE names is empty"),
        ({URL_FILE: "f"}, "geheim", "bad URL in the file that JWT_REDIS_URL_FILE names: it is none of redis://"),
        ({URL_FILE: "f"}, "\xff", "the file that JWT_REDIS_URL_FILE names is not text"),
        ({URL_FILE: "missing"}, "", "cannot read the file that JWT_REDIS_URL_FILE names: no such file"),
        ({URL_FILE: "redis://:geheim@a"}, "", "JWT_REDIS_URL_FILE holds a URL, not a path"),
    ],
)
def test_a_mistake_is_told_and_nothing_of_a_url(
    environ: dict[str, str],
    content: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shown: Callable[[BaseException], str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match=says) as refused:
        find(environ)
    assert refused.value.hint
    assert "geheim" not in f"{refused.value} {refused.value.hint}"


def test_without_the_package_the_hint_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> redis.Address:
        raise ModuleNotFoundError(name="redis")

    monkeypatch.setattr(redis.Address, "parse", missing)
    with pytest.raises(SettingsError, match="JWT_REDIS_URL is set, and the package redis is not installed") as refused:
        find({URL: "redis://a"})
    assert "pip install 'jwtproxy[redis]'" in refused.value.hint


def test_only_a_script_goes_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "redis://a")
    launched, script = Sharing(Counters()), Sharing(Counters(), is_script=True)
    for one in (launched, script):
        one.load(None)
    assert launched.members() == {}
    assert launched.is_up is None
    assert script.members()["redis"] == "away"
    monkeypatch.setenv(URL, "nonsense")
    with pytest.raises(SystemExit, match=r"jwtproxy: error: bad URL in JWT_REDIS_URL: .*\njwtproxy: hint: write it as"):
        script.load(None)


def test_ids_tell_the_machine_and_differ() -> None:
    found = {sharing.new_id() for _ in range(100)}
    assert len(found) == 100
    assert all(one.rpartition("-")[0].split(".")[0] in socket.gethostname() for one in found)


# --- what is told


@needs_redis
def test_each_knows_of_all_and_nothing_is_counted_twice(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    counted = [Counters() for _ in range(3)]
    several = [_sharing(server.url, counters) for counters in counted]

    async def use() -> None:
        for number, counters in enumerate(counted, 1):
            for _ in range(number):
                counters.count()
        await _until(lambda: all(one.members()["total"]["proxied_requests"] == 6 for one in several))
        assert all(one.members()["redis"] == "connected" and one.is_up for one in several)
        assert [set(_states(one).values()) for one in several] == [{"live"}] * 3
        several[2].done()
        counted[2].count()
        several[2].leave()
        await _until(lambda: [*_states(several[0]).values()].count("gone") == 1)
        assert several[0].members()["total"]["proxied_requests"] == 3
        assert several[0].members()["instances"][-1]["proxied_requests"] == 4, "what it has said last"

    _while_running(*several, use=use)
    assert caplog.text == "", "all was well"


@needs_redis
def test_redis_may_come_late_and_go_and_come_back_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(tmp_path)
    counters, others = Counters(), Counters()
    one, other = _sharing(server.url, counters), _sharing(server.url, others)
    gone = _sharing(server.url)

    async def use() -> None:
        await asyncio.sleep(0.2)
        assert one.members()["redis"] == "away"
        with server:
            await _until(lambda: len(_states(one)) == len(_states(other)) == 3)
            gone.done()
            gone.leave()
            await _until(lambda: _states(one)[gone.id] == _states(other)[gone.id] == "gone")
            server.kill()
            await _until(lambda: one.members()["redis"] == other.members()["redis"] == "away")
            others.count()
            server.start()
            await _until(lambda: one.members()["total"]["proxied_requests"] == 1)
            assert _states(one) == {one.id: "live", other.id: "live", gone.id: "gone"}
            await _until(lambda: gone.id in server.command("HKEYS", redis.RECORDS))

    _while_running(one, other, gone, use=use)
    said = [record.getMessage() for record in caplog.records]
    place = f"Redis at redis://127.0.0.1:{server.port}"
    away, back = f"jwtproxy: warning: {place} is away: ", f"jwtproxy: {place} is back"
    assert sorted({line[: len(away)] for line in said}) == sorted({away, back})


@needs_redis
def test_of_several_workers_one_tells_that_redis_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are forks of one: what they share of it is the state that was told."""
    with RedisServer(tmp_path) as server:
        workers = [_sharing(server.url) for _ in range(3)]
        for one in workers:
            one._state = workers[0]._state

        async def use() -> None:
            await _until(lambda: all(one.is_up for one in workers))
            server.kill()
            await _until(lambda: not any(one.is_up for one in workers))
            server.start()
            await _until(lambda: all(one.is_up for one in workers))

        _while_running(*workers, use=use)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@needs_redis
def test_what_others_have_written_there_does_no_harm(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    server.command("HSET", redis.RECORDS, "x", "nonsense", "y", "{}")
    one = _sharing(server.url)

    async def use() -> None:
        await _until(lambda: one.is_up)
        assert not {"x", "y"} & set(_states(one))
        server.command("SET", redis.RECORDS, "no hash")
        await _until(lambda: one.is_up is False)
        server.command("DEL", redis.RECORDS)
        await _until(lambda: one.is_up)

    _while_running(one, use=use)
    assert "away: it says WRONGTYPE" in caplog.text


@needs_redis
def test_a_script_says_that_it_ends(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, server.url)
    script = Sharing(Counters(), is_script=True)
    script.load(None)

    async def use() -> None:
        await _until(lambda: script.is_up)

    _while_running(script, use=use)
    assert '"ended": true' in server.command("HGET", redis.RECORDS, script.id)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of who accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"redis://:geheim@127.0.0.1:{silent.getsockname()[1]}"


def test_who_never_answers_holds_nothing_up(
    deaf: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "_PATIENCE", 0.2)
    one = _sharing(deaf)

    async def use() -> None:
        await _until(lambda: caplog.records)

    _while_running(one, use=use)
    assert "is away: it does not answer" in caplog.text
    assert "geheim" not in caplog.text
    began = time.monotonic()
    one.leave()
    assert time.monotonic() - began < 0.1, "it is known to be away"
    one._state[0] = sharing._UP
    one.leave()
    assert time.monotonic() - began < 2 * sharing._FAREWELL + 0.5, "it was there a moment ago"


def test_where_nobody_asks_nothing_is_started() -> None:
    idle: Any = Sharing(Counters())
    idle.running()
    idle.done()
    idle.leave()
    assert idle._task is None
    assert URL not in os.environ
