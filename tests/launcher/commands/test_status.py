"""`jwtproxy-run status` asks a running proxy, the one that these settings mean, and no other machine unasked."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import running
from jwtproxy.launcher.commands import status

pytestmark = pytest.mark.usefixtures("pristine")

Captured = pytest.CaptureFixture[str]
SAID = {
    "uptime_seconds": 3.1,
    "proxied_requests": 7,
    "version": "0.1.0",
    "outcomes": {"2xx": 6, "3xx": 0, "failed": 1},
    "latency": {"signing_seconds": {"count": 7, "p50": 0.0001}, "upstream_seconds": {"count": 0, "p50": None}},
    "workers": [{"number": 1, "pid": 17}, {"number": 2, "pid": 18}],
    "keys": [],
    "history": {"requests_per_second": [1.0]},
    "limits": {"jwt_max_head": {"value": "128k", "reached": 0}, "jwt_max_body": {"value": "64m", "reached": 2}},
}


@contextmanager
def _answering(body: bytes, code: int = 200, host: str = "127.0.0.1", password: str = "") -> Iterator[int]:
    """The port of a server that answers a request for /status so. `password`: who it wants it to be, if anybody."""
    wanted = f"Basic {base64.b64encode(password.encode()).decode()}" if password else None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = self.path == "/status" and self.headers["Accept"] == "application/json"
            is_let_in = self.headers["Authorization"] == wanted
            self.send_response(code if right and is_let_in else 400 if is_let_in else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def _shown(capsys: Captured, *arguments: str) -> str:
    assert status.run([*arguments]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    return printed


def _failed(capsys: Captured, *arguments: str) -> str:
    assert status.run([*arguments]) == 1
    printed, errors = capsys.readouterr()
    assert printed == ""
    error, hint = errors.splitlines()
    assert hint.startswith("jwtproxy: hint: jwtproxy-run serve starts one; --proxy http://HOST:PORT asks another")
    return error.removeprefix("jwtproxy: error: ")


def test_for_people(capsys: Captured) -> None:
    with _answering(json.dumps(SAID).encode()) as port:
        assert _shown(capsys, "--port", str(port)) == (
            f"http://127.0.0.1:{port}\n"
            "uptime_seconds    3.1\n"
            "proxied_requests  7\n"
            "version           0.1.0\n"
            "outcomes          2xx 6, failed 1\n"
            "signing_seconds   count 7, p50 0.0001\n"
            "upstream_seconds  none\n"
            "workers           number 1, pid 17\n"
            "workers           number 2, pid 18\n"
            "jwt_max_body      64m, reached 2 times\n"
        )


def test_machines_have_a_line_each(capsys: Captured) -> None:
    one = {"id": "a-1", "state": "live", "seen_at": "2026-11-27T10:54:05.500+00:00", "proxied_requests": 3, "x": []}
    odd: list[Any] = [None, {"id": "\x1b", "state": "\x1b"}]
    said = {"proxied_requests": 1, "redis": "connected", "total": {"instances": 1}, "instances": [one, *odd]}
    with _answering(json.dumps(said).encode()) as port:
        assert _shown(capsys, "--port", str(port)).splitlines()[1:] == [
            "proxied_requests  1",
            "redis             connected",
            "all instances     instances 1",
            "a-1               live, 3 requests, seen 2026-11-27T10:54:05.500+00:00",
            r'"\u001b"          "\u001b", null requests, seen null',
        ]


def test_for_scripts(capsys: Captured) -> None:
    with _answering(json.dumps(SAID).encode()) as port:
        assert json.loads(_shown(capsys, "--json", "-p", str(port))) == SAID


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "http://127.0.0.1:{}/status", "127.0.0.1:{}"])
def test_a_proxy_may_be_named(form: str, capsys: Captured) -> None:
    with _answering(json.dumps(SAID).encode()) as port:
        assert _shown(capsys, "--proxy", form.format(port)).startswith(f"http://127.0.0.1:{port}\n")


def test_a_password_may_be_wanted(capsys: Captured) -> None:
    with _answering(json.dumps(SAID).encode(), password="me:p@ss") as port:
        url = f"http://127.0.0.1:{port}"
        assert _shown(capsys, "--proxy", f"http://me:p%40ss@127.0.0.1:{port}").startswith(f"{url}\n")
        for given in (url, f"http://me:secret@127.0.0.1:{port}"):
            said = _failed(capsys, "--proxy", given)
            assert (
                said
                == f"who answers at {url} wants the right user and password: --proxy http://USER:PASSWORD@HOST:PORT"
            )


def test_it_asks_where_the_settings_would_listen(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """And asks itself, whatever proxy is for others."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with _answering(json.dumps(SAID).encode()) as port:
        monkeypatch.setenv("HTTP_PORT", str(port))
        for host in ("127.0.0.1", "*", "localhost"):
            monkeypatch.setenv("HTTP_HOST", host)
            assert "proxied_requests  7" in _shown(capsys)
        assert "proxied_requests  7" in _shown(capsys, "--mode", f"reverse:http://x@{port}", "--port", "1")


