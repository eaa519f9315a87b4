"""How the proxy ends under load: what is in flight finishes, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.balancer import Balancer
from tests.support.clients import Http2, Raw, Reply, message, pseudo
from tests.support.harness import SECRET, Process, Proxy, StartProxy, clean_env, launcher, rows, thorough
from tests.support.upstreams import Answer, Exchange, Recorder
from tests.support.verifiers import free_port
from tests.support.workers import WORKERS, Load, await_workers, children, get, slack, state_of, until

several = pytest.mark.parametrize("workers", [pytest.param(1, marks=thorough), WORKERS])
one = pytest.mark.parametrize("workers", [1, pytest.param(WORKERS, marks=thorough)])
SLOW = 8
"""Requests that are in flight when the end comes."""


def after(seconds: float, body: bytes = b"in time") -> Answer:
    """An answer whose head comes at once and whose body is complete after a while."""

    async def answer(exchange: Exchange) -> None:
        await exchange.start(200)
        await exchange.write(body[:1])
        await asyncio.sleep(seconds)
        await exchange.write(body[1:])
        await exchange.end()

    return answer


def late(seconds: float, body: bytes = b"in time") -> Answer:
    """An answer that begins after a while."""

    async def answer(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await exchange.start(200, [("content-length", str(len(body)))], framing="sized")
        await exchange.write(body)
        await exchange.end()

    return answer


def ended(proxy: Process, pids: list[int]) -> None:
    """The whole has ended well: status 0, nothing on stderr, no process left."""
    assert (proxy.wait(12), proxy.stderr) == (0, ""), proxy.output
    assert "Traceback" not in proxy.stdout
    # What the parent waited for is gone; what it did not would now belong to somebody else.
    until(lambda: not any(map(state_of, pids)), 1, f"no process of {pids} is left")


def in_flight(proxy: Process, upstream: Recorder, pool: ThreadPoolExecutor, *paths: str) -> list[Future[Reply]]:
    """SLOW requests for each path, each over its own connection, arrived upstream and not answered yet."""

    def ask(path: str) -> Reply:
        with Raw(proxy.port) as client:
            return client.request(get(f"{upstream.url}{path}"))

    before = len(upstream.requests)
    asked = [pool.submit(ask, path) for path in paths for _ in range(SLOW)]
    upstream.until(lambda: sum(seen.path in paths for seen in upstream.requests[before:]) == len(asked), 10)
    return asked


def refused(port: int) -> bool:
    """Whether nobody listens there any more."""
    try:
        with Raw(port):
            return False
    except ConnectionError:  # a reset: the listener was closed at that very moment
        return True


@several
def test_sigterm_lets_what_is_in_flight_finish(start_proxy: StartProxy, recorder: Recorder, workers: int) -> None:
    """Under load: every request that has begun is answered whole, newcomers are refused, and the status is 0."""
    recorder.route("/after", after(2))
    recorder.route("/late", late(2))
    proxy = start_proxy("--workers", str(workers))
    pids = [proxy.pid, *await_workers(proxy, workers)]
    with ThreadPoolExecutor(2 * SLOW) as pool, Raw(proxy.port) as idle, Load(proxy.port, recorder, 4) as load:
        assert idle.request(get(recorder.url)).status == 200
        asked = in_flight(proxy, recorder, pool, "/after", "/late")
        proxy.send_signal(signal.SIGTERM)
        until(lambda: refused(proxy.port), 1 * slack(), "new connections are refused")
        assert proxy.running
        assert not any(one.done() for one in asked), "the end was told while they were in flight"
        replies = [one.result() for one in asked]
        ended(proxy, pids)
        assert idle.rest() == b""
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"in time")] * 2 * SLOW
    assert load.codes <= {200}
    # A head that was sent before the signal could not say so; one after it does.
    assert all(reply.values("connection") == ["close"] for reply in replies[SLOW:])


def test_what_a_script_has_written_is_in_its_file(start_proxy: StartProxy, recorder: Recorder, tmp_path: Path) -> None:
    """Though it closes none: its own addon, and its module, go when all else does."""
    script = tmp_path / "writes.py"
    script.write_text(
        "class Writes:\n    def __init__(self):\n        self.file = open('addon.txt', 'w')\n"
        "    def request(self, flow):\n        self.file.write('seen'); module.write('seen')\n"
        "module = open('module.txt', 'w')\naddons = [Writes()]\n"
    )
    proxy = start_proxy("-s", str(script), cwd=tmp_path)
    with Raw(proxy.port) as client:
        assert client.request(get(recorder.url)).status == 200
    proxy.send_signal(signal.SIGINT)
    assert proxy.wait(12) == 0
    assert [(tmp_path / name).read_text() for name in ("addon.txt", "module.txt")] == ["seen", "seen"]


@several
def test_who_waits_too_long_is_cut(start_proxy: StartProxy, recorder: Recorder, workers: int) -> None:
    """After --grace seconds, whatever is still in flight."""
    recorder.route("/after", after(30))
    recorder.route("/late", late(30))
    proxy = start_proxy("--workers", str(workers), "--grace", "0.3")
    pids = [proxy.pid, *await_workers(proxy, workers)]
    with ThreadPoolExecutor(2 * SLOW) as pool:
        asked = in_flight(proxy, recorder, pool, "/after", "/late")
        began = time.monotonic()
        proxy.send_signal(signal.SIGTERM)
        ended(proxy, pids)
        assert 0.3 <= time.monotonic() - began < 1.5 * slack()
        for one in asked[:SLOW]:
            with pytest.raises((EOFError, ConnectionError)):
                one.result(5)
        for one in asked[SLOW:]:
            with contextlib.suppress(EOFError, ConnectionError):
                assert one.result(5).status == 502


@pytest.mark.parametrize(("ends", "lane"), [(signal.SIGTERM, "on"), (signal.SIGINT, "off")])
def test_what_is_cut_has_its_line(ends: signal.Signals, lane: str, start_proxy: StartProxy, recorder: Recorder) -> None:
    """And is counted: a request that was under way when the proxy has ended is nobody's loss but its client's."""
    recorder.route("/begun", after(60))
    recorder.route("/silent", late(60))
    options = ("--log-format", "json", "--grace", "0.2", "--workers", str(WORKERS), "--set", f"jwt_fast_lane={lane}")
    proxy = start_proxy(*options)
    with ThreadPoolExecutor(2 * SLOW) as pool:
        in_flight(proxy, recorder, pool, "/begun", "/silent")
        proxy.send_signal(ends)
        assert proxy.wait(12) == 0
    told = sorted(
        (line["path"], line["status"], line["outcome"]) for line in map(json.loads, proxy.stdout.splitlines())
    )
    assert told == [("/begun", 200, "aborted")] * SLOW + [("/silent", None, "aborted")] * SLOW


@several
def test_sigint_ends_at_once(start_proxy: StartProxy, recorder: Recorder, workers: int) -> None:
    """Under load, with requests in flight."""
    recorder.route("/late", late(30))
    proxy = start_proxy("--workers", str(workers))
    pids = [proxy.pid, *await_workers(proxy, workers)]
    with ThreadPoolExecutor(SLOW) as pool, Load(proxy.port, recorder, 4):
        in_flight(proxy, recorder, pool, "/late")
        began = time.monotonic()
        proxy.send_signal(signal.SIGINT)
        ended(proxy, pids)
        assert time.monotonic() - began < 1.5 * slack()


@pytest.mark.parametrize("second", rows({"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}, "SIGTERM"))
def test_a_second_signal_ends_the_wait(start_proxy: StartProxy, recorder: Recorder, second: signal.Signals) -> None:
    """Whoever told it to end and then tells it again has no patience."""
    recorder.route("/late", late(30))
    proxy = start_proxy("--workers", str(WORKERS))
    pids = [proxy.pid, *await_workers(proxy, WORKERS)]
    with ThreadPoolExecutor(SLOW) as pool:
        in_flight(proxy, recorder, pool, "/late")
        proxy.send_signal(signal.SIGTERM)
        until(lambda: refused(proxy.port), 1 * slack(), "it has begun to end")
        began = time.monotonic()
        proxy.send_signal(second)
        ended(proxy, pids)
        assert time.monotonic() - began < 1.5 * slack()


def test_an_impatient_user_may_send_signals_until_it_is_over(start_proxy: StartProxy) -> None:
    """More of them change nothing, whichever they are."""
    proxy = start_proxy("--workers", str(WORKERS))
    pids = [proxy.pid, *await_workers(proxy, WORKERS)]
    numbers = [signal.SIGINT, signal.SIGTERM] * 200
    while proxy.running and numbers:
        proxy.send_signal(numbers.pop())
        time.sleep(0.01)
    ended(proxy, pids)


@pytest.mark.parametrize(
    ("workers", "times"), [pytest.param(1, 3, marks=thorough), pytest.param(WORKERS, 1, marks=thorough), (WORKERS, 3)]
)
def test_ctrl_c_ends_the_whole_group(
    tmp_path: Path, confdir: Path, recorder: Recorder, workers: int, times: int
) -> None:
    """A terminal tells every process of the group, at once; and people press it more than once."""
    recorder.route("/late", late(30))
    command = [*launcher(), "--workers", str(workers), "--set", f"confdir={confdir}"]
    env = clean_env(tmp_path, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    # setsid makes it the leader of a group of its own, under the same process id.
    with Process(["setsid", *command], env=env, cwd=tmp_path, ready=Proxy.READY) as proxy:
        pids = [proxy.pid, *await_workers(proxy, workers)]
        with ThreadPoolExecutor(SLOW) as pool, Load(proxy.port, recorder, 2):
            in_flight(proxy, recorder, pool, "/late")
            began = time.monotonic()
            for _ in range(times):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(proxy.pid, signal.SIGINT)
                time.sleep(0.03)
            ended(proxy, pids)
            assert time.monotonic() - began < 1.5 * slack()


STARTS = {
    f"{number.name}-{delay}": (delay, number)
    for number in (signal.SIGTERM, signal.SIGINT)
    for delay in (0.0, 0.02, 0.1)
}


@pytest.mark.parametrize(("delay", "number"), rows(STARTS, "SIGTERM-0.0"))
def test_a_signal_while_workers_start_ends_the_start(
    start_proxy: StartProxy, delay: float, number: signal.Signals
) -> None:
    """At any moment from the first fork on, promptly: not by waiting until a deaf worker is killed."""
    proxy = start_proxy("--workers", str(WORKERS), wait=False, fresh=True)
    until(lambda: children(proxy.pid), 15, "the first worker is forked")
    time.sleep(delay)
    began, pids = time.monotonic(), proxy.pids()
    proxy.send_signal(number)
    ended(proxy, pids)
    assert time.monotonic() - began < 2 * slack()


@one
def test_a_kept_alive_client_is_told_to_go(
    start_proxy: StartProxy, https_recorder: Recorder, proxy_ca: Path, workers: int
) -> None:
    """By `Connection: close` in the answer that it still gets, also inside a tunnel."""
    https_recorder.route("/hold", late(1.5))
    proxy = start_proxy("--workers", str(workers))
    with contextlib.ExitStack() as open_ones:
        kept = [open_ones.enter_context(Raw(proxy.port)) for _ in range(6)]
        for client in kept:
            client.secure_tunnel(https_recorder.authority, proxy_ca, "http/1.1")
            reply = client.request(message("GET", "/", f"Host: {https_recorder.authority}"))
            assert (reply.status, reply.values("connection")) == (200, [])
        for client in kept:
            client.send(_inner("/hold", https_recorder))
        https_recorder.wait_head(12)
        proxy.send_signal(signal.SIGTERM)
        until(lambda: refused(proxy.port), 1 * slack(), "it has begun to end")
        replies = [client.reply() for client in kept]
        assert [(reply.status, reply.values("connection")) for reply in replies] == [(200, ["close"])] * 6
        assert all(client.rest() == b"" for client in kept)
        assert (proxy.wait(), proxy.stderr) == (0, "")


def test_what_is_asked_meanwhile_is_answered(start_proxy: StartProxy, recorder: Recorder) -> None:
    """A client that kept its connection may ask as long as others are waited for; it is told to go, too."""
    recorder.route("/hold", late(1))
    proxy = start_proxy()
    with Raw(proxy.port) as holder, Raw(proxy.port) as other:
        assert other.request(get(recorder.url)).values("connection") == []
        holder.send(get(f"{recorder.url}/hold"))
        recorder.wait_head(2)
        proxy.send_signal(signal.SIGTERM)
        until(lambda: refused(proxy.port), 1 * slack(), "it has begun to end")
        reply = other.request(get(recorder.url))
        assert (reply.status, reply.values("connection"), other.rest()) == (200, ["close"], b"")
        assert holder.reply().body == b"in time"
    assert (proxy.wait(), proxy.stderr) == (0, "")


def _inner(path: str, upstream: Recorder) -> bytes:
    return message("GET", path, f"Host: {upstream.authority}")


COUNTS = """
import asyncio

