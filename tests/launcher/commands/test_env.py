"""The variables for a shell, and the files that they name."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import running
from jwtproxy.launcher.clients.certificate import blocks
from jwtproxy.launcher.commands import env
from jwtproxy.launcher.running import Proxy, Reach

CA = trustme.CA().cert_pem.bytes().decode()

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def asked(pristine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Proxy]:
    """Who is asked for the CA."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked: list[Proxy] = []

    def reach(proxy: Proxy, pages: Proxy | None = None) -> Reach:
        asked.append(pages or proxy)
        return Reach(proxy.url, CA)

    monkeypatch.setattr(running, "reach", reach)
    return asked


def _printed(capsys: Captured, *arguments: str) -> list[str]:
    assert env.run([*arguments]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    return printed.splitlines()


def test_a_proxy_on_this_machine_needs_no_naming(
    capsys: Captured, asked: list[Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a key."""
    monkeypatch.setenv("HTTP_PORT", "9090")
    monkeypatch.setenv("HTTP_HOST", "*")
    assert "export http_proxy=http://127.0.0.1:9090" in _printed(capsys)
    assert "export https_proxy=http://127.0.0.1:7070" in _printed(capsys, "--port", "7070")
    assert "set -gx http_proxy 'http://10.0.0.7:8080'" in _printed(
        capsys, "--proxy", "http://10.0.0.7:8080", "--shell", "fish"
    )
    assert asked == [Proxy("127.0.0.1", 9090), Proxy("127.0.0.1", 7070), Proxy("10.0.0.7", 8080)]


def test_the_pages_may_be_elsewhere(capsys: Captured, asked: list[Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_PAGES", "127.0.0.1:9091")
    assert "export http_proxy=http://127.0.0.1:8080" in _printed(capsys)
    assert asked == [Proxy("127.0.0.1", 9091)]


def test_the_files_stay_where_only_this_user_looks_and_are_the_same_each_time(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = dict(line.partition("=")[::2] for line in _printed(capsys, "--shell", "dotenv"))
    bundle = Path(lines["SSL_CERT_FILE"])
    assert blocks(bundle.read_text())[-1] == CA.strip()
    assert bundle.parent.parent == tmp_path / "cache" / "jwtproxy"
    assert bundle.parent.stat().st_mode & 0o777 == 0o700
    for name, value in lines.items():
        monkeypatch.setenv(name, value.strip('"'))
    before = bundle.read_bytes()
    assert dict(line.partition("=")[::2] for line in _printed(capsys, "--shell", "dotenv")) == lines
    assert bundle.read_bytes() == before


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="invalid choice: 'zsh'"):
        env.run(["--shell", "zsh"])
    with pytest.raises(SettingsError, match="may be another machine"):
        env.run(["--host", "10.0.0.7"])
    (tmp_path / "cache").write_text("")
    with pytest.raises(SettingsError, match=r"cannot write to .*: not a directory") as caught:
        env.run([])
    assert "XDG_CACHE_HOME" in caught.value.hint
