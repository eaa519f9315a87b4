"""Setting the clock changes when no time-out strikes, but what tokens say."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clients import Raw, message
from tests.support.harness import SECRET, Proxy, rows, verify
from tests.support.upstreams import Recorder, silent

HOUR = 3600
CONNECT_TIMEOUT, RESPONSE_TIMEOUT, IDLE_TIMEOUT = 1.0, 1.5, 2.0
SLACK = 3.0
"""Seconds that a busy machine may take on top of a time-out."""


@functools.cache
def library() -> str:
    """Where libfaketime is (Debian's package `libfaketime`); empty if it is not here, or does nothing."""
    for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        tried = subprocess.run(
            [sys.executable, "-c", "import time; print(time.time())"],
            env={"LD_PRELOAD": str(path), "FAKETIME": "-1d"},
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode == 0 and float(tried.stdout) < time.time() - HOUR:
            return str(path)
    return ""


pytestmark = pytest.mark.skipif(not library(), reason="libfaketime is not installed")


class Clock:
    """What the time of day is to a proxy."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)

    def set(self, offset: int) -> None:
        """Put the clock forward, or back, by this many seconds from the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+}\n")
        new.replace(self._file)

    def environment(self) -> dict[str, str | None]:
        """What has a process go by this clock, all but its monotonic one."""
        return {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


Proxies = Callable[[str, float], tuple[Proxy, Clock]]


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[Proxies]:
    """A proxy with the fast lane on or off and this response time-out, and its clock; started when first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(lane: str, response_timeout: float) -> tuple[Proxy, Clock]:
            folder = tmp_path_factory.mktemp("clock")
            clock = Clock(folder)
            options = {
                "jwt_fast_lane": lane,
                "jwt_connect_timeout": CONNECT_TIMEOUT,
                "jwt_response_timeout": response_timeout,
                "tcp_timeout": int(IDLE_TIMEOUT),
            }
            args = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
            env = clock.environment()
            proxy = Proxy(*args, env=env, secret=SECRET, cwd=folder, confdir=confdir, fresh=True)
            return stack.enter_context(proxy), clock

        yield start


CASES = {
    f"{where}-{lane}": (offset, lane)
    for where, offset in (("back", -HOUR), ("forward", HOUR))
    for lane in ("on", "off")
}
each_case = pytest.mark.parametrize(("offset", "lane"), rows(CASES, "back-off", "forward-off"))


def in_time(began: float, limit: float) -> None:
    """What should come after a time has come then, and soon after."""
    assert limit - 0.1 < time.monotonic() - began < limit + SLACK


def get(url: str) -> bytes:
    """A GET in the form for proxies."""
    return message("GET", f"{url}/", f"Host: {url.removeprefix('http://')}")


@each_case
def test_a_connection_attempt_is_given_up_in_time(proxies: Proxies, deaf: str, offset: int, lane: str) -> None:
    """While an upstream is dialled."""
    proxy, clock = proxies(lane, RESPONSE_TIMEOUT)
    clock.set(0)
    with Raw(proxy.port) as client:
        began = time.monotonic()
        client.send(get(deaf))
        time.sleep(0.3)
        clock.set(offset)
        assert client.reply().status == 502
        in_time(began, CONNECT_TIMEOUT)


@each_case
def test_a_silent_upstream_is_given_up_in_time(proxies: Proxies, recorder: Recorder, offset: int, lane: str) -> None:
    """While an answer is awaited. What is signed next says what the clock says."""
    recorder.route("/", silent())
    proxy, clock = proxies(lane, RESPONSE_TIMEOUT)
    clock.set(0)
    with Raw(proxy.port) as client:
        began = time.monotonic()
        client.send(get(recorder.url))
        recorder.wait()
        clock.set(offset)
        assert client.reply().status == 504
        in_time(began, RESPONSE_TIMEOUT)
        client.send(get(recorder.url))
        issued = verify(recorder.wait(2)[1].token)["iat"]
    assert isinstance(issued, int)
    assert abs(issued - time.time() - offset) < SLACK + RESPONSE_TIMEOUT


@each_case
def test_an_idle_connection_ends_in_time(proxies: Proxies, recorder: Recorder, offset: int, lane: str) -> None:
    """While nothing happens."""
    proxy, clock = proxies(lane, 0)  # whose alarm would count for something that happens
    clock.set(0)
    with Raw(proxy.port) as client:
        assert client.request(get(recorder.url)).body == b"ok"
        began = time.monotonic()
        time.sleep(0.3)
        clock.set(offset)
        with contextlib.suppress(ConnectionResetError):
            assert client.rest() == b""
        in_time(began, IDLE_TIMEOUT)


@each_case
def test_a_busy_connection_goes_on(proxies: Proxies, recorder: Recorder, offset: int, lane: str) -> None:
    """Whatever the clock is set to between its requests, also when it is looked at whether it is idle."""
    proxy, clock = proxies(lane, 0)  # whose alarm would count for something that happens
    clock.set(0)
    with Raw(proxy.port) as client:
        for number in range(round(1.5 * IDLE_TIMEOUT / 0.3)):
            assert client.request(get(recorder.url)).body == b"ok"
            clock.set(offset * ((number + 1) % 2))
            time.sleep(0.3)


@each_case
def test_tokens_tell_the_time_of_their_request(proxies: Proxies, recorder: Recorder, offset: int, lane: str) -> None:
    """On one connection, at once after the clock was set, and after it was set right."""
    proxy, clock = proxies(lane, RESPONSE_TIMEOUT)
    with Raw(proxy.port) as client:
        for moved in (0, offset, 0):
            clock.set(moved)
            assert client.request(get(recorder.url)).status == 200
            claims = verify(recorder.requests[-1].token)
            assert abs(float(str(claims["iat"])) - time.time() - moved) < SLACK