async def watch():
    told = None
    while True:
        if told != (told := asyncio.get_running_loop().acceptor.crowd.size):
            print(f"connections: {told}", flush=True)
        await asyncio.sleep(0.01)

def running():
    global task
    task = asyncio.create_task(watch())
"""
"""A script that tells how many connections count; a client cannot find out, as none is accepted any more."""


@pytest.mark.parametrize("lane", ["on", pytest.param("off", marks=thorough)])
def test_connections_are_released_meanwhile(
    start_proxy: StartProxy, recorder: Recorder, https_recorder: Recorder, proxy_ca: Path, tmp_path: Path, lane: str
) -> None:
    """Each that has had its answer, in a tunnel or not, counts no more while others are waited for."""
    for upstream in (recorder, https_recorder):
        upstream.route("/hold", late(0.7))
    recorder.route("/long", late(2.2))
    (tmp_path / "counts.py").write_text(COUNTS)
    proxy = start_proxy("-s", str(tmp_path / "counts.py"), env={"JWT_FAST_LANE": lane, "WORKERS": "1"})

    def count() -> int:
        return int(re.findall(r"connections: (\d+)", proxy.stdout)[-1])

    with contextlib.ExitStack() as stack:
        last, idle, plain, tunnel = (stack.enter_context(Raw(proxy.port)) for _ in range(4))
        tunnel.secure_tunnel(https_recorder.authority, proxy_ca, "http/1.1")
        assert idle.request(get(recorder.url)).status == 200
        for client, request in (
            (last, get(f"{recorder.url}/long")),
            (plain, get(f"{recorder.url}/hold")),
            (tunnel, _inner("/hold", https_recorder)),
        ):
            client.send(request)
        recorder.wait_head(3)
        https_recorder.wait_head(1)
        until(lambda: count() == 4, 5, "all of them count")
        proxy.send_signal(signal.SIGTERM)
        until(lambda: refused(proxy.port), 1 * slack(), "it has begun to end")
        assert [client.reply().values("connection") for client in (plain, tunnel)] == [["close"]] * 2
        until(lambda: count() == 2, 2 * slack(), "those that were answered count no more")
        assert proxy.running
        assert (last.reply().body, last.rest(), idle.rest()) == (b"in time", b"", b"")
    assert (proxy.wait(), proxy.stderr) == (0, "")


def test_http2_streams_in_flight_finish(start_proxy: StartProxy, h2_recorder: Recorder, proxy_ca: Path) -> None:
    """All of a connection; its answers carry no field of HTTP/1.1."""
    h2_recorder.route("/late", late(1))
    proxy = start_proxy("--workers", str(WORKERS))
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        streams = [two.send(pseudo("GET", h2_recorder.authority, "/late")) for _ in range(3)]
        h2_recorder.wait(3)
        proxy.send_signal(signal.SIGTERM)
        replies = [two.reply(stream) for stream in streams]
    assert [(reply.status, reply.body, reply.values("connection")) for reply in replies] == [(200, b"in time", [])] * 3
    assert (proxy.wait(), proxy.stderr) == (0, "")


def test_uploads_in_flight_finish(start_proxy: StartProxy, recorder: Recorder) -> None:
    """A client that is still sending when the end is told arrives whole."""
    size = 3 << 20
    proxy = start_proxy("--workers", str(WORKERS))
    with Raw(proxy.port) as client:
        head = ("PUT", f"{recorder.url}/up", f"Host: {recorder.authority}", f"Content-Length: {size}")
        client.send(message(*head, body=bytes(1 << 20)))
        recorder.until(lambda: any(seen.size for seen in recorder.requests))
        proxy.send_signal(signal.SIGTERM)
        until(lambda: refused(proxy.port), 1 * slack(), "it has begun to end")
        for _ in range(2):
            client.send(bytes(1 << 20))
            time.sleep(0.1)
        assert client.reply().status == 200
    assert recorder.only().size == size
    assert (proxy.wait(), proxy.stderr) == (0, "")


@several
def test_nothing_in_flight_is_no_reason_to_wait(start_proxy: StartProxy, recorder: Recorder, workers: int) -> None:
    """Idle connections and finished requests do not hold up the end, though the grace is long."""
    proxy = start_proxy("--workers", str(workers), "--grace", "60")
    pids = [proxy.pid, *await_workers(proxy, workers)]
    with Raw(proxy.port) as client:
        assert client.request(get(recorder.url)).status == 200
        began = time.monotonic()
        proxy.send_signal(signal.SIGTERM)
        ended(proxy, pids)
        assert time.monotonic() - began < 1.5 * slack()


# --- behind a balancer


@several
def test_before_the_drain_all_is_served_and_only_probes_are_told(
    start_proxy: StartProxy, recorder: Recorder, workers: int
) -> None:
    """For --drain-delay seconds, which may be more than the whole grace: who starts workers waits for both.

    In their second half clients that keep connections are told to go: at the end they would lose what they just ask.
    """
    refuses = threading.Event()

    async def answer(exchange: Exchange) -> None:
        while not refuses.is_set():
            await asyncio.sleep(0.01)
        await exchange.start(200)
        await exchange.end()

    recorder.route("/late", answer)
    proxy = start_proxy("--workers", str(workers), "--drain-delay", "2.5", "--grace", "1")
    pids = [proxy.pid, *await_workers(proxy, workers)]
    with Raw(proxy.port) as kept, ThreadPoolExecutor(SLOW) as pool:
        assert kept.request(get(recorder.url)).status == 200
        assert ask(proxy.port, "/readyz") == (200, b"ok\n")
        began = time.monotonic()
        proxy.send_signal(signal.SIGTERM)
        until(lambda: {ask(proxy.port, "/readyz")[0] for _ in range(8)} == {503}, 1 * slack(), "every worker knows")
        assert ask(proxy.port, "/readyz") == (503, b"jwtproxy: not ready: draining\n")
        assert ask(proxy.port, "/livez") == (200, b"ok\n")
        asked = in_flight(proxy, recorder, pool, "/late")
        while time.monotonic() < began + 0.8:
            replies = kept.request(get(recorder.url)), kept.request(get(recorder.url))
            assert [(reply.status, reply.values("connection")) for reply in replies] == [(200, [])] * 2
            assert ask(proxy.port, recorder.url) == (200, b"ok")
            time.sleep(0.05)
        while kept.request(get(recorder.url)).values("connection") != ["close"]:
            assert time.monotonic() < began + 2.4 * slack()
        assert time.monotonic() - began > 1.2
        assert ask(proxy.port, recorder.url) == (200, b"ok"), "others are still accepted"
        until(lambda: refused(proxy.port), 2 * slack(), "new connections are refused")
        refuses.set()
        assert time.monotonic() - began > 2.4
        ended(proxy, pids)
        assert [one.result().status for one in asked] == [200] * SLOW


def ask(port: int, target: str) -> tuple[int, bytes]:
    """What is answered on a connection of its own."""
    with Raw(port) as client:
        reply = client.request(message("GET", target, f"Host: {target.split('/')[2] if '//' in target else 'x'}"))
        return reply.status, reply.body


def test_the_probe_asks_as_it_is_told(start_proxy: StartProxy, tmp_path: Path) -> None:
    """It finds the proxy by the settings that the proxy was started with."""
    port = free_port()
    settings = {"JWT_PAGES": f"127.0.0.1:{port}"}

    def probe(*flags: str) -> tuple[int, str]:
        program = Path(sys.executable).with_name("jwtproxy-health")
        done = subprocess.run(
            [program, *flags], env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    assert probe() == (1, "jwtproxy: error: no answer: connection refused\n")
    proxy = start_proxy("--drain-delay", "60", env=settings)
    assert [probe(), probe("--live")] == [(0, "")] * 2
    proxy.send_signal(signal.SIGTERM)
    until(lambda: probe()[0] == 1, 2 * slack(), "it is no longer ready")
    assert [probe(), probe("--live")] == [(1, "jwtproxy: error: not ready: draining\n"), (0, "")]
    proxy.send_signal(signal.SIGINT)
    ended(proxy, [proxy.pid])


def test_a_second_signal_ends_that_wait_too(start_proxy: StartProxy) -> None:
    proxy = start_proxy("--workers", str(WORKERS), "--drain-delay", "60")
    pids = [proxy.pid, *await_workers(proxy, WORKERS)]
    proxy.send_signal(signal.SIGTERM)
    until(lambda: ask(proxy.port, "/readyz")[0] == 503, 1 * slack(), "it has begun to end")
    began = time.monotonic()
    proxy.send_signal(signal.SIGTERM)
    ended(proxy, pids)
    assert time.monotonic() - began < 1.5 * slack()


@pytest.mark.parametrize("kept", [True, pytest.param(False, marks=thorough)])
def test_a_rollout_loses_no_request(start_proxy: StartProxy, recorder: Recorder, kept: bool) -> None:
    """As in Kubernetes: the next one is started, and has to be ready; then the one before is told to end.

    Clients make a connection for each request, or keep theirs, and try nothing twice.
    """
    stop, lost = threading.Event(), list[object]()
    answered = itertools.count()

    def load(port: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not stop.wait(0.02):
            try:
                client.request("GET", recorder.url)
                with client.getresponse() as reply:
                    said: object = reply.status, reply.read()
            except (OSError, http.client.HTTPException) as error:
                said = error
            if said == (200, b"ok"):
                next(answered)
            else:
                lost.append(said)
            if not kept or said != (200, b"ok"):
                client.close()
        client.close()

    with Balancer() as balancer, ThreadPoolExecutor(4) as pool:
        flags = "--workers", "2", "--drain-delay", "1.5"
        proxy = start_proxy(*flags)
        balancer.backends = (proxy.port,)
        until(lambda: balancer.ready == (proxy.port,), 5, "the first is ready")
        for _ in range(4):
            pool.submit(load, balancer.port)
        for _ in range(2):
            before, proxy = proxy, start_proxy(*flags)
            balancer.backends = before.port, proxy.port
            until(lambda: proxy.port in balancer.ready, 5, "the next is ready")  # noqa: B023  # asked at once
            before.send_signal(signal.SIGTERM)
            assert (before.wait(12), before.stderr) == (0, "")
            balancer.backends = (proxy.port,)
        stop.set()
    assert lost == []
    assert next(answered) > 50
