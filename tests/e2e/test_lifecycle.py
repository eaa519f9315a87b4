"""How jwtproxy-run starts, stops, and what it prints meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import websockets.sync.client
import websockets.sync.server

from jwtproxy import __version__
from tests.support.clients import Http2, Raw, message, pseudo
from tests.support.harness import (
    MIB,
    SECRET,
    Proxy,
    StartProxy,
    clean_env,
    launcher,
    rows,
    run_launcher,
    thorough,
    verify,
)
from tests.support.upstreams import Exchange, Feed, Httpbin, Recorder, deaf_authority, silent

SIGNALS = [signal.SIGINT, signal.SIGTERM]
each_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
PROMPT = 1.0
"""Seconds in which a proxy that is told to stop has stopped, on a machine that is not busy with something else."""


def prompt() -> float:
    """PROMPT, and more where other things run, which may hold up the proxy or this test: the average lags behind."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return PROMPT if load < 0.5 else PROMPT * max(1.0, load) + 1.0


def ends(proxy: Proxy, number: int) -> None:
    """The signal ends the proxy promptly, with status 0 and nothing to complain about."""
    began = time.monotonic()
    proxy.send_signal(number)
    status = proxy.wait(5)
    took = time.monotonic() - began
    assert (status, proxy.stderr) == (0, ""), proxy.output
    assert "Traceback" not in proxy.stdout
    assert took < prompt()


def await_handlers(proxy: Proxy) -> None:
    """Wait until the process handles SIGTERM: the interpreter has started, and the first lines of ours have run."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{proxy.pid}/status").read_text())
        assert caught
        if int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError("SIGTERM is not handled")


# --- stopping


DELAYS = [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5]
STARTS = {f"{delay}-{number.name}": (delay, number) for delay, number in zip(DELAYS, SIGNALS * 9, strict=True)}
FEW = "0-SIGINT 0.1-SIGTERM 0.4-SIGTERM 0.7-SIGINT".split()


@pytest.mark.parametrize(("delay", "number"), rows(STARTS, *FEW))
def test_a_signal_while_starting_ends_the_start(start_proxy: StartProxy, delay: float, number: int) -> None:
    """At any moment after the interpreter's own start."""
    proxy = start_proxy(wait=False, fresh=True)
    await_handlers(proxy)
    time.sleep(delay)
    ends(proxy, number)


@pytest.mark.parametrize("delay", [pytest.param(0.6, marks=thorough), 0.8, pytest.param(1.0, marks=thorough)])
def test_a_signal_while_the_first_ca_is_made_ends_the_start(start_proxy: StartProxy, delay: float) -> None:
    """The first start of all takes longer: it makes a key."""
    proxy = start_proxy(prepared=False, wait=False, fresh=True)
    await_handlers(proxy)
    time.sleep(delay)
    ends(proxy, signal.SIGINT)


@pytest.mark.parametrize("pause", [pytest.param(0, marks=thorough), 0.01, pytest.param(0.05, marks=thorough)])
def test_an_impatient_user_may_press_ctrl_c_again(start_proxy: StartProxy, pause: float) -> None:
    """More signals while the proxy is stopping change nothing, whichever they are."""
    proxy = start_proxy()
    began = time.monotonic()
    numbers = SIGNALS * 200
    while proxy.running and numbers:
        proxy.send_signal(numbers.pop())
        time.sleep(pause)
    assert (proxy.wait(5), proxy.stderr) == (0, ""), proxy.output
    assert time.monotonic() - began < prompt() + 0.5


@each_signal
def test_an_idle_proxy_ends(start_proxy: StartProxy, number: int) -> None:
    """Nothing is open."""
    ends(start_proxy(), number)


