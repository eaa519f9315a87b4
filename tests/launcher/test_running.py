"""Who is reached by a URL, and how. What is asked for is in commands/test_status.py."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest
import trustme

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import running
from jwtproxy.launcher.running import Proxy

CA = trustme.CA().cert_pem.bytes().decode()


class _Pages(http.server.BaseHTTPRequestHandler):
    said = CA

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ca.pem" else 404)
        self.end_headers()
        self.wfile.write(self.said.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(("given", "host"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")])
def test_who_listens_everywhere_is_reached_by_loopback(given: str, host: str) -> None:
    assert running.dialable(given, 8080) == Proxy(host, 8080)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("http://me:p%40ss@127.0.0.1:{port}/", "http://me:p%40ss@127.0.0.1:{port}"),
    ],
)
def test_user_and_password_are_handed_on(given: str, url: str, port: int) -> None:
    assert running.reach_named(given.format(port=port)) == (url.format(port=port), CA)


def test_the_ca_is_asked_for_where_the_pages_are(port: int) -> None:
    assert running.reach(Proxy("127.0.0.1", 1), pages=Proxy("127.0.0.1", port)) == ("http://127.0.0.1:1", CA)


@pytest.mark.parametrize("said", ["", "<html>", CA + CA, CA[:100]], ids=["nothing", "HTML", "two", "a part"])
def test_what_is_no_certificate_is_a_mistake(said: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Pages, "said", said)
    with pytest.raises(SettingsError, match=r"/ca\.pem holds (2|no) certificates"):
        running.reach(Proxy("127.0.0.1", port))


def test_no_mistake_shows_the_password(port: int) -> None:
    for url in (f"https://me:secret@127.0.0.1:{port}", "http://me:secret@127.0.0.1:1", "http://me:secret@"):
        with pytest.raises(SettingsError) as caught:
            running.reach_named(url)
        assert "secret" not in f"{caught.value} {caught.value.hint}"