@pytest.mark.parametrize("source", ["variable", "--set", "config.yaml", ".env"])
def test_it_asks_where_the_pages_are(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    arguments = ["--port", "1"]
    with _answering(json.dumps(SAID).encode()) as port:
        place = f"*:{port}"
        if source == "variable":
            monkeypatch.setenv("JWT_PAGES", place)
        elif source == "--set":
            arguments += ["--set", "jwt_pages=on", "--set", f"jwt_pages={place}"]
        elif source == ".env":
            (tmp_path / ".env").write_text(f"JWT_PAGES={place}\n")
        else:
            (tmp_path / "config.yaml").write_text(f'jwt_pages: "{place}"\n')
            arguments += ["--set", f"confdir={tmp_path}"]
        assert _shown(capsys, *arguments).startswith(f"http://127.0.0.1:{port}\n")
        assert _failed(capsys, "--set", "jwt_pages=on", "--port", "1") == (
            "nobody answers at http://127.0.0.1:1: connection refused"
        )


def test_ipv6(capsys: Captured) -> None:
    try:
        with _answering(json.dumps(SAID).encode(), host="::1") as port:
            for place in (("--host", "::1", "--port", str(port)), ("--proxy", f"http://[::1]:{port}")):
                assert _shown(capsys, *place).startswith(f"http://[::1]:{port}\n")
    except OSError:
        pytest.skip("no IPv6 here")


def test_nobody_is_an_error(capsys: Captured) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert _failed(capsys, "--proxy", url) == f"nobody answers at {url}: connection refused"


def test_silence_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(running, "_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert _failed(capsys, "--proxy", url) == f"nobody answers at {url}: timed out"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not found", 404),
        (b"{}", 200),
        (b"[1]", 200),
        (b"[" * 100_000, 200),
        (b"\xff", 200),
        (json.dumps(SAID).encode(), 503),
    ],
)
def test_somebody_else_is_an_error(body: bytes, code: int, capsys: Captured) -> None:
    with _answering(body, code) as port:
        url = f"http://127.0.0.1:{port}"
        said = f"who answers at {url} is no jwtproxy, or shows no /status (jwt_pages)"
        assert _failed(capsys, "--proxy", url) == said


def test_what_is_no_http_is_an_error(capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as client:
                client.recv(4096)
                client.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "is no jwtproxy" in _failed(capsys, "--port", str(server.getsockname()[1]))
        thread.join()


def test_nothing_that_comes_controls_a_terminal(capsys: Captured) -> None:
    said: dict[str, Any] = {"proxied_requests": 1, "\x1b[31m": "\x1b]0;x\x07", "limits": {"\x1b": {"reached": "\x1b"}}}
    with _answering(json.dumps(said).encode()) as port:
        for form in ((), ("--json",)):
            assert _shown(capsys, "--port", str(port), *form).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (
            ["--host", "192.0.2.1"],
            "'192.0.2.1' may be another machine, and is not asked",
            "--proxy http://192.0.2.1:8080",
        ),
        (["--host", "proxy.example"], "'proxy.example' may be another machine", "--proxy http://proxy.example:8080"),
        (["--port", "0"], "the port of the proxy is not known", "--proxy"),
        (["--port", "x"], "bad value 'x' for --port", "65535"),
        (["--proxy", "https://x"], "bad URL 'https://x' for --proxy", "http://"),
        (["--proxy", "http://a:b@"], "bad URL", "https://host:port"),
        (["x"], "unexpected word 'x'", "the commands are"),
        (["keys"], "'keys' is not the first word", "put it first"),
    ],
)
def test_a_mistake_is_named_and_nobody_asked(
    arguments: list[str], said: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "ask", None)
    with pytest.raises(SettingsError) as caught:
        status.run(arguments)
    assert said in str(caught.value)
    assert hint in caught.value.hint
