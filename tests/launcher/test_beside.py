"""What goes wrong around a command. What goes right is in e2e/test_exec.py."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trustme

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import beside
from jwtproxy.launcher.clients import bundles
from jwtproxy.launcher.processes import command
from jwtproxy.launcher.processes.companion import Companion
from jwtproxy.launcher.running import Reach

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # xdist's

REACH = Reach("http://127.0.0.1:1", trustme.CA().cert_pem.bytes().decode())


@pytest.fixture(autouse=True)
def temporary(pristine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders are made, which must be empty afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_command_gets_the_variables_and_the_folder_is_its_own(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SHARED_SECRET", "00")
    monkeypatch.setenv("NO_PROXY", "mine")
    seen: list[tuple[list[str], dict[str, str]]] = []

    def run(words: list[str], environ: dict[str, str], attend: object) -> int:
        seen.append((words, environ))
        return 0

    monkeypatch.setattr(command, "run", run)
    assert beside.run(["a", "b"], REACH, None) == (0, None)
    ((words, environ),) = seen
    assert words == ["a", "b"]
    assert (environ["http_proxy"], environ["NO_PROXY"]) == (REACH.url, "mine")
    assert environ["SSL_CERT_FILE"].startswith(f"{temporary}/jwtproxy-")
    assert "JWT_SHARED_SECRET" not in environ
    assert list(temporary.iterdir()) == []


def test_a_command_that_cannot_be_run_leaves_nothing(temporary: Path) -> None:
    with pytest.raises(FileNotFoundError):
        beside.run(["no-such-command"], REACH, None)
    assert list(temporary.iterdir()) == []


def test_no_place_for_files_is_a_mistake(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(bundles, "write", full)
    with pytest.raises(SettingsError, match="no space left on device"):
        beside.run(["true"], REACH, None)
    assert list(temporary.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "none"))
    with pytest.raises(SettingsError, match="no such file or directory") as caught:
        beside.run(["true"], REACH, None)
    assert "TMPDIR" in caught.value.hint

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(SettingsError, match="no usable temporary directory found"):
        beside.run(["true"], REACH, None)


def test_who_removes_the_folder_is_there_before_it(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be left where we are killed in between."""
    fork = Companion.fork
    there: list[Path] = []

    def looks(work: Any) -> Companion:
        there.extend(temporary.iterdir())
        return fork(work)

    monkeypatch.setattr(Companion, "fork", looks)
    monkeypatch.setattr(command, "run", lambda *_: 0)
    assert beside.run(["true"], REACH, None) == (0, None)
    assert there == []


def test_the_end_of_who_has_not_read_all_is_an_end() -> None:
    """Who is killed then resets the line."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        theirs.sendall(b"ready\n")
        ours.close()
        asyncio.run(beside._end_of(theirs))


def test_a_proxy_that_does_not_start_is_a_mistake(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_accompany", lambda plan, folder, line: 2)
    monkeypatch.setattr(command, "run", lambda *_: pytest.fail("it must not run"))
    with pytest.raises(SettingsError, match="the proxy has not started"):
        beside.run(["true"], REACH, None)
    assert list(temporary.iterdir()) == []
