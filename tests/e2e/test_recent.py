"""What has become of the last requests, for who asks from this machine: of all workers, by both ways, and no secret."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import pytest

from tests.support.clients import Raw, Reply, message
from tests.support.harness import ADDONS, Process, StartBare, StartProxy, verify
from tests.support.upstreams import Recorder, respond
from tests.support.workers import WORKERS, await_workers, slack, until


def ask(proxy: Process, *fields: str, host: str = "localhost") -> Reply:
    """Ask for the page."""
    with Raw(proxy.port) as client:
        return client.request(message("GET", "/recent", f"Host: {host}", *fields))


def told(proxy: Process) -> list[dict[str, Any]]:
    """What it tells, the oldest first."""
    reply = ask(proxy)
    assert reply.status == 200, reply
    return list(json.loads(reply.body)["requests"])[::-1]


@pytest.mark.parametrize("kind", ["launcher", "bare"])
def test_it_tells_what_each_request_said_of_itself_and_no_secret(
    start_proxy: StartProxy, start_bare: StartBare, kind: str
) -> None:
    secret = secrets.token_hex(8)
    with Recorder() as upstream:
        upstream.route("/gone", respond(404))
        if kind == "launcher":
            proxy: Process = start_proxy("--workers", str(WORKERS), "--set", f"jwt_allow_port={upstream.port},80")
            await_workers(proxy, WORKERS)
        else:
            scripts = ADDONS / "jwt_inject.py", ADDONS / "status.py"
            proxy = start_bare("--set", f"jwt_allow_port={upstream.port},80", scripts=scripts)
        fields = f"Authorization: Basic {secret}", f"Cookie: {secret}", f"X-My-Jwt: {secret}", "Host: x"
        for number in range(12):
            with Raw(proxy.port) as client:
                client.request(message("GET", f"{upstream.url}/{number}?{secret}", *fields))
        with Raw(proxy.port) as client:
            assert client.request(message("GET", f"{upstream.url}/gone", "Host: x")).status == 404
            assert client.request(message("GET", "http://127.0.0.1:1/", "Host: x")).status == 403
            assert client.request(message("GET", "http://jwtproxy.test/me", "Host: x")).status == 200
        until(lambda: len(told(proxy)) == 15, 5, "requests")
        time.sleep(0.5 * slack())  # in which each worker has told the others
        found = told(proxy)
        assert [one["path"] for one in found[:13]] == [*(f"/{number}" for number in range(12)), "/gone"]
        jtis = [verify(seen.token)["jti"] for seen in upstream.requests]
        assert [one["claims"]["jti"] for one in found[:13]] == jtis
        assert [(one["status"], one["outcome"]) for one in found[11:]] == [
            *((200, "2xx"), (404, "4xx"), (403, "refused"), (200, "2xx"))
        ]
        assert found[13]["claims"] is None
        assert (found[14]["host"], found[14]["claims"]["payload"]["user"]) == ("jwtproxy.test", "username")
        page = ask(proxy, "Accept: text/html").body.decode()
        tokens = [str(seen.token) for seen in upstream.requests]
        for text in (json.dumps(found), page):
            assert secret not in text
            assert not any(token.rpartition(".")[2] in text for token in tokens)
        assert str(jtis[0]) in page
        for host, *more in (("evil.example",), ("",), ("localhost", "X-Forwarded-For: 192.0.2.1")):
            assert ask(proxy, *more, host=host).status == 403


def test_none_are_kept_where_nobody_wants_them(start_proxy: StartProxy, recorder: Recorder) -> None:
    proxy = start_proxy("--set", "jwt_recent=0", "--proxyauth", "a:b")
    with Raw(proxy.port) as client:
        assert client.request(message("GET", "/recent", "Host: localhost")).status == 404
        assert client.request(message("GET", "/recent", "Host: evil.example")).status == 401


@pytest.mark.parametrize("lane", ["on", "off"])
def test_in_front_of_a_server_here_no_stranger_s_page_reads_it(start_proxy: StartProxy, lane: str) -> None:
    """A page whose name leads here, too, asks under that name, in place of which the server's is passed on."""
    with Recorder() as upstream:
        proxy = start_proxy(
            *("--mode", f"reverse:{upstream.url}", "--set", "jwt_pages=on", "--set", f"jwt_fast_lane={lane}")
        )
        assert ask(proxy, host="evil.example").status == 403
        assert not upstream.requests
