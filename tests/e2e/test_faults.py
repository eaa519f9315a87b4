"""Faults around the proxy: what it stands on gives way, and it says so, goes on, and recovers by itself."""

from __future__ import annotations

import pytest

from tests.support.clients import Raw
from tests.support.harness import StartBare, StartProxy, verify
from tests.support.upstreams import Recorder, respond
from tests.support.workers import get

SAID = "jwtproxy: error: cannot write '{}': no space left on device; its recording has ended, requests go on"
LARGE = respond(200, body=bytes(1 << 18))
"""More than is held back on the way to a file."""


def _exchange(port: int, recorder: Recorder, times: int = 3) -> None:
    with Raw(port) as client:
        for _ in range(times):
            assert client.request(get(f"{recorder.url}/large")).status == 200


def _errors(output: str) -> list[str]:
    return [line for line in output.splitlines() if "error" in line.lower()]


@pytest.mark.parametrize("args", [("-w", "/dev/full"), ("--set", "save_stream_file=+/dev/full")], ids=["-w", "append"])
def test_a_full_disk_ends_the_recording_and_not_the_proxy(
    start_proxy: StartProxy, recorder: Recorder, args: tuple[str, ...]
) -> None:
    recorder.route("/large", LARGE)
    proxy = start_proxy(*args)
    _exchange(proxy.port, recorder)
    proxy.wait_for_output("its recording has ended")
    _exchange(proxy.port, recorder)
    assert proxy.stop() == 1
    assert _errors(proxy.output) == [SAID.format("/dev/full")], proxy.output
    assert len({verify(seen.token)["jti"] for seen in recorder.requests}) == 6


def test_what_is_written_only_at_the_end_is_told_at_the_end(start_proxy: StartProxy, recorder: Recorder) -> None:
    proxy = start_proxy("--set", "hardump=/dev/full")
    _exchange(proxy.port, recorder)
    assert proxy.stop() == 1
    assert _errors(proxy.output) == [SAID.format("/dev/full")], proxy.output


@pytest.mark.parametrize("args", [("-w", "/dev/full"), ("--set", "hardump=/dev/full")], ids=["-w", "hardump"])
def test_mitmdump_with_our_script_does_the_same(
    start_bare: StartBare, recorder: Recorder, args: tuple[str, ...]
) -> None:
    recorder.route("/large", LARGE)
    process = start_bare(*args)
    _exchange(process.port, recorder)
    _exchange(process.port, recorder)
    assert process.stop() == 1
    assert process.output.count(SAID.format("/dev/full")) == 1, process.output
    assert "Traceback" not in process.output