def _idle_client(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    with Raw(proxy.port) as client:
        assert client.request(message("GET", f"{upstream.url}/", f"Host: {upstream.authority}")).status == 200
        yield


def _silent_client(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    with Raw(proxy.port):
        time.sleep(0.1)
        yield


def _half_a_request(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    with Raw(proxy.port) as client:
        client.send(message("GET", f"{upstream.url}/", f"Host: {upstream.authority}")[:-2])
        time.sleep(0.1)
        yield


def _half_an_upload(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    with Raw(proxy.port) as client:
        client.send(
            message(
                "POST", f"{upstream.url}/", f"Host: {upstream.authority}", f"Content-Length: {8 * MIB}", body=b"x" * MIB
            )
        )
        upstream.wait_head()
        yield


def _tunnel(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    with Raw(proxy.port) as client:
        client.tunnel(upstream.authority)
        yield


def _waiting_request(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    upstream.route("/", silent())
    with Raw(proxy.port) as client:
        client.send(message("GET", f"{upstream.url}/", f"Host: {upstream.authority}"))
        upstream.wait_head()
        yield


def _slow_answer(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    feed = Feed("text/event-stream")
    upstream.route("/", feed)
    with Raw(proxy.port) as client:
        client.send(message("GET", f"{upstream.url}/", f"Host: {upstream.authority}"))
        feed.push(b"data: 1\n\n")
        client.until(b"data: 1\n\n")
        yield


def _endless_download(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    async def endless(exchange: Exchange) -> None:
        await exchange.start(200)
        while True:
            await exchange.write(bytes(65536))

    upstream.route("/", endless)
    with Raw(proxy.port) as client:  # which reads nothing after the head
        client.send(message("GET", f"{upstream.url}/", f"Host: {upstream.authority}"))
        client.head()
        yield


def _websocket(proxy: Proxy, upstream: Recorder) -> Iterator[None]:
    def wait(connection: websockets.sync.server.ServerConnection) -> None:
        for text in connection:
            connection.send(text)

    with websockets.sync.server.serve(wait, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        with (
            contextlib.suppress(Exception),
            websockets.sync.client.connect(url, proxy=proxy.url, close_timeout=1) as client,
        ):
            client.send("x")
            client.recv(5)
            yield


IDLE = [_idle_client, _silent_client, _half_a_request, _tunnel]
IN_FLIGHT = [_half_an_upload, _waiting_request, _slow_answer, _endless_download, _websocket]
Situation = Callable[[Proxy, Recorder], Iterator[None]]


def with_each_signal(situations: Sequence[Situation]) -> pytest.MarkDecorator:
    """Each situation with both signals, of which `make test` sends one, now this and now that."""
    table = {f"{what.__name__.strip('_')}-{number.name}": (what, number) for what in situations for number in SIGNALS}
    names = list(table)
    return pytest.mark.parametrize(("what", "number"), rows(table, *names[::4]))


@with_each_signal(IDLE)
def test_a_proxy_with_idle_connections_ends(
    start_proxy: StartProxy, recorder: Recorder, what: Situation, number: int
) -> None:
    """A connection on which nothing happens is no reason to stay, or to complain."""
    proxy = start_proxy()
    with contextlib.contextmanager(what)(proxy, recorder):
        ends(proxy, number)


@with_each_signal(IN_FLIGHT)
def test_a_proxy_with_requests_in_flight_ends(
    start_proxy: StartProxy, recorder: Recorder, what: Situation, number: int
) -> None:
    """Ctrl-C ends it at once; SIGTERM when the grace is over, without a complaint either."""
    proxy = start_proxy("--grace", "0.1")
    with contextlib.contextmanager(what)(proxy, recorder):
        ends(proxy, number)


@pytest.mark.parametrize("second", rows({number.name: number for number in SIGNALS}, "SIGINT"))
def test_a_second_signal_ends_the_wait(start_proxy: StartProxy, recorder: Recorder, second: int) -> None:
    """Who cannot wait for requests in flight says so."""
    proxy = start_proxy()
    with contextlib.contextmanager(_slow_answer)(proxy, recorder):
        proxy.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert proxy.running
        ends(proxy, second)


def test_sigterm_lets_an_answer_finish(start_proxy: StartProxy, recorder: Recorder) -> None:
    """What is in flight arrives whole; new connections are not taken; then the proxy ends."""
    feed = Feed("text/plain")
    recorder.route("/", feed)
    proxy = start_proxy()
    with Raw(proxy.port) as client:
        client.send(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}"))
        feed.push(b"begin ")
        client.until(b"begin ")
        proxy.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with socket.socket() as visitor:
            assert visitor.connect_ex(("127.0.0.1", proxy.port)) != 0
        began = time.monotonic()
        feed.push(b"end")
        feed.close()
        assert client.rest().endswith(b"3\r\nend\r\n0\r\n\r\n")
    assert (proxy.wait(5), proxy.stderr) == (0, "")
    assert time.monotonic() - began < prompt()


@pytest.mark.parametrize("number", rows({number.name: number for number in SIGNALS}, "SIGTERM"))
def test_a_proxy_with_tls_open_ends(
    start_proxy: StartProxy, h2_recorder: Recorder, proxy_ca: Path, number: int
) -> None:
    """The same with an idle HTTP/2 connection."""
    proxy = start_proxy()
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        assert two.reply(two.send(pseudo("GET", h2_recorder.authority, "/"))).body == b"ok"
        ends(proxy, number)


@pytest.mark.parametrize("number", rows({number.name: number for number in SIGNALS}, "SIGINT"))
def test_a_proxy_that_is_connecting_ends(start_proxy: StartProxy, number: int) -> None:
    """An attempt to connect that never ends does not hold it."""
    proxy = start_proxy("--grace", "0.1")
    with deaf_authority() as authority, Raw(proxy.port) as client:
        client.send(message("GET", f"http://{authority}/", "Host: x"))
        time.sleep(0.2)
        ends(proxy, number)


def test_it_can_start_again_at_once(start_proxy: StartProxy, recorder: Recorder) -> None:
    """The port is free as soon as the process has ended, whatever connections there were."""
    first = start_proxy()
    with Raw(first.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")).status == 200
        ends(first, signal.SIGTERM)
    second = start_proxy("--port", str(first.port))
    assert second.port == first.port


# --- informing


@pytest.mark.parametrize("args", [["--help"], pytest.param(["-h"], marks=thorough), ["--version"]])
@pytest.mark.parametrize("mess", rows({"healthy": False, "everything-else-wrong": True}, "everything-else-wrong"))
def test_help_and_version_always_work(tmp_path: Path, args: list[str], mess: bool) -> None:
    """They need no settings, and no settings keep them from working."""
    if mess:
        (tmp_path / ".env").write_text("=\n'")
    env = {"HTTP_PORT": "x", "WORKERS": "y", "JWT_PAGES": "z"} if mess else {}
    done = run_launcher(*args, cwd=tmp_path, secret=None, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert __version__ in done.stdout if args == ["--version"] else "JWT_SHARED_SECRET" in done.stdout
    assert not (tmp_path / ".mitmproxy").exists()


def test_help_teaches(tmp_path: Path) -> None:
    """Our flags, the settings, and examples to copy."""
    text = run_launcher("--help", cwd=tmp_path, secret=None).stdout
    for (
        word
    ) in "--port --host --check examples: exec curl HTTP_PORT HTTP_HOST WORKERS JWT_SHARED_SECRET_FILE --set".split():
        assert word in text, word


def test_the_console_script_is_the_launcher(tmp_path: Path) -> None:
    """What pip puts on PATH does the same as the module."""
    script = Path(sys.executable).with_name("jwtproxy-run")
    done = subprocess.run(
        [script, "--version"],
        env=clean_env(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"jwtproxy {__version__}\n")


@pytest.mark.parametrize(("args", "word"), [(["--options"], "jwt_response_timeout"), (["--commands"], "replay.client")])
def test_the_reference_prints_and_ends(tmp_path: Path, args: list[str], word: str) -> None:
    """As mitmdump's do, ours included."""
    done = run_launcher(*args, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert word in done.stdout
    assert SECRET not in done.stdout


LINE = re.compile(r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d (\S+) (\S+) (.+)")


def test_the_start_is_told_in_a_few_lines(start_proxy: StartProxy) -> None:
    """Where it listens, where the page is, how to try it, where the certificate is."""
    proxy = start_proxy()
    proxy.wait_for_output("CA .*")
    ends(proxy, signal.SIGINT)
    lines = proxy.stdout.splitlines()
    assert len(lines) <= 6
    for word in (
        f"{__version__} listening on {proxy.url}",
        f"{proxy.url}/status",
        f"curl --proxy {proxy.url}",
        "mitmproxy-ca-cert.pem",
    ):
        assert word in proxy.stdout


def test_each_request_is_one_line(
    start_proxy: StartProxy, recorder: Recorder, https_recorder: Recorder, proxy_ca: Path
) -> None:
    """Method, URL, and what came of it; in plain text, as it happens; own pages that are well stay silent."""
    proxy = start_proxy()
    proxy.wait_for_output("CA .*")
    banner = len(proxy.stdout.splitlines())
    host = f"Host: {recorder.authority}"
    chunks = b"100000\r\n" + bytes(MIB) + b"\r\n0\r\n\r\n"
    expected: list[tuple[str, str, str]] = []

    def see(method: str, url: str, outcome: str) -> None:
        proxy.wait_for_output(f"{method} {re.escape(url)} {outcome}")
        expected.append((method, url, outcome))

    with Raw(proxy.port) as client:
        client.request(message("GET", f"{recorder.url}/get?a=1", host))
        see("GET", f"{recorder.url}/get?…", "200")
        client.request(message("BREW", f"{recorder.url}/pot", host), "BREW")
        see("BREW", f"{recorder.url}/pot", "200")
        client.request(message("POST", f"{recorder.url}/streamed", host, "Transfer-Encoding: chunked", body=chunks))
        see("POST", f"{recorder.url}/streamed", "200")
        client.request(message("GET", "/status", host))
        client.request(message("GET", "/nope", host))
        see("GET", f"{proxy.url}/nope", "404")
    with socket.socket() as closed, Raw(proxy.port) as client:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        client.request(message("GET", url, "Host: x"))
        see("GET", url, ".*(refused|failed)")
    with Raw(proxy.port) as client:
        client.secure_tunnel(https_recorder.authority, proxy_ca)
        client.request(message("GET", "/secure", f"Host: {https_recorder.authority}"))
        see("GET", f"{https_recorder.url}/secure", "200")
    ends(proxy, signal.SIGTERM)
    lines = [LINE.fullmatch(line) for line in proxy.stdout.splitlines()[banner:]]
    assert all(lines), proxy.stdout
    told = [(line[1], line[2], line[3]) for line in lines if line]
    assert len(told) == len(expected), proxy.stdout
    for (method, url, outcome), line in zip(expected, told, strict=True):
        assert line[:2] == (method, url)
        assert re.match(outcome, line[2])
    assert "\x1b" not in proxy.stdout


def test_a_request_cannot_write_lines_of_its_own(start_proxy: StartProxy, recorder: Recorder) -> None:
    """What a client sends is shown without its control characters."""
    proxy = start_proxy()
    with Raw(proxy.port) as client:
        client.request(message("GET", f"{recorder.url}/a\x1b[31mred\x07\x9b", f"Host: {recorder.authority}"))
    with Raw(proxy.port) as client:
        client.request(message("GET", f"{recorder.url}/last", f"Host: {recorder.authority}"))
    proxy.wait_for_output("/last 200")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", proxy.output)


def test_quiet_is_quiet(start_proxy: StartProxy, recorder: Recorder) -> None:
    """-q: not a word, neither at the start nor for requests, good or bad, nor at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    proxy = start_proxy("-q", "--port", str(port), wait=False)
    deadline = time.monotonic() + 15
    connected = False
    while not connected:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with socket.socket() as visitor:
            connected = visitor.connect_ex(("127.0.0.1", port)) == 0
    for target in (f"{recorder.url}/", "http://nonexistent.invalid/", "/status", "/nope"):
        with Raw(port) as client:
            client.request(message("GET", target, f"Host: {recorder.authority}"))
    ends(proxy, signal.SIGINT)
    assert proxy.stdout == ""
    assert verify(recorder.only().token)


def test_a_reader_that_goes_away_does_not_end_the_proxy(tmp_path: Path, confdir: Path, recorder: Recorder) -> None:
    """`jwtproxy-run | head -1` serves on, and ends as it should."""
    command = [*launcher(), "--set", f"confdir={confdir}"]
    env = clean_env(tmp_path, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    with subprocess.Popen(
        command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            found = Proxy.READY.search(process.stdout.readline())
            assert found
            time.sleep(0.3)
            process.stdout.close()
            for _ in range(3):
                with Raw(int(found[1])) as client:
                    request = message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")
                    assert client.request(request).status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert all(verify(seen.token) for seen in recorder.wait(3))


# --- keeping the secret


async def _echo(exchange: Exchange) -> None:
    """Answer with the token in a field and in the body, in the form that the path names."""
    token = exchange.seen.token
    kind = exchange.seen.path.removeprefix("/echo/")
    bodies: Mapping[str, tuple[str, bytes]] = {
        "text": ("text/plain", f"your token: {token}\n".encode()),
        "json": ("application/json", json.dumps({"headers": {"x-my-jwt": token}}).encode()),
        "gzip": ("text/plain", gzip.compress(token.encode())),
        "html": ("text/html", f"<p title={token}>{token}</p>".encode()),
        "form": ("application/x-www-form-urlencoded", f"token={token}&b=c".encode()),
        "events": ("text/event-stream", f"data: {token}\n\n".encode()),
        "binary": ("application/octet-stream", b"\x00\x01\xff" + token.encode() + b"\x02\xfe"),
        "jwt": ("application/jwt", token.encode()),
    }
    content_type, body = bodies[kind]
    encoding = [("content-encoding", "gzip")] if kind == "gzip" else []
    fields = [
        ("content-type", content_type),
        ("content-length", str(len(body))),
        ("x-echo", token),
        ("set-cookie", f"t={token}; Path=/"),
    ]
    await exchange.start(200, [*fields, *encoding], framing="sized")
    await exchange.write(body)
    await exchange.end()


ECHOES = "text json gzip html form events binary jwt".split()


def _ask_for_echoes(proxy: Proxy, plain: Recorder, https: Recorder, two: Recorder, proxy_ca: Path) -> None:
    """Every kind of echo, over HTTP, over HTTPS and over HTTP/2, and one after a streamed upload."""
    host = f"Host: {plain.authority}"
    with Raw(proxy.port) as client:
        for kind in ECHOES:
            get = message("GET", f"{plain.url}/echo/{kind}", host, "X-My-Jwt: eyJ0.eyJ0.forged")
            assert client.request(get).status == 200
        upload = message("POST", f"{plain.url}/echo/json", host, f"Content-Length: {2 * MIB}", body=bytes(2 * MIB))
        assert client.request(upload).status == 200
    with Raw(proxy.port) as client:
        client.secure_tunnel(https.authority, proxy_ca)
        for kind in ECHOES:
            assert client.request(message("GET", f"/echo/{kind}", f"Host: {https.authority}")).status == 200
    with Raw(proxy.port) as client:
        http2 = Http2(client.secure_tunnel(two.authority, proxy_ca, "h2"))
        for kind in ECHOES:
            assert http2.reply(http2.send(pseudo("GET", two.authority, f"/echo/{kind}"))).status == 200


VERBOSE = {
    "v": ["-v"],
    "detail-2": ["--flow-detail", "2"],
    "detail-3": ["--flow-detail", "3"],
    "detail-4": ["--set", "termlog_verbosity=debug", "--set", "flow_detail=4"],
    "proxy-debug": ["--set", "termlog_verbosity=debug", "--set", "flow_detail=4", "--set", "proxy_debug=true"],
    "detail-4-streamed": [
        "--set",
        "termlog_verbosity=debug",
        "--set",
        "flow_detail=4",
        "--set",
        "stream_large_bodies=1",
    ],
}


@pytest.mark.parametrize("args", rows(VERBOSE, "detail-4"))
def test_nothing_secret_is_ever_printed(
    start_proxy: StartProxy,
    recorder: Recorder,
    https_recorder: Recorder,
    h2_recorder: Recorder,
    httpbin: Httpbin,
    proxy_ca: Path,
    args: Sequence[str],
) -> None:
    """At the highest verbosity neither the secret nor a token shows, not even when an upstream sends it back."""
    proxy = start_proxy(*args)
    for kind in ECHOES:
        for upstream in (recorder, https_recorder, h2_recorder):
            upstream.route(f"/echo/{kind}", _echo)
    _ask_for_echoes(proxy, recorder, https_recorder, h2_recorder, proxy_ca)
    for url in (f"{httpbin.url}/headers", f"{httpbin.url}/anything?x=1", f"{httpbin.url}/stream/2"):
        with Raw(proxy.port) as client:
            assert client.request(message("GET", url, f"Host: 127.0.0.1:{httpbin.port}")).status == 200
    with Raw(proxy.port) as client:
        client.request(message("GET", "http://nonexistent.invalid/", "Host: x"))
    proxy.wait_for_output("nonexistent.invalid")
    proxy.stop()
    tokens = [seen.token for upstream in (recorder, https_recorder, h2_recorder) for seen in upstream.requests]
    assert len(tokens) == 25
    output = proxy.output
    assert "/echo/text" in output
    for token in tokens:
        for part in (token, *token.split(".")):
            assert part not in output
    assert SECRET not in output
    assert bytes.fromhex(SECRET)[:16].hex() not in output
    leaks = [line for line in output.splitlines() if re.search("eyJ(?!0)", line)]
    assert not leaks, "\n".join(leaks[:5])


@pytest.mark.parametrize("secret", rows({"variable": SECRET, ".env": None}, ".env"))
def test_the_process_list_does_not_show_the_secret(start_proxy: StartProxy, tmp_path: Path, secret: str | None) -> None:
    """However it was given, no process has it among its arguments."""
    (tmp_path / ".env").write_text(f"JWT_SHARED_SECRET={SECRET}\n")
    proxy = start_proxy(secret=secret, cwd=tmp_path, fresh=True)
    for pid in proxy.pids():
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=False).stdout
    assert SECRET not in listed


# --- at a terminal


class Terminal:
    """A proxy whose input and output are a terminal of its own; a context manager."""

    def __init__(self, folder: Path, confdir: Path, env: Mapping[str, str | None], *args: str) -> None:
        self.master, slave = pty.openpty()
        self.shown = ""
        own = {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0", "TERM": "xterm-256color", **env}

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*launcher(), "--set", f"confdir={confdir}", *args],
            env=clean_env(folder, own),
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait(5)
        os.close(self.master)

    def see(self, pattern: str, timeout: float = 15) -> re.Match[str]:
        """Read until this is shown."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.shown)):
            assert self._read(deadline), f"no {pattern!r} in {self.shown!r}"
        return found

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self.master, text)

    def end(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(5)
        while self._read(time.monotonic() + 0.2):
            pass
        return status

    def _read(self, deadline: float) -> bool:
        if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the last user of the other end is gone
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@pytest.mark.parametrize(
    ("env", "colours"),
    rows(
        {
            "terminal": ({}, True),
            "NO_COLOR": ({"NO_COLOR": "1"}, False),
            "NO_COLOR-empty": ({"NO_COLOR": ""}, True),
        },
        "terminal",
    ),
)
def test_colours_are_for_terminals(
    tmp_path: Path, confdir: Path, recorder: Recorder, env: Mapping[str, str | None], colours: bool
) -> None:
    """On a terminal, unless the user does not want them; elsewhere never (which the other tests see)."""
    with Terminal(tmp_path, confdir, env) as terminal:
        port = int(terminal.see(r"listening on http://[^:]+:(\d+)")[1])
        with Raw(port) as client:
            client.request(message("GET", f"{recorder.url}/seen", f"Host: {recorder.authority}"))
        terminal.see("/seen .*200.*\n")
        assert ("\x1b[" in terminal.shown) == colours, terminal.shown


@pytest.mark.parametrize("times", [pytest.param(1, marks=thorough), 3])
def test_ctrl_c_at_a_terminal_ends_the_proxy(tmp_path: Path, confdir: Path, times: int) -> None:
    """The key itself, pressed once or more: status 0 and not a word but the terminal's own echo."""
    with Terminal(tmp_path, confdir, {}) as terminal:
        terminal.see("CA .*\n")
        before = len(terminal.shown)
        began = time.monotonic()
        for _ in range(times):
            terminal.type(b"\x03")
            time.sleep(0.02)
        assert terminal.end() == 0
        assert time.monotonic() - began < prompt() + 0.3
        assert terminal.shown[before:].replace("^C", "").strip() == ""
