"""Faults around the proxy: what it stands on gives way, and it says so, goes on, and recovers by itself."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import black_hole
from tests.support.clients import Raw, message
from tests.support.harness import SECRET, Process, StartBare, StartProxy, clean_env, launcher, rows, thorough, verify
from tests.support.upstreams import Recorder, download, respond
from tests.support.workers import get, until

SAID = "jwtproxy: error: cannot write '{}': no space left on device; its recording has ended, requests go on"
LARGE = respond(200, body=bytes(1 << 18))
"""More than is held back on the way to a file."""


def _exchange(port: int, recorder: Recorder, times: int = 3, path: str = "/large") -> None:
    with Raw(port) as client:
        for _ in range(times):
            assert client.request(get(f"{recorder.url}{path}")).status == 200


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


# --- names


@pytest.mark.skipif(bool(black_hole.unable()), reason=black_hole.unable())
@pytest.mark.parametrize("lane", rows({"on": "on", "off": "off"}, "on"))
def test_a_name_that_was_gone_is_found_again(tmp_path: Path, confdir: Path, recorder: Recorder, lane: str) -> None:
    """Within seconds, as failures are not remembered for longer."""
    name, hosts = "later.example", tmp_path / "hosts"
    url = f"http://{name}:{recorder.port}/"
    fixed = ("--set", "jwt_connect_timeout=1", "--set", f"jwt_fast_lane={lane}")
    with black_hole.lost(*fixed, cwd=tmp_path, confdir=confdir, hosts={}, hang=2) as proxy:
        assert _status(proxy.port, url) == 502
        hosts.write_text(f"127.0.0.1 {name}\n")
        until(lambda: _status(proxy.port, url) == 200, 20, "the name is found")
        assert verify(recorder.requests[-1].token)
        assert "Traceback" not in proxy.output


def _status(port: int, url: str) -> int:
    with Raw(port, timeout=20) as client:
        return client.request(message("GET", url, f"Host: {url.split('/')[2]}", "Connection: close")).status


# --- memory


@thorough  # how much is too little depends on the machine, and below that Python itself fails; see test_cli
def test_a_start_without_memory_is_one_error(tmp_path: Path, confdir: Path) -> None:
    command = ["/bin/sh", "-c", 'ulimit -v 70000; exec "$@"', "sh", *launcher(), "--set", f"confdir={confdir}"]
    env = clean_env(tmp_path, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    with Process(command, env=env, cwd=tmp_path, ready=None) as proxy:
        assert proxy.wait() == 2
    assert proxy.stderr.splitlines()[0] == "jwtproxy: error: there is not enough memory"
    assert "Traceback" not in proxy.output


# --- clients that leave


def _words(plain: Recorder, tls: Recorder) -> dict[str, bytes]:
    get_large = get(f"{plain.url}/large")
    post = message("POST", f"{plain.url}/x", f"Host: {plain.authority}", "Content-Length: 300000")
    connect = message("CONNECT", tls.authority, f"Host: {tls.authority}")
    return {
        "at once": b"",
        "within a head": get_large[:20],
        "with an answer due": get_large,
        "with several due": get_large * 5,
        "before a body": post,
        "within a body": post + bytes(100_000),
        "in a tunnel": connect,
        "within a handshake": connect + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    }


@pytest.mark.parametrize("lane", ["on", "off"])
def test_clients_that_leave_at_any_stage_leave_nothing_behind(
    start_proxy: StartProxy, recorder: Recorder, https_recorder: Recorder, lane: str
) -> None:
    recorder.route("/large", download(8 << 20))
    proxy = start_proxy(env={"JWT_FAST_LANE": lane})
    _exchange(proxy.port, recorder, 1, "/")
    before = proxy.fds()
    for words in _words(recorder, https_recorder).values():
        for reset in (False, True):
            with Raw(proxy.port) as client:
                client.send(words)
                if len(words) > 100:
                    client.socket.settimeout(0.2)
                    with contextlib.suppress(TimeoutError):
                        client.socket.recv(100)
                if reset:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: proxy.fds() <= before, 15, "all descriptors are free again")
    _exchange(proxy.port, recorder, 1, "/")
    assert "Traceback" not in proxy.output, proxy.output
    assert all(verify(seen.token) for seen in recorder.requests)


# --- upstreams that reset within TLS


def _reset_at_once(connection: socket.socket) -> None:
    pass


def _reset_within_the_handshake(connection: socket.socket) -> None:
    connection.recv(100)


def _greet(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("serve", [_reset_at_once, _reset_within_the_handshake, _greet])
@pytest.mark.parametrize("lane", ["on", "off"])
def test_an_upstream_that_breaks_off_within_tls_gives_502(
    start_proxy: StartProxy, proxy_ca: Path, serve: Callable[[socket.socket], None], lane: str
) -> None:
    """And the next request is served as if nothing had been."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = server.accept()[0]
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    serve(connection)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    proxy = start_proxy("--set", "connection_strategy=lazy", env={"JWT_FAST_LANE": lane})
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        authority = f"127.0.0.1:{server.getsockname()[1]}"
        with Raw(proxy.port) as client:
            client.secure_tunnel(authority, proxy_ca)
            assert client.request(message("GET", "/", f"Host: {authority}")).status == 502
        server.shutdown(socket.SHUT_RDWR)
    assert "Traceback" not in proxy.output, proxy.output
