"""An upstream that stays silent is given up, each request after its own time, with one timer for each connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import patches, response_timeout
from jwtproxy.mitm.response_timeout import Alarm
from tests.support.http2 import Http2
from tests.support.inside import Opens

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream


@pytest.fixture(autouse=True)
def installed(pristine: None) -> None:
    patches.install()


class Streams:
    """An addon that streams every request."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.stream = True


# --- the option


@pytest.mark.parametrize(("value", "limit"), [("300", 300.0), ("0.25", 0.25), ("0", 0.0), ("", 300.0)])
def test_the_limit_is_that_of_the_option(value: str, limit: float) -> None:
    assert response_timeout.limit(SimpleNamespace(jwt_response_timeout=value)) == limit  # type: ignore[arg-type]


def test_without_the_option_there_is_no_limit() -> None:
    assert response_timeout.limit(Options()) == 0.0


def test_the_option_is_300_seconds_unless_it_is_set() -> None:
    (option,) = response_timeout.OPTIONS
    assert (option.name, option.variable, option.check("")) == ("jwt_response_timeout", "JWT_RESPONSE_TIMEOUT", 300.0)


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_what_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=f"bad value '{value}' for jwt_response_timeout"):
        response_timeout.limit(SimpleNamespace(jwt_response_timeout=value))  # type: ignore[arg-type]


# --- the alarm alone


def _run(generator: Any) -> tuple[list[Any], Any]:
    """The commands of a generator, and what it returns."""
    said = []
    while True:
        try:
            said.append(next(generator))
        except StopIteration as end:
            return said, end.value


def _late(said: list[tuple[str, float]], name: str) -> Any:
    def time_out(seconds: float) -> Iterable[commands.Command]:
        said.append((name, seconds))
        yield commands.Log(name)

    return time_out


def test_the_first_to_wait_sets_the_alarm_for_all() -> None:
    alarm, late = Alarm(), list[tuple[str, float]]()
    (wakeup,), mine = _run(alarm.start("a", 0.02, _late(late, "a")))
    assert (wakeup.delay, mine) == (0.02, True)
    assert _run(alarm.start("b", 0.02, _late(late, "b"))) == ([], False)
    assert alarm.is_mine(events.Wakeup(wakeup))
    assert not alarm.is_mine(events.Wakeup(commands.RequestWakeup(0.02)))
    assert not alarm.is_mine(events.Start())
    time.sleep(0.03)
    said, _ = _run(alarm.ring())
    assert [command.message for command in said] == ["a", "b"]
    assert late == [("a", 0.02), ("b", 0.02)], "each once, and told how long it was"
    assert not alarm.is_mine(events.Wakeup(wakeup))
    assert _run(alarm.ring()) == ([], None)
    assert _run(alarm.start("c", 0.5, _late(late, "c")))[1], "the next one sets it again"


def test_who_waits_no_longer_is_not_timed_out() -> None:
    alarm, late = Alarm(), list[tuple[str, float]]()
    for name in "abc":
        _run(alarm.start(name, 0.01, _late(late, name)))
    alarm.stop("b")
    alarm.stop("nobody")
    time.sleep(0.02)
    _run(alarm.ring())
    assert [name for name, _ in late] == ["a", "c"]


def test_an_alarm_that_rings_too_early_is_set_anew() -> None:
    alarm, late = Alarm(), list[tuple[str, float]]()
    (first,), _ = _run(alarm.start("a", 0.3, _late(late, "a")))
    time.sleep(0.05)
    (second,), _ = _run(alarm.ring())
    assert 0 < second.delay <= 0.25
    assert alarm.is_mine(events.Wakeup(second))
    assert not alarm.is_mine(events.Wakeup(first))
    assert late == []


# --- real upstreams


@pytest.mark.parametrize("addons", [(), (Streams(),)], ids=["whole", "streamed"])
@pytest.mark.parametrize("body", [b"", b"hi"])
def test_a_silent_upstream_gives_504(
    serve: Serve, upstream: type[Upstream], addons: tuple[object, ...], body: bytes
) -> None:
    async def run() -> None:
        async with upstream(None) as server, serve(Opens(timeout=0.1), *addons) as proxy, proxy.client() as client:
            length = (f"Content-Length: {len(body)}",) if body else ()
            reply = await client.ask(server.request(*length, method="POST", body=body))
            assert reply.code == 504
            assert reply.body == f"jwtproxy: no answer from http://{server.authority} within 0.1 s\n".encode()
            assert (await client.ask(server.request())).code == 200, "the connection lives on"

    asyncio.run(run())


def test_the_clock_starts_after_the_last_byte_of_the_request(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with upstream() as server, serve(Opens(timeout=0.2), Streams()) as proxy, proxy.client() as client:
            head = server.request("Content-Length: 2", method="POST")
            for part in (head, b"h"):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.ask(part), 0.3)
            assert (await client.ask(b"i")).code == 200

    asyncio.run(run())


def test_a_second_request_has_all_the_time_of_the_first(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with (
            upstream(b"HTTP/1.1 204 No Content\r\n\r\n", None) as server,
            serve(Opens(timeout=0.4)) as proxy,
            proxy.client() as client,
        ):
            await client.ask(server.request())
            await asyncio.sleep(0.2)
            before = time.monotonic()
            assert (await client.ask(server.request())).code == 504
            assert time.monotonic() - before > 0.35
            assert (await client.ask(server.request())).code == 200, "the alarm can be set again"

    asyncio.run(run())


def test_an_answer_in_time_may_take_as_long_as_it_likes(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        async with (
            upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") as server,
            serve(Opens(timeout=0.1)) as proxy,
        ):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(proxy.ask(server.request()), 0.4)

    asyncio.run(run())


@pytest.mark.parametrize(("timeout", "lines"), [(0.0, ()), (0.05, ("Upgrade: websocket", "Connection: Upgrade"))])
def test_no_limit_means_none_and_an_upgrade_has_none(
    serve: Serve, upstream: type[Upstream], timeout: float, lines: tuple[str, ...]
) -> None:
    async def run() -> None:
        async with upstream(None) as server, serve(Opens(timeout=timeout)) as proxy:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(proxy.ask(server.request(*lines)), 0.4)

    asyncio.run(run())


# --- several requests at a time: HTTP/2, one event at a time


def test_one_alarm_serves_all_requests_of_a_connection() -> None:
    client = Http2(timeout=0.05)
    streams = [client.get(f"{name}.example") for name in "abc"]
    assert len(client.wakeups) == 1
    time.sleep(0.06)
    client.wake()
    assert client.codes == dict.fromkeys(streams, "504")
    assert client.wakeups == [], "nobody waits any longer"
    client.get("d.example")
    assert len(client.wakeups) == 1, "the next request sets the alarm again"


def test_each_request_has_its_own_deadline() -> None:
    client = Http2(timeout=0.5)
    first = client.get("a.example")
    time.sleep(0.4)
    second = client.get("b.example")
    time.sleep(0.12)
    client.wake()
    assert client.codes == {first: "504"}
    (again,) = client.wakeups
    assert 0 < again.delay < 0.5, "until the second one's time is up"
    time.sleep(again.delay)
    client.wake()
    assert client.codes == {first: "504", second: "504"}


def test_an_alarm_after_all_is_settled_does_nothing() -> None:
    client = Http2(timeout=0.01)
    client.cancel(client.get("a.example"))
    time.sleep(0.02)
    client.wake()
    assert (client.codes, client.wakeups) == ({}, [])
