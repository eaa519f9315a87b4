"""Who may use the proxy: the clients that are named, and everybody where none are; in both lanes."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Raw, Reply, client_context, message
from tests.support.harness import ADDONS, REPO, Process, StartBare, StartProxy, rows, verify
from tests.support.upstreams import Recorder

LANES = pytest.mark.parametrize("lane", ["on", "off"])
REFUSED = b"jwtproxy: this client may not use the proxy; jwt_allow_client names those who may\n"
OPEN, PRIVATE = "whoever reaches this port may use the proxy", "jwt_deny_private=on is recommended here"


def ask(port: int, request: bytes, source: str = "127.0.0.1", method: str = "GET") -> Reply:
    """The answer to a client with this address."""
    client = Raw.__new__(Raw)
    client.socket, client._buffer = socket.create_connection(("127.0.0.1", port), 10, (source, 0)), bytearray()
    with client:
        return client.request(request, method)


def get(recorder: Recorder) -> bytes:
    return message("GET", f"{recorder.url}/x", f"Host: {recorder.authority}")


@LANES
def test_others_get_403(start_proxy: StartProxy, recorder: Recorder, lane: str) -> None:
    proxy = start_proxy("--allow-client", "127.0.0.2", "--allow-client", "10.0.0.0/8,::1", env={"JWT_FAST_LANE": lane})
    assert ask(proxy.port, get(recorder), "127.0.0.2").status == 200
    for source in ("127.0.0.1", "127.0.0.3"):
        reply = ask(proxy.port, get(recorder), source)
        assert (reply.status, reply.body) == (403, REFUSED)
    assert len(recorder.requests) == 1
    page = ask(proxy.port, message("GET", "/status", "Host: x"), "127.0.0.3")
    assert json.loads(page.body)["limits"]["jwt_allow_client"] == {"value": "127.0.0.2,10.0.0.0/8,::1", "reached": 2}


@LANES
def test_others_get_no_tunnel(start_proxy: StartProxy, https_recorder: Recorder, lane: str) -> None:
    proxy = start_proxy(env={"JWT_ALLOW_CLIENT": "127.0.0.2", "JWT_FAST_LANE": lane})
    connect = message("CONNECT", https_recorder.authority, f"Host: {https_recorder.authority}")
    assert ask(proxy.port, connect, method="CONNECT").status == 403
    assert ask(proxy.port, connect, "127.0.0.2", "CONNECT").status == 200


def test_who_has_a_password_and_is_not_named_gets_403(start_proxy: StartProxy, recorder: Recorder) -> None:
    proxy = start_proxy("--proxyauth", "a:b", env={"JWT_ALLOW_CLIENT": "127.0.0.2"})
    asked = message("GET", f"{recorder.url}/x", f"Host: {recorder.authority}", "Proxy-Authorization: Basic YTpi")
    assert ask(proxy.port, asked).status == 403
    assert ask(proxy.port, asked, "127.0.0.2").status == 200


def test_others_are_cut_off_where_nothing_can_tell_them(start_proxy: StartProxy) -> None:
    proxy = start_proxy("--mode", "socks5", env={"JWT_ALLOW_CLIENT": "127.0.0.2"})
    with Raw(proxy.port) as client:
        client.send(b"\5\1\0")
        with pytest.raises((EOFError, AssertionError, ConnectionError)):
            client.exactly(2)


def test_a_bare_mitmdump_keeps_them_out(start_bare: StartBare, recorder: Recorder) -> None:
    scripts = [ADDONS / "jwt_inject.py", ADDONS / "status.py"]
    bare = start_bare("--set", "jwt_allow_client=127.0.0.2", scripts=scripts)
    assert ask(bare.port, get(recorder), "127.0.0.2").status == 200
    reply = ask(bare.port, get(recorder))
    assert (reply.status, reply.body) == (403, REFUSED)


# --- without a list


def answers_everybody(proxy: Process, recorder: Recorder, *names: str) -> None:
    """Requests and pages, whatever the client calls the proxy."""
    for source in ("127.0.0.1", "127.0.0.2"):
        assert ask(proxy.port, get(recorder), source).status == 200
        for name in names:
            assert ask(proxy.port, message("GET", "/status", f"Host: {name}"), source).status == 200


@pytest.mark.parametrize(
    ("lane", "workers"),
    rows({f"{lane}-{workers}": (lane, workers) for lane in ("on", "off") for workers in ("1", "2")}, "on-1", "off-2"),
)
def test_every_address_answers_as_before_with_a_warning(
    start_proxy: StartProxy, recorder: Recorder, lane: str, workers: str
) -> None:
    proxy = start_proxy(env={"HTTP_HOST": "*", "WORKERS": workers, "JWT_FAST_LANE": lane})
    answers_everybody(proxy, recorder, "localhost:8080")
    for warning in (OPEN, PRIVATE):
        assert proxy.output.count(warning) == 1, proxy.output


def test_a_published_port_answers_as_before(start_proxy: StartProxy, recorder: Recorder) -> None:
    """With what the image says, and behind another port: nothing more has to be set."""
    said = dict(re.findall(r"\b((?:HTTP|JWT)_\w+|WORKERS)=(\S+)", (REPO / "Dockerfile").read_text()))
    assert said["HTTP_HOST"].strip("'\"") == "*"
    assert "JWT_ALLOW_CLIENT" not in said
    assert re.search(r"^ *JWT_ALLOW_CLIENT:$", (REPO / "compose.yaml").read_text(), re.MULTILINE)
    proxy = start_proxy(env={"HTTP_HOST": "*", "WORKERS": "auto"})
    answers_everybody(proxy, recorder, "localhost:49153", "host.docker.internal:8080")


def test_a_kubernetes_service_answers_as_before(start_proxy: StartProxy, recorder: Recorder) -> None:
    """Clients come from pods of any address, and call the proxy by a service's name or a pod's address."""
    proxy = start_proxy(env={"HTTP_HOST": "*"})
    answers_everybody(proxy, recorder, "jwtproxy", "jwtproxy.default.svc.cluster.local:80", "10.42.0.7:8080")


def test_on_loopback_there_is_no_warning(start_proxy: StartProxy) -> None:
    proxy = start_proxy()
    proxy.stop()
    assert "warning" not in proxy.output


def test_who_guesses_passwords_has_to_wait_and_nobody_else(start_proxy: StartProxy, recorder: Recorder) -> None:
    proxy = start_proxy("--proxyauth", "a:b", env={"JWT_MAX_FAILED_PASSWORDS": "2", "WORKERS": "1"})
    line = "Proxy-Authorization: Basic"
    wrong, right = (
        message("GET", f"{recorder.url}/x", f"Host: {recorder.authority}", f"{line} {word}")
        for word in ("YTpj", "YTpi")
    )
    assert [ask(proxy.port, wrong).status for _ in range(3)] == [407, 407, 429]
    assert ask(proxy.port, right, "127.0.0.2").status == 200
    assert ask(proxy.port, message("GET", "/status", "Host: x")).status == 200


def user_in(recorder: Recorder) -> object:
    """Who the token names that came last."""
    claims: Any = verify(recorder.requests[-1].values("x-my-jwt")[0])
    return claims["payload"]["user"]


def test_a_rule_puts_the_user_of_the_password_into_the_token(
    start_proxy: StartProxy, recorder: Recorder, https_recorder: Recorder, proxy_ca: Path, tmp_path: Path
) -> None:
    """Of plain requests, and of those in a tunnel; a request without a user leaves in nobody's name."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - match: ~all\n    user: proxyauth\n")
    (tmp_path / "users").write_text("".join(f"{name}:{{SHA}}GpHWL3ymc5liWkNopqtdSjuqYHM=\n" for name in ("al", "bo")))
    proxy = start_proxy("--proxyauth", f"@{tmp_path}/users", env={"JWT_RULES": str(rules)})
    for name, given in (("al", "YWw6cHc="), ("bo", "Ym86cHc=")):
        line = f"Proxy-Authorization: Basic {given}"
        host = f"Host: {recorder.authority}"
        assert ask(proxy.port, message("GET", f"{recorder.url}/x", host, line)).status == 200
        assert user_in(recorder) == name
        host = f"Host: {https_recorder.authority}"
        with Raw(proxy.port) as client:
            assert client.request(message("CONNECT", https_recorder.authority, host, line), "CONNECT").status == 200
            client.start_tls(client_context(proxy_ca))
            for _ in range(2):
                assert client.request(message("GET", "/x", host)).status == 200
        assert user_in(https_recorder) == name
    open_to_all = start_proxy(env={"JWT_RULES": str(rules)})
    assert ask(open_to_all.port, get(recorder)).status == 502
    assert len(recorder.requests) == 2
