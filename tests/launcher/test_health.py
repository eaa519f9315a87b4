"""jwtproxy-health: what probes run."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jwtproxy.config.place import Place
from jwtproxy.launcher import health


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, with no settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_HOST", "HTTP_PORT", "JWT_PAGES"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def _answering(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server that says this to the first who asks, and what that was."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            asked.append(connection.recv(1 << 16))
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], asked
        thread.join(10)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({}, ("localhost", 8080)),
        ({"HTTP_HOST": "*", "HTTP_PORT": "9090"}, ("localhost", 9090)),
        ({"HTTP_HOST": "127.0.0.2", "HTTP_PORT": ""}, ("127.0.0.2", 8080)),
        ({"HTTP_HOST": "127.0.0.2", "JWT_PAGES": "on"}, ("127.0.0.2", 8080)),
        ({"HTTP_HOST": "127.0.0.2", "JWT_PAGES": "*:8081"}, ("localhost", 8081)),
        ({"JWT_PAGES": "[::1]:8081"}, ("::1", 8081)),
    ],
)
def test_the_settings_say_where_the_pages_are(settings: dict[str, str], place: tuple[str, int]) -> None:
    assert health.listening(settings) == place


@pytest.mark.parametrize(("arguments", "path"), [([], b"/readyz"), (["--live"], b"/livez")])
def test_it_asks_for_one_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], path: bytes
) -> None:
    with _answering(b"HTTP/1.1 200 OK\r\n\r\nok\n") as (port, asked):
        monkeypatch.setenv("HTTP_PORT", str(port))
        monkeypatch.setattr(sys, "argv", ["jwtproxy-health", *arguments])
        with pytest.raises(SystemExit) as caught:
            health.main()
    assert caught.value.code == 0
    assert asked[0].startswith(b"GET " + path + b" HTTP/1.1\r\n")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\njwtproxy: no\n", ""),  # jwt_pages=off
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\njwtproxy: not ready: draining\n", "not ready: draining"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n\x1b[2J", "\\x1b[2J"),
        (b"SSH-2.0-x\r\n", "no answer: it is none that a proxy gives"),
        (b"", "no answer: it is none that a proxy gives"),
    ],
)
def test_what_is_wrong_is_told(answer: bytes, said: str) -> None:
    with _answering(answer) as (port, _):
        assert health.ask(Place("127.0.0.1", port), "/readyz") == said


def test_who_is_not_there_is_not_ready(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for value, said in ((str(port), "no answer: connection refused"), ("x", "no answer: invalid literal")):
        monkeypatch.setenv("HTTP_PORT", value)
        assert health._run([]) == 1
        assert capsys.readouterr().err.startswith(f"jwtproxy: error: {said}")


def test_dotenv_says_what_the_environment_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with _answering(b"HTTP/1.1 200 OK\r\n\r\nok\n") as (port, _):
        (tmp_path / ".env").write_text(f"HTTP_PORT={port}\nHTTP_HOST=192.0.2.1\n")
        monkeypatch.setenv("HTTP_HOST", "127.0.0.1")
        assert health._run([]) == 0


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert health._run(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: jwtproxy-health [--live]\n")
    assert health._run(["--dead"]) == 2
    assert "'--dead' means nothing to jwtproxy-health" in capsys.readouterr().err


def test_nothing_heavy_is_imported() -> None:
    """It runs every few seconds, on machines that have better to do."""
    code = "import sys, jwtproxy.launcher.health; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"mitmproxy", "jwt", "argparse", "asyncio", "dotenv", "werkzeug"} & set(done.stdout.split())
