"""How many connections there may be: of clients, to upstreams, and where no descriptors are left; in both lanes."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.clients import Http2, Raw, Reply, client_context, message
from tests.support.harness import SECRET, Process, Proxy, StartProxy, clean_env, launcher, rows, thorough
from tests.support.upstreams import Recorder, silent

LANES = pytest.mark.parametrize("lane", ["on", "off"])
ONE_LANE = pytest.mark.parametrize("lane", ["on", pytest.param("off", marks=thorough)])
"""Where what is shown is done before either of them gets to see a connection."""
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER
STATUS = message("GET", "/status", "Host: x")


def dial(port: int, source: str = "127.0.0.1") -> Raw:
    """A client with this address."""
    raw = Raw.__new__(Raw)
    raw.socket = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
    raw._buffer = bytearray()
    return raw


def served(proxy: Proxy, request: bytes = STATUS, source: str = "127.0.0.1") -> Reply:
    """The answer to a request on a connection of its own."""
    with dial(proxy.port, source) as client:
        return client.request(request)


def until_served(proxy: Proxy, request: bytes = STATUS) -> None:
    """Wait until there is room for one more."""
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError, AssertionError):
            if served(proxy, request).status == 200:
                return
        assert time.monotonic() < deadline, proxy.output
        time.sleep(0.02)


def reached(proxy: Proxy, source: str = "127.0.0.2") -> dict[str, int]:
    """How often each limit was reached."""
    limits = json.loads(served(proxy, source=source).body)["limits"]
    return {name: row["reached"] for name, row in limits.items()}


def get(recorder: Recorder, path: str = "/x") -> bytes:
    """A plain request through the proxy."""
    return message("GET", f"{recorder.url}{path}", f"Host: 127.0.0.1:{recorder.port}")


# --- connections of clients


@LANES
def test_a_client_at_its_limit_gets_503_and_keeps_out_nobody_else(
    start_proxy: StartProxy, recorder: Recorder, lane: str
) -> None:
    options = {"JWT_MAX_CLIENT_CONNECTIONS": "2", "JWT_FAST_LANE": lane, "WORKERS": "1"}
    proxy = start_proxy(env=options)
    with dial(proxy.port) as first, dial(proxy.port) as second:
        assert first.request(get(recorder)).status == 200
        assert second.request(get(recorder)).status == 200
        reply = served(proxy, get(recorder))
        assert (reply.status, reply.body) == (503, b"jwtproxy: too many connections of this client\n")
        assert reply.values("connection") == ["close"]
        assert reply.values("proxy-status") == ["jwtproxy; error=http_request_denied"]
        assert served(proxy, get(recorder), "127.0.0.2").status == 200
        assert first.request(get(recorder)).status == 200
        assert reached(proxy)["jwt_max_client_connections"] == 1
    until_served(proxy)


@ONE_LANE
def test_all_clients_together_have_a_limit(start_proxy: StartProxy, recorder: Recorder, lane: str) -> None:
    options = {"JWT_MAX_CONNECTIONS": "2", "JWT_MAX_CLIENT_CONNECTIONS": "0", "JWT_FAST_LANE": lane, "WORKERS": "1"}
    proxy = start_proxy(env=options)
    with dial(proxy.port) as first, dial(proxy.port, "127.0.0.2") as second:
        assert first.request(get(recorder)).status == 200
        assert second.request(get(recorder)).status == 200
        reply = served(proxy, get(recorder), "127.0.0.3")
        assert (reply.status, reply.body) == (503, b"jwtproxy: too many connections\n")
    until_served(proxy)


def by_client(client: Raw) -> None:
    client.close()


def by_reset(client: Raw) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def by_half(client: Raw) -> None:
    client.socket.shutdown(socket.SHUT_WR)
    assert client.socket.recv(1) == b""
    client.close()


ENDS: dict[str, Callable[[Raw], None]] = {"client": by_client, "reset": by_reset, "half": by_half}


RELEASES = {
    f"{lane}-{how}-{end}": (lane, how == "handed over", end)
    for lane in ("on", "off")
    for how in ("boring", "handed over")
    for end in ENDS
}


@pytest.mark.parametrize(
    ("lane", "handed_over", "end"),
    rows(RELEASES, "on-boring-reset", "on-handed over-client", "on-handed over-half", "off-boring-client"),
)
def test_a_connection_is_released_once(
    start_proxy: StartProxy, recorder: Recorder, lane: str, handed_over: bool, end: str
) -> None:
    """Also one that the lane has handed to mitmproxy, which would make room for two otherwise, or none."""
    options = {"JWT_MAX_CONNECTIONS": "1", "JWT_MAX_CLIENT_CONNECTIONS": "0", "JWT_FAST_LANE": lane, "WORKERS": "1"}
    proxy = start_proxy(env=options)
    for _ in range(3):
        until_served(proxy)
        with dial(proxy.port) as client:
            reply = client.request(get(recorder))
            while reply.status == 503:  # the one before is about to go
                client.close()
                client.__init__(proxy.port)  # type: ignore[misc]
                reply = client.request(get(recorder))
            assert reply.status == 200
            if handed_over:
                odd = message("GET", f"{recorder.url}/x", f"Host: 127.0.0.1:{recorder.port}", "Upgrade: x", "Te: y")
                assert client.request(odd).status == 200
            assert served(proxy).status == 503
            ENDS[end](client)
    until_served(proxy)


@LANES
def test_what_the_proxy_closes_is_released(start_proxy: StartProxy, recorder: Recorder, lane: str) -> None:
    proxy = start_proxy(env={"JWT_MAX_CONNECTIONS": "1", "JWT_FAST_LANE": lane, "WORKERS": "1"})
    closing = message("GET", f"{recorder.url}/x", f"Host: 127.0.0.1:{recorder.port}", "Connection: close")
    for _ in range(3):
        until_served(proxy, closing)


@ONE_LANE
def test_tunnels_are_counted_and_released(
    start_proxy: StartProxy, https_recorder: Recorder, proxy_trust: ssl.SSLContext, lane: str
) -> None:
    proxy = start_proxy(env={"JWT_MAX_CONNECTIONS": "1", "JWT_FAST_LANE": lane, "WORKERS": "1"})
    authority = f"127.0.0.1:{https_recorder.port}"
    for _ in range(2):
        until_served(proxy)
        deadline = time.monotonic() + 10
        client = dial(proxy.port)
        while client.request(message("CONNECT", authority, f"Host: {authority}"), "CONNECT").status == 503:
            client.close()
            assert time.monotonic() < deadline
            client = dial(proxy.port)
        client.socket = proxy_trust.wrap_socket(client.socket, server_hostname="127.0.0.1")
        for _ in range(2):
            assert client.request(message("GET", "/x", f"Host: {authority}")).status == 200
        assert served(proxy).status == 503
        client.close()
    until_served(proxy)


# --- connections to upstreams


@contextlib.contextmanager
def recorders(count: int) -> Iterator[list[Recorder]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Recorder()) for _ in range(count)]


@LANES
def test_idle_connections_to_upstreams_make_room(start_proxy: StartProxy, lane: str) -> None:
    proxy = start_proxy(env={"JWT_MAX_UPSTREAM_CONNECTIONS": "2", "JWT_FAST_LANE": lane, "WORKERS": "1"})
    with recorders(4) as found, Raw(proxy.port) as client:
        idle = proxy.fds()
        for recorder in (*found, *found):
            assert client.request(get(recorder)).status == 200
        assert proxy.fds() <= idle + 3
        assert reached(proxy)["jwt_max_upstream_connections"] >= 5


@LANES
def test_one_client_has_so_many_by_all_its_connections(tmp_path: Path, confdir: Path, lane: str) -> None:
    """Of 64 descriptors, 16 are for connections to upstreams, and half of these for one address."""
    options = {"JWT_FAST_LANE": lane, "WORKERS": "1"}
    with Limited(64, options, cwd=tmp_path, confdir=confdir) as proxy, recorders(5) as found:
        idle = proxy.fds()
        first, second, third = clients = [dial(proxy.port) for _ in range(3)]
        for client in (first, second):
            for recorder in found[:4]:
                assert client.request(get(recorder)).status == 200
        for _ in range(2):
            reply = third.request(get(found[0]))
            text = f"jwtproxy: cannot connect to {found[0].url}: too many connections to upstreams\n"
            assert (reply.status, reply.body.decode()) == (503, text)
        assert second.request(get(found[4])).status == 200, "its idle ones make room"
        assert served(proxy, get(found[0]), "127.0.0.2").status == 200  # type: ignore[arg-type]
        assert proxy.fds() <= idle + len(clients) + 8 + 2
        assert reached(proxy)["jwt_max_upstream_connections"] == 3  # type: ignore[arg-type]
        first.close()
        deadline = time.monotonic() + 10
        while third.request(get(found[0])).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second.close()
        third.close()


def plain(authority: str, path: str) -> list[tuple[str, str]]:
    """A request over HTTP/2 to the proxy, for an upstream without TLS."""
    return [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)]


def test_where_all_connections_to_upstreams_are_at_work_a_request_gets_503(
    start_proxy: StartProxy, proxy_ca: Path
) -> None:
    proxy = start_proxy(env={"JWT_MAX_UPSTREAM_CONNECTIONS": "2", "WORKERS": "1"})
    with recorders(3) as found, Raw(proxy.port) as raw:
        client = Http2(raw.start_tls(client_context(proxy_ca, "h2")))
        for recorder in found[:2]:
            recorder.route("/silent", silent())
            client.send(plain(f"127.0.0.1:{recorder.port}", "/silent"))
            recorder.wait()
        third = f"127.0.0.1:{found[2].port}"
        for _ in range(2):
            reply = client.reply(client.send(plain(third, "/x")))
            text = f"jwtproxy: cannot connect to http://{third}: too many connections to upstreams\n"
            assert (reply.status, reply.body.decode()) == (503, text)
            assert reply.values("proxy-status") == ["jwtproxy; error=connection_limit_reached"]
        client.h2.reset_stream(1)
        client.flush()
        deadline = time.monotonic() + 10
        while client.reply(client.send(plain(third, "/x"))).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert reached(proxy)["jwt_max_upstream_connections"] >= 2


# --- descriptors


class Limited(Process):
    """A fresh proxy with few descriptors."""

    def __init__(self, descriptors: int, env: Mapping[str, str], *, cwd: Path, confdir: Path, port: int = 0) -> None:
        command = ["/bin/sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *launcher()]
        own = {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": str(port), **env}
        ready = Proxy.READY if not port else None
        super().__init__([*command, "--set", f"confdir={confdir}"], env=clean_env(cwd, own), cwd=cwd, ready=ready)


@contextlib.contextmanager
def crowd(port: int, size: int) -> Iterator[list[socket.socket]]:
    """Many clients that say nothing."""
    clients: list[socket.socket] = []
    try:
        for _ in range(size):
            clients.append(socket.create_connection(("127.0.0.1", port), 5))  # noqa: PERF401  # closed, if one fails
        yield clients
    finally:
        for client in clients:
            client.close()


BY_WORKERS = {f"{workers}-{lane}": (workers, lane) for workers in ("1", "2") for lane in ("on", "off")}


@pytest.mark.parametrize(("workers", "lane"), rows(BY_WORKERS, "1-off", "2-on"))
def test_without_descriptors_clients_wait_quietly(
    tmp_path: Path, confdir: Path, recorder: Recorder, workers: str, lane: str
) -> None:
    options = {"JWT_MAX_CONNECTIONS": "0", "JWT_FAST_LANE": lane, "WORKERS": workers}
    with Limited(64, options, cwd=tmp_path, confdir=confdir) as proxy:
        with crowd(proxy.port, 150):
            proxy.wait_for_output("new connections wait", 10)
            time.sleep(1)
            with Raw(proxy.port) as client:
                client.send(STATUS)
                client.socket.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.socket.recv(1)
        until_served(proxy, get(recorder))  # type: ignore[arg-type]
        assert proxy.stop() == 0
        assert len(proxy.output) < 2000
        assert "Traceback" not in proxy.output
        assert proxy.stderr.count("new connections wait, as none can be accepted: too many open files") <= int(workers)


@ONE_LANE
def test_what_is_derived_leaves_descriptors_for_upstreams(
    tmp_path: Path, confdir: Path, recorder: Recorder, lane: str
) -> None:
    with Limited(64, {"JWT_FAST_LANE": lane}, cwd=tmp_path, confdir=confdir) as proxy, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(proxy.port, f"127.0.0.{2 + n % 4}")) for n in range(16)]
        for client in clients:
            assert client.request(get(recorder)).status == 200
        with crowd(proxy.port, 100):
            for client in clients:
                assert client.request(get(recorder)).status == 200
        assert "warning" not in proxy.output


@pytest.mark.parametrize("workers", [pytest.param("1", marks=thorough), "2"])
def test_a_start_under_load_succeeds(tmp_path: Path, confdir: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clients: list[socket.socket] = []
    options = {"WORKERS": workers, "JWT_MAX_CONNECTIONS": "0"}
    with Limited(64, options, cwd=tmp_path, confdir=confdir, port=port) as proxy:
        deadline = time.monotonic() + 15
        while len(clients) < 150 and time.monotonic() < deadline and proxy.running:
            try:
                clients.append(socket.create_connection(("127.0.0.1", port), 5))
            except OSError:
                time.sleep(0.005)
        proxy.wait_for_output("listening on", 15)
        for client in clients:
            client.close()
        proxy.port = port
        until_served(proxy)  # type: ignore[arg-type]
        assert proxy.stop(signal.SIGTERM) == 0
        assert "error" not in proxy.output, proxy.output


def test_the_soft_limit_is_raised(tmp_path: Path, confdir: Path) -> None:
    command = ["/bin/sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", *launcher(), "--set", f"confdir={confdir}"]
    env = clean_env(tmp_path, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with Process(command, env=env, cwd=tmp_path, ready=Proxy.READY) as proxy:
        limits = Path(f"/proc/{proxy.pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3] == str(hard)
