"""The log names each request and its token, and holds nothing that is of use to who reads it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.support.clients import Http2, Raw, message, pseudo
from tests.support.harness import SECRET, Proxy, StartProxy, clean_env, launcher, thorough, verify
from tests.support.upstreams import Recorder, respond
from tests.support.workers import WORKERS, await_workers, get

PLANTED = "hunter2"
SECRET_FIELDS = (
    f"Authorization: Bearer {PLANTED}",
    f"Cookie: session={PLANTED}; other={PLANTED}",
    f"Proxy-Authorization: Basic {base64.b64encode(f'{PLANTED}:{PLANTED}'.encode()).decode()}",
    f"X-Api-Key: {PLANTED}",
    f"Referer: http://{PLANTED}:{PLANTED}@a.example/?{PLANTED}",
    f"x-my-jwt: eyJhbGciOiJub25lIn0.eyJ4IjoiaHVudGVyMiJ9.{PLANTED}",
)
ANSWER_FIELDS = (
    ("set-cookie", f"session={PLANTED}"),
    ("location", f"/next?code={PLANTED}"),
    ("x-access-token", PLANTED),
)
BODY = f"a body, {PLANTED}".encode()
JSON = ("--log-format", "json")
FORMS = {
    "text": (),
    "verbose": ("-v",),
    "json": JSON,
    "verbose json": ("-v", *JSON),
    "json of what is recorded": ("-w", "flows", *JSON),
}
LANES = {"lane": ("--set", "jwt_fast_lane=on"), "no lane": ("--set", "jwt_fast_lane=off")}


def told(proxy: Proxy) -> list[dict[str, Any]]:
    """The lines for programs."""
    return [json.loads(line) for line in proxy.stdout.splitlines()]


def until_told(proxy: Proxy, count: int) -> list[dict[str, Any]]:
    """The lines, once there are so many."""
    deadline = time.monotonic() + 5
    while len(lines := told(proxy)) < count:
        assert time.monotonic() < deadline, proxy.output
        time.sleep(0.02)
    return lines


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=thorough)])
@pytest.mark.parametrize("lane", ["lane", pytest.param("no lane", marks=thorough)])
@pytest.mark.parametrize("form", FORMS)
def test_no_secret_is_in_any_output(
    form: str, lane: str, count: int, start_proxy: StartProxy, recorder: Recorder, h2_recorder: Recorder, proxy_ca: Path
) -> None:
    """Not of requests that succeed, some by HTTP/2, nor of those that are refused or fail."""
    proxy = start_proxy(*FORMS[form], *LANES[lane])
    recorder.default = respond(200, *ANSWER_FIELDS)
    h2_recorder.default = respond(200, *ANSWER_FIELDS, body=BODY)
    host, length = f"Host: {recorder.authority}", f"Content-Length: {len(BODY)}"
    for first, fields in ((0, SECRET_FIELDS[:2]), (count // 2, SECRET_FIELDS)):
        with Raw(proxy.port) as client:
            for number in range(first, first + count // 2):
                url = f"{recorder.url}/{number}?password={PLANTED}&{PLANTED}"
                assert client.request(message("POST", url, host, length, *fields, body=BODY)).status == 200
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        lowered = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in SECRET_FIELDS)]
        head = [*pseudo("POST", h2_recorder.authority, f"/two?{PLANTED}"), *lowered]
        assert two.reply(two.send(head, BODY)).status == 200
    for place in (f"{PLANTED}:{PLANTED}@{recorder.authority}", "[::1", "127.0.0.1:1"):
        with Raw(proxy.port) as client:
            assert client.request(message("GET", f"http://{place}/x?{PLANTED}", host, *SECRET_FIELDS)).status >= 400
    with Raw(proxy.port) as client:
        client.send(f"GET /nothing?{PLANTED} HTTP/1.1\r\n{host}\r\n{PLANTED}\r\n\r\n".encode())
        assert client.reply().status >= 400
    proxy.stop()
    assert PLANTED not in proxy.output
    assert "eyJ" not in proxy.output, "how a token begins"
    seen = {request.path: verify(request.token)["jti"] for request in (*recorder.requests, *h2_recorder.requests)}
    assert len(seen) == count + 1
    if "json" in form:
        lines = told(proxy)
        assert {line["path"]: line["jti"] for line in lines if line["status"] == 200} == seen
        assert [line["bytes_received"] for line in lines if line["status"] == 200] == [len(BODY)] * (count + 1)
        assert lane == "no lane" or "recorded" in form or "fast" in {line["lane"] for line in lines}
    else:
        assert len(re.findall(r" POST \S+/\w+\?… 200 ", proxy.stdout)) == count + 1


def test_nothing_else_is_on_standard_output(start_proxy: StartProxy, recorder: Recorder) -> None:
    """Not the start, nor own pages while all is well, nor what becomes of a reload; refusals are."""
    proxy = start_proxy(*JSON, "--workers", "2")
    with Raw(proxy.port) as client:
        assert client.request(get(f"{recorder.url}/x")).status == 200
        assert client.request(message("GET", "/status", "Host: x")).status == 200
        assert client.request(message("GET", "/nope", "Host: x")).status == 404
    with Raw(proxy.port) as client:
        own = f"127.0.0.1:{proxy.port}"
        assert client.request(message("CONNECT", own, f"Host: {own}"), "CONNECT").status == 403
    proxy.send_signal(signal.SIGHUP)
    lines = until_told(proxy, 3)
    assert [(line["method"], line["path"], line["status"], line["outcome"]) for line in lines] == [
        ("GET", "/x", 200, "2xx"),
        ("GET", "/nope", 404, "refused"),
        ("CONNECT", None, 403, "refused"),
    ]
    assert lines[1]["bytes_sent"] > 0
    assert lines[2]["reason"] == "no tunnel to the proxy itself"
    assert "listening on" in proxy.stderr


def test_a_websocket_is_one_line_with_all_that_has_passed(start_proxy: StartProxy) -> None:
    async def serve(peer: websockets.ServerConnection) -> None:
        async for text in peer:
            await peer.send(text)

    async def run(proxy: Proxy) -> None:
        async with websockets.serve(serve, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/live?{PLANTED}"
            async with websockets.connect(url, proxy=proxy.url, compression=None) as client:
                for _ in range(3):
                    await client.send("x" * 100)
                    assert await client.recv() == "x" * 100
                await asyncio.sleep(0.2)

    proxy = start_proxy(*JSON)
    asyncio.run(run(proxy))
    (line,) = until_told(proxy, 1)
    assert (line["websocket"], line["status"], line["path"], line["outcome"]) == (True, 101, "/live", "2xx")
    assert line["duration_ms"] > 200
    assert line["bytes_received"] > 300 < line["bytes_sent"]
    assert line["jti"]
    people = start_proxy()
    asyncio.run(run(people))
    people.wait_for_output(r"GET http://\S+/live\?… 101 \d+ms\n")
    assert people.stdout.count(" GET ") == 1


def test_of_all_workers_lines_the_first_of_a_day_has_the_date(start_proxy: StartProxy, recorder: Recorder) -> None:
    proxy = start_proxy("--workers", str(WORKERS))
    await_workers(proxy, WORKERS)
    for _ in range(12):  # connections, so that more than one worker has some
        with Raw(proxy.port) as client:
            assert client.request(get(f"{recorder.url}/x")).status == 200
    proxy.stop()
    lines = [line for line in proxy.stdout.splitlines() if " GET " in line]
    days = [line[:10] for line in lines if re.match(r"\d{4}-", line)]
    assert len(lines) == 12
    assert lines[0].startswith(days[0])
    assert len(days) == len(set(days)), "once for each"


@pytest.mark.parametrize("reader", ["slow", pytest.param("in no hurry", marks=thorough), "gone", "a full disk"])
def test_a_reader_of_the_log_holds_nobody_up(reader: str, recorder: Recorder, confdir: Path, tmp_path: Path) -> None:
    """A pipe holds some hundred lines; thousands of requests pass all the same, and the proxy ends well."""
    recorder.default = respond(200)
    command = [*launcher(), *JSON, "--set", f"confdir={confdir}"]
    env = clean_env(tmp_path, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    reading, writing = os.pipe()
    os.set_blocking(writing, reader != "in no hurry")  # which holds for the proxy, too
    with contextlib.ExitStack() as held, os.fdopen(reading) as log, Path("/dev/full").open("w") as full:
        stdout = full if reader == "a full disk" else writing
        proxy = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        held.enter_context(proxy)
        held.callback(proxy.kill)
        assert proxy.stderr
        found = re.search(r"listening on http://\S+:(\d+)", proxy.stderr.readline())
        assert found
        if reader == "gone":
            log.close()
        with Raw(int(found[1])) as client:
            for number in range(1500):
                assert client.request(get(f"{recorder.url}/{number}")).status == 200
        proxy.send_signal(signal.SIGTERM)
        if reader in ("slow", "in no hurry"):
            assert [json.loads(line)["path"] for line in log] == [f"/{number}" for number in range(1500)]
        assert proxy.wait(10) == 0
        said = proxy.stderr.read()
    assert "rror" not in said
    lost = [line for line in said.splitlines() if "of the log" in line]
    assert lost == ([DROPPED, NEVER] if reader == "a full disk" else [])


DROPPED = "jwtproxy: warning: lines of the log are dropped: no space left on device"
NEVER = "jwtproxy: warning: 1500 lines of the log were never written: no space left on device"
