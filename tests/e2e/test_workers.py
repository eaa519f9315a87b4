"""Several workers behave as one proxy, and the whole outlives any of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.asyncio.server

from tests.support.clients import Http2, Raw, message, pseudo
from tests.support.harness import (
    SECRET,
    Process,
    Proxy,
    StartProxy,
    clean_env,
    launcher,
    run_launcher,
    thorough,
    verify,
)
from tests.support.upstreams import Authority, Recorder, download
from tests.support.workers import (
    WORKERS,
    Load,
    await_workers,
    children,
    get,
    server_of,
    slack,
    sockets_of,
    state_of,
    status,
    until,
    zombies,
)

# --- the core promises, whichever number of workers keeps them


@pytest.fixture(scope="module", params=[pytest.param(1, marks=thorough), WORKERS])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority
) -> Iterator[Proxy]:
    """A proxy of so many workers; at the end it must stop cleanly and have complained about nothing.

    Of one worker, other files show the same in every run.
    """
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    count = ("--workers", str(request.param))
    with Proxy(*count, "--set", trust, cwd=tmp_path_factory.mktemp("served"), confdir=confdir) as process:
        await_workers(process, request.param)
        yield process
        assert process.stop() == 0
        assert (process.stderr, "Traceback" in process.stdout) == ("", False), process.output


FRESH = 8
"""Connections to ask the same over, so that more than one worker is asked."""


def test_every_request_of_every_connection_has_a_token_of_its_own(served: Proxy, recorder: Recorder) -> None:
    """Also no two workers give the same `jti`, though they were one process once."""
    for _ in range(FRESH):
        with Raw(served.port) as client:
            for _ in range(4):
                assert client.request(get(recorder.url, "X-My-Jwt: forged")).status == 200
    claims = [verify(seen.token) for seen in recorder.wait(4 * FRESH)]
    assert len({claim["jti"] for claim in claims}) == 4 * FRESH
    assert {frozenset(claim) for claim in claims} == {frozenset(("iat", "jti", "payload"))}


def test_tunnels_are_signed(served: Proxy, https_recorder: Recorder, h2_recorder: Recorder, proxy_ca: Path) -> None:
    """HTTP/1.1 and HTTP/2 inside CONNECT, which itself carries no token."""
    for _ in range(2):
        with Raw(served.port) as client:
            client.secure_tunnel(https_recorder.authority, proxy_ca, "http/1.1")
            for _ in range(2):
                assert client.request(message("GET", "/", f"Host: {https_recorder.authority}")).status == 200
        with Raw(served.port) as client:
            two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
            for _ in range(2):
                assert two.reply(two.send(pseudo("GET", h2_recorder.authority, "/"))).status == 200
    seen = https_recorder.wait(4) + h2_recorder.wait(4)
    assert len({verify(one.token)["jti"] for one in seen}) == 8
    assert {one.version for one in seen} == {"1.1", "2"}


def test_bodies_are_streamed_and_signed(served: Proxy, recorder: Recorder) -> None:
    """Long ones and such of unknown length, there and back."""
    size = 4 << 20
    recorder.route("/down", download(size))
    recorder.route("/chunked", download(size, sized=False))
    for _ in range(2):
        with Raw(served.port) as client:
            lines = (f"Host: {recorder.authority}", f"Content-Length: {size}")
            assert client.request(message("PUT", f"{recorder.url}/up", *lines, body=bytes(size))).status == 200
            client.send(message("POST", f"{recorder.url}/up", lines[0], "Transfer-Encoding: chunked"))
            for _ in range(4):
                client.send(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
            client.send(b"0\r\n\r\n")
            assert client.reply().status == 200
            for path in ("/down", "/chunked"):
                assert len(client.request(get(f"{recorder.url}{path}")).body) == size
    seen = recorder.wait(8)
    assert [one.size for one in seen] == [size, size, 0, 0] * 2
    assert all(verify(one.token) for one in seen)


def test_a_websocket_is_signed_and_works(served: Proxy) -> None:
    """The handshake carries the token; messages go both ways."""
    tokens: list[str] = []

    async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
        assert connection.request
        tokens.append(connection.request.headers["x-my-jwt"])
        async for text in connection:
            await connection.send(text)

    async def run() -> None:
        async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            for text in ("one", "two"):
                address = f"ws://127.0.0.1:{port}/"
                async with websockets.asyncio.client.connect(address, proxy=served.url) as client:
                    await client.send(text)
                    assert await client.recv() == text

    asyncio.run(run())
    assert len({verify(token)["jti"] for token in tokens}) == 2


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (message("GET", "/nothing-here", "Host: x"), 404),
        (message("DELETE", "/status", "Host: x"), 405),
        (message("GET", "http://127.0.0.1:9/", "Host: 127.0.0.1:9"), 502),
        (message("GET", "http://127.0.0.1:PORT/elsewhere", "Host: x"), 404),
        (message("CONNECT", "127.0.0.1:PORT", "Host: x"), 403),
        (message("GET", "http://no-such-name.invalid/", "Host: x"), 502),
    ],
)
def test_what_is_refused_is_refused_by_every_worker(served: Proxy, request_bytes: bytes, code: int) -> None:
    """Own pages, own address, unreachable upstreams: always the same answer."""
    codes = set()
    for _ in range(FRESH):
        with Raw(served.port) as client:
            codes.add(client.request(request_bytes.replace(b"PORT", str(served.port).encode())).status)
    assert codes == {code}


def test_the_status_page_is_the_same_whoever_answers(served: Proxy, recorder: Recorder) -> None:
    """One start, one count, in JSON and in HTML."""
    before = status(served.port)
    for done in range(1, FRESH + 1):
        with Raw(served.port) as client:
            client.request(get(recorder.url))
        now = status(served.port)
        assert now["proxied_requests"] == before["proxied_requests"] + done
        assert (now["started_at"], now["version"]) == (before["started_at"], before["version"])
        assert now["uptime_seconds"] >= before["uptime_seconds"]
    with Raw(served.port) as client:
        page = client.request(message("GET", "/status", "Host: x", "Accept: text/html"))
    assert page.values("content-type")[0].startswith("text/html")
    assert before["started_at"].encode() in page.body


@pytest.mark.parametrize("workers", [pytest.param(1, marks=thorough), WORKERS])
def test_who_has_no_password_is_not_served(start_proxy: StartProxy, recorder: Recorder, workers: int) -> None:
    """By no worker; who has one is, and its header stays here; the status page is open and does not count the rest."""
    proxy = start_proxy("--proxyauth", "user:pass", "--workers", str(workers))
    for _ in range(FRESH):
        with Raw(proxy.port) as client:
            assert client.request(get(recorder.url)).status == 407
        with Raw(proxy.port) as client:
            assert client.request(get(recorder.url, "Proxy-Authorization: Basic dXNlcjpwYXNz")).status == 200
    seen = recorder.wait(FRESH)
    assert len(seen) == FRESH
    assert all(verify(one.token) and not one.values("proxy-authorization") for one in seen)
    assert status(proxy.port)["proxied_requests"] == FRESH


@pytest.mark.parametrize(
    ("mode", "target"), [("reverse:{url}", "/"), pytest.param("upstream:{url}", "{url}/", marks=thorough)]
)
def test_other_modes_are_served_by_several_workers(
    start_proxy: StartProxy, recorder: Recorder, mode: str, target: str
) -> None:
    """All that listen on TCP."""
    proxy = start_proxy("--workers", str(WORKERS), "--mode", mode.format(url=recorder.url))
    await_workers(proxy, WORKERS)
    for _ in range(FRESH):
        with Raw(proxy.port) as client:
            assert client.request(message("GET", target.format(url=recorder.url), "Host: x")).status == 200
    assert len({verify(seen.token)["jti"] for seen in recorder.wait(FRESH)}) == FRESH


# --- load


@pytest.mark.parametrize("times", [60, pytest.param(1000, marks=thorough)])
def test_the_status_page_never_steps_back(start_proxy: StartProxy, recorder: Recorder, times: int) -> None:
    """Asked again and again over fresh connections during load, and exact afterwards."""
    proxy = start_proxy("--workers", str(WORKERS))
    with Load(proxy.port, recorder, 4, pause=0.005) as load:
        pages = [status(proxy.port) for _ in range(times)]
    counts = [page["proxied_requests"] for page in pages]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    uptimes = [page["uptime_seconds"] for page in pages]
    assert uptimes == sorted(uptimes)
    assert len({page["started_at"] for page in pages}) == 1
    assert (load.broken, load.codes) == ([], {200})
    assert status(proxy.port)["proxied_requests"] == load.answered == len(recorder.requests)


def test_a_killed_worker_is_replaced_and_nobody_else_notices(start_proxy: StartProxy, recorder: Recorder) -> None:
    """Each in turn, under load: within two seconds, without a zombie, and what it counted stays counted."""
    proxy = start_proxy("--workers", str(WORKERS))
    first = await_workers(proxy, WORKERS)
    with Load(proxy.port, recorder, 6, first) as load:
        load.workers = lambda: children(proxy.pid)
        began, counts = status(proxy.port)["started_at"], [0]
        for victim in first:
            known = set(children(proxy.pid))
            os.kill(victim, signal.SIGKILL)
            until(lambda known=known: set(children(proxy.pid)) - known, 2 * slack(), "a new worker")  # type: ignore[misc]
            until(lambda: len(children(proxy.pid)) == WORKERS and not zombies(proxy.pid), 2 * slack(), "all workers")
            (new,) = set(children(proxy.pid)) - known
            until(lambda new=new: _accepts(proxy.port, new), 2 * slack(), "the new worker serves")  # type: ignore[misc]
            page = status(proxy.port)
            counts.append(page["proxied_requests"])
            assert page["started_at"] == began
            assert set(load.broken) - {0} <= set(first[: first.index(victim) + 1]), "only its own clients may notice"
    assert counts == sorted(counts)
    assert load.codes == {200}
    assert set(load.broken) - {0} == set(first)
    assert load.broken.count(0) <= 2, "accepted by one that was killed at that moment"
    # Whoever was killed between counting a request and sending it has counted one more than arrived.
    arrived = len(recorder.requests)
    assert arrived <= status(proxy.port)["proxied_requests"] <= arrived + len(load.broken)
    assert load.answered <= arrived
    assert proxy.stop() == 0
    lines = proxy.stderr.splitlines()
    assert len(lines) == WORKERS, proxy.output
    assert all(re.fullmatch(r"jwtproxy: error: worker \(pid:\d+\) was sent SIGKILL!.*", line) for line in lines), lines


def _accepts(port: int, worker: int) -> bool:
    with contextlib.suppress(OSError, EOFError), Raw(port) as client:
        client.request(message("GET", "/status", "Host: x"))
        return server_of(client, [worker]) == worker
    return False


def test_nothing_survives_the_parent(start_proxy: StartProxy, recorder: Recorder) -> None:
    """After `kill -9` of it, under load, nothing runs or listens any more; the port can be used again at once."""
    proxy = start_proxy("--workers", str(WORKERS))
    pids = [proxy.pid, *await_workers(proxy, WORKERS)]
    with Load(proxy.port, recorder, 4):
        proxy.send_signal(signal.SIGKILL)
        until(lambda: all(state_of(pid) in ("Z", "") for pid in pids), 5 * slack(), f"the end of {pids}")
        proxy.wait(5)
        with pytest.raises(ConnectionRefusedError):
            Raw(proxy.port)
    start_proxy("--port", str(proxy.port), env={"HTTP_PORT": None})


_IMPATIENT = """
import sys
from jwtproxy.launcher import cli
from jwtproxy.launcher.processes import supervisor
supervisor._HUNG_AFTER = 3
sys.argv[0] = "jwtproxy-run"
cli.main()
"""


def test_a_hung_worker_is_replaced(tmp_path: Path, confdir: Path, recorder: Recorder) -> None:
    """One that stands still is killed; the others go on. (Here after 3 s without a heartbeat: 10 are long to wait.)"""
    command = [sys.executable, "-OPc", _IMPATIENT, "--workers", str(WORKERS), "--set", f"confdir={confdir}"]
    env = clean_env(tmp_path, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    with Process(command, env=env, cwd=tmp_path, ready=Proxy.READY) as proxy:
        first = await_workers(proxy, WORKERS)
        hung = first[1]
        with Load(proxy.port, recorder, 3, first) as load:
            os.kill(hung, signal.SIGSTOP)
            until(lambda: hung not in children(proxy.pid), 3 + 3 * slack(), "the end of the hung worker")
            until(lambda: len(children(proxy.pid)) == WORKERS, 2 * slack(), "its replacement")
            assert set(first) & set(children(proxy.pid)) == set(first) - {hung}
        assert set(load.broken) <= {hung}
        assert proxy.stop() == 0
        assert "Traceback" not in proxy.output


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("def broken(", "error in script mine.py", marks=thorough),
        ("def running(): raise ValueError('no luck')", "no luck"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_whole(tmp_path: Path, confdir: Path, script: str, said: str) -> None:
    """Its error is said, and nothing else but the same of its likes; the exit status is that of one worker: 2."""
    (tmp_path / "mine.py").write_text(script)
    where = ("--set", f"confdir={confdir}", "-s", "mine.py")
    one, several = _run_both([(*where, "--workers", "1"), (*where, "--workers", str(WORKERS))], tmp_path)
    assert (one.returncode, several.returncode) == (2, 2), several.stderr
    assert said in one.stderr
    assert set(several.stderr.splitlines()) == set(one.stderr.splitlines())


def _run_both(runs: Sequence[Sequence[str]], cwd: Path) -> list[Any]:
    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(lambda args: run_launcher(*args, cwd=cwd), runs))


# --- what several workers cannot do


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("-w flows", "-w"),
        pytest.param("--set hardump=x.har", "hardump", marks=thorough),
        pytest.param("--set stickycookie=.", "stickycookie", marks=thorough),
        ("--mode regular --mode reverse:udp://127.0.0.1:9", "mode reverse:udp"),
    ],
)
def test_what_needs_one_process_refuses_an_explicit_number(tmp_path: Path, flags: str, named: str) -> None:
    """With status 2 and one error that names the reason."""
    done = run_launcher(*flags.split(), cwd=tmp_path, env={"WORKERS": "2"})
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"jwtproxy: error: 2 workers cannot be used: {named}")
    assert hint == "jwtproxy: hint: use one worker: WORKERS=1 or --workers 1"


@pytest.mark.parametrize("args", ["--check", "--workers 2"])
def test_who_does_not_serve_leaves_recorded_flows_alone(tmp_path: Path, args: str) -> None:
    """A refused start, or a check, must not cost what an earlier run has recorded."""
    (tmp_path / "flows").write_text("precious")
    assert run_launcher("-w", "flows", *args.split(), cwd=tmp_path).returncode == (0 if args == "--check" else 2)
    assert (tmp_path / "flows").read_text() == "precious"


def test_auto_gives_way_to_what_needs_one_process_and_says_so(start_proxy: StartProxy, tmp_path: Path) -> None:
    """In one line, and there is no manager process then."""
    proxy = start_proxy("-w", str(tmp_path / "flows"), env={"WORKERS": "auto"})
    assert proxy.stdout.startswith("jwtproxy: one worker, as -w keeps its records in one process\n")
    assert children(proxy.pid) == []
    assert "one worker" not in start_proxy("-w", str(tmp_path / "other"), env={"WORKERS": "1"}).stdout


@pytest.mark.parametrize("workers", [pytest.param(1, marks=thorough), 2])
def test_one_port_is_announced_and_no_other_is_open(start_proxy: StartProxy, workers: int) -> None:
    """Also where a mode names the port, and leaves it to the system which one that is."""
    proxy = start_proxy("--mode", "regular@0", "--workers", str(workers))
    await_workers(proxy, workers)
    time.sleep(0.3)  # whoever wants to listen on another has had the time to
    assert proxy.stdout.count("listening on") == 1
    assert _listening(proxy) == {proxy.port}, proxy.output
    with Raw(proxy.port) as client:
        assert client.request(message("GET", "/status", "Host: x")).status == 200


def _listening(proxy: Process) -> set[int]:
    """The ports on which any process of the proxy listens."""
    inodes = {inode for pid in proxy.pids() for inode in sockets_of(pid)}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {int(parts[1].rpartition(":")[2], 16) for parts in lines if parts[3] == "0A" and parts[9] in inodes}


def test_auto_is_a_worker_for_each_core(tmp_path: Path, confdir: Path) -> None:
    """Of those that this process may use; and all of them run optimised, as below."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    command = [*launcher(), "--workers", "auto", "--set", f"confdir={confdir}"]
    env = clean_env(tmp_path, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    chosen = ["taskset", "-c", ",".join(map(str, cores))]
    with Process([*chosen, *command], env=env, cwd=tmp_path, ready=Proxy.READY) as proxy:
        await_workers(proxy, len(cores))
        assert [_is_optimised(pid) for pid in proxy.pids()] == [True] * (len(cores) + (len(cores) > 1))


@pytest.mark.parametrize(
    ("args", "variable", "said"),
    [
        pytest.param((), "0", "bad value '0' for WORKERS", marks=thorough),
        (("--workers", ""), "2", "bad value '' for --workers"),
    ],
)
def test_a_bad_number_of_workers_is_one_error(
    tmp_path: Path, args: tuple[str, ...], variable: str | None, said: str
) -> None:
    """That quotes the value, names where it was found, and what to say instead."""
    done = run_launcher(*args, "--check", cwd=tmp_path, env={"WORKERS": variable})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"jwtproxy: error: {said}\njwtproxy: hint: use a number from 1 to 512, or auto\n"


def test_the_flag_wins_over_the_variable(start_proxy: StartProxy) -> None:
    """Whatever that says."""
    await_workers(start_proxy("--workers", "2", env={"WORKERS": "nonsense"}), 2)


# --- python -O


def _is_optimised(pid: int) -> bool:
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    options = "".join(one for one in arguments[1 : arguments.index("-m")] if one.startswith("-"))
    return "O" in options


@thorough
@pytest.mark.parametrize("workers", [1, WORKERS])
def test_workers_run_optimised(start_proxy: StartProxy, workers: int) -> None:
    """Each of them, also where there is only one; the command line that users see is otherwise what they typed."""
    proxy = start_proxy("--workers", str(workers), fresh=True)
    await_workers(proxy, workers)
    assert [_is_optimised(pid) for pid in proxy.pids()] == [True] * len(proxy.pids())


_PRINTS = """
import sys, logging
def running():
    try:
        assert False, "as asserts do"
    except AssertionError:
        logging.warning("optimize=%s, asserts work", sys.flags.optimize)
"""


@pytest.mark.parametrize(
    ("by", "workers"),
    [
        pytest.param("-s", WORKERS, marks=thorough),
        pytest.param("--scripts", 1, marks=thorough),
        pytest.param("--set", 1, marks=thorough),
        pytest.param("abbreviation", 1, marks=thorough),
        ("config.yaml", WORKERS),
    ],
)
def test_with_a_script_asserts_work(tmp_path: Path, confdir: Path, by: str, workers: int) -> None:
    """However the script is brought."""
    (tmp_path / "mine.py").write_text(_PRINTS)
    where = confdir
    if by == "config.yaml":
        where = tmp_path / "conf"
        where.mkdir()
        for file in confdir.iterdir():
            (where / file.name).write_bytes(file.read_bytes())
        (where / "config.yaml").write_text(f"scripts: [{tmp_path}/mine.py]\n")
    args = {"-s": ["-s", "mine.py"], "--set": ["--set", "scripts=mine.py"], "config.yaml": []}
    args |= {"--scripts": ["--scripts", "mine.py"], "abbreviation": ["--scrip", "mine.py"]}
    with Proxy(*args[by], "--workers", str(workers), cwd=tmp_path, confdir=where, fresh=True) as proxy:
        proxy.wait_for_output("optimize=0, asserts work")
        assert not any(_is_optimised(pid) for pid in proxy.pids())


# --- the CA


def test_a_first_start_makes_one_ca_for_all_workers(
    tmp_path: Path, authority: Authority, https_recorder: Recorder
) -> None:
    """In an empty home, the certificate found afterwards is that of each worker: every tunnel is trusted."""
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    with Proxy("--workers", str(WORKERS), "--set", trust, cwd=tmp_path) as proxy:
        workers = await_workers(proxy, WORKERS)
        for one in workers:
            until(lambda one=one: _accepts(proxy.port, one), 10 * slack(), "each worker serves")  # type: ignore[misc]

        def ask(number: int) -> int:
            with Raw(proxy.port) as client:
                client.secure_tunnel(https_recorder.authority, tmp_path / ".mitmproxy/mitmproxy-ca-cert.pem")
                answer = client.request(message("GET", f"/{number}", f"Host: {https_recorder.authority}"))
                return answer.status

        with ThreadPoolExecutor(30) as pool:
            assert list(pool.map(ask, range(30))) == [200] * 30
        assert proxy.stop() == 0
        assert proxy.stderr == ""
    assert {seen.target for seen in https_recorder.requests} == {f"/{number}" for number in range(30)}
