"""The one place that bends mitmproxy: all or nothing, told in one line, and with a way back."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.addonmanager import AddonManager
from mitmproxy.http import Headers
from mitmproxy.proxy import mode_servers, server
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http1

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import dispatch, http1, idle_timeout, lookups, patches, stream

pytestmark = pytest.mark.usefixtures("pristine")

ROOT = Path(__file__).parents[3]
ALL = (*patches.NEEDED, *patches.FASTER)
ABSENT = object()


def _now() -> list[Any]:
    """What is where we put something, ABSENT where it is inherited."""
    return [vars(pkgutil.resolve_name(patch.owner)).get(patch.name, ABSENT) for patch in ALL]


# --- there and back


def test_ours_take_the_place_of_mitmproxys() -> None:
    assert patches.install(faster=True) == []
    assert http.HttpStream is stream.Stream
    assert (http.Http1Server, http.Http1Client) == (http1.Server, http1.Client)
    assert _http1.ChunkedReader is http1.ChunkedBody
    assert server.TimeoutWatchdog is idle_timeout.Watchdog
    assert mode_servers.ProxyConnectionHandler is dispatch.ConnectionHandler
    assert (Headers.get_all, Headers.get) == (lookups.get_all, lookups.get)
    assert Headers.__contains__ is lookups.contains
    assert _now() == [pkgutil.resolve_name(patch.ours) for patch in ALL]


def test_without_asking_for_speed_only_what_is_needed_is_replaced() -> None:
    before = _now()
    assert patches.install() == []
    needed = len(patches.NEEDED)
    assert _now() == [*(pkgutil.resolve_name(patch.ours) for patch in patches.NEEDED), *before[needed:]]
    assert patches.install(faster=True) == [], "the rest may follow"
    assert _now() == [pkgutil.resolve_name(patch.ours) for patch in ALL]


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_undo_restores_every_name(faster: bool, times: int) -> None:
    before = _now()
    for _ in range(times):
        patches.install(faster=faster)
    assert _now() != before
    patches.undo()
    assert _now() == before
    patches.undo()
    assert _now() == before, "there is nothing left to undo"
    patches.install(faster=faster)
    patches.undo()
    assert _now() == before


# --- another mitmproxy


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (http.HttpStream, "flow_done", "HttpStream.flow_done"),
        (http.HttpStream, "make_server_connection", "HttpStream.make_server_connection"),
        (http, "Http1Client", "Http1Client"),
        (_http1, "ChunkedReader", "ChunkedReader"),
        (_http1, "make_body_reader", "make_body_reader"),
    ],
)
def test_one_that_lacks_what_is_needed_is_refused_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, faster: bool, owner: Any, name: str, said: str
) -> None:
    monkeypatch.delattr(owner, name)
    before = _now()
    with pytest.raises(SettingsError) as caught:
        patches.install(faster=faster)
    assert str(caught.value) == f"this mitmproxy is not suitable: it lacks {said}"
    assert caught.value.hint == f"install a suitable one: pip install '{patches.SUITABLE}'"
    assert _now() == before


def test_all_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        def start_request_stream(self) -> None: ...

        check_invalid = start_request_stream

    monkeypatch.setattr(http, "HttpStream", Older)
    monkeypatch.delattr(http, "Http1Server")
    lacking = patches.missing(patches.NEEDED)
    assert "HttpStream.make_server_connection" in lacking
    assert "Http1Server" in lacking
    assert not {"HttpStream", "HttpStream.check_invalid", "HttpStream.start_request_stream"} & set(lacking)


def test_of_a_module_that_is_gone_the_part_is_named() -> None:
    gone = patches.Patch("mitmproxy.gone:Class", "name", "x:y", "a b")
    assert patches.missing((gone,)) == ["name"]


def _other(self: Any, event: Any, more: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("owner", "name", "value", "said"),
    [
        (mode_servers, "ProxyConnectionHandler", None, ["ProxyConnectionHandler"]),
        (AddonManager, "trigger_event", None, ["AddonManager.trigger_event"]),
        (AddonManager, "trigger_event", _other, ["AddonManager.trigger_event"]),
        (AddonManager, "invoke_addon", _other, ["AddonManager.invoke_addon"]),
        (Headers, "_reduce_values", staticmethod(lambda values: values[0]), ["Headers.get_all"]),
    ],
)
def test_one_that_lacks_what_makes_it_fast_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, value: Any, said: list[str]
) -> None:
    if value is None:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, value)
    before = _now()
    lacking = patches.install(faster=True)
    assert lacking == said
    needed = len(patches.NEEDED)
    assert _now() == [*(pkgutil.resolve_name(patch.ours) for patch in patches.NEEDED), *before[needed:]]
    patches.undo()
    assert _now() == before


def test_the_versions_that_fit_are_those_that_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert patches.SUITABLE in project["dependencies"]


# --- how it is told


def test_a_script_ends_with_one_line_and_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(http.HttpStream, "flow_done")
    with pytest.raises(SystemExit) as caught:
        patches.install_or_exit()
    said, hint = str(caught.value.code).split("\n")
    assert said == "jwtproxy: error: this mitmproxy is not suitable: it lacks HttpStream.flow_done"
    assert hint == f"jwtproxy: hint: install a suitable one: pip install '{patches.SUITABLE}'"


def test_a_script_installs_what_is_needed() -> None:
    patches.install_or_exit()
    assert http.HttpStream is stream.Stream


DELETE = "from mitmproxy.proxy.layers import http; del http.HttpStream.flow_done\n"
TOLD = (
    "jwtproxy: error: this mitmproxy is not suitable: it lacks HttpStream.flow_done\n"
    f"jwtproxy: hint: install a suitable one: pip install '{patches.SUITABLE}'\n"
)


@pytest.mark.slow
def test_the_launcher_tells_it_in_one_line() -> None:
    code = f"{DELETE}import sys; sys.argv[1:] = ['--check']; from jwtproxy.launcher.cli import main; main()"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", TOLD)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["jwt_inject", "status"])
def test_bare_mitmdump_tells_it_in_one_line_and_serves_nothing(tmp_path: Path, script: str) -> None:
    (tmp_path / "delete.py").write_text(DELETE)
    mitmdump = str(Path(sys.executable).with_name("mitmdump"))
    scripts = "-s", str(tmp_path / "delete.py"), "-s", str(ROOT / f"addons/{script}.py")
    where = "--listen-host", "127.0.0.1", "-p", "0", "--set", f"confdir={tmp_path}"
    done = subprocess.run([mitmdump, *scripts, *where], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == TOLD
    assert "listening" not in done.stdout


def _told_at_the_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, pyjwt: bool) -> str:
    """What is said where the process would end."""

    def end(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as caught:
        patches.require_suitable(pyjwt=pyjwt)
    assert caught.value.code == 1
    return capsys.readouterr().err


def test_a_script_ends_an_older_mitmproxy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(patches, "VERSION", "12.1.3")
    said = _told_at_the_end(monkeypatch, capsys, pyjwt=False)
    assert said.startswith("jwtproxy: error: this is mitmproxy 12.1.3, and Python 3.")
    assert f"pip install '{patches.SUITABLE}'" in said


def test_a_script_that_needs_pyjwt_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    patches.require_suitable()
    assert "PyJWT is not installed" in _told_at_the_end(monkeypatch, capsys, pyjwt=True)


@pytest.mark.parametrize("version", ["12.2", "12.2.3", "13.0.0", "12.10.0 dev"])
def test_a_suitable_mitmproxy_is_left_alone(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(patches, "VERSION", version)
    patches.require_suitable(pyjwt=True)
