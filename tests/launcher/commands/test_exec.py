"""What is refused, and warned of, before a command runs. What it does then is in e2e/test_exec.py."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path
from typing import Any

import certifi
import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import beside, running
from jwtproxy.launcher.addons.tally import Passed
from jwtproxy.launcher.clients import bundles
from jwtproxy.launcher.commands import exec as exec_
from jwtproxy.launcher.plan import Plan
from jwtproxy.launcher.processes import command
from jwtproxy.launcher.running import Reach

SECRET = secrets.token_hex(64)

Captured = pytest.CaptureFixture[str]
Ran = list[tuple[list[str], Reach, Plan | None]]


@pytest.fixture(autouse=True)
def ran(pristine: None, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """What would have been run; it does nothing, well."""
    monkeypatch.setenv("JWT_SHARED_SECRET", SECRET)
    ran: Ran = []

    def run(words: Any, reach: Reach, plan: Plan | None) -> tuple[int, Passed]:
        ran.append((words, reach, plan))
        for sock in plan.all_sockets if plan else ():
            sock.close()
        return 0, Passed({"a.example": 1}, {}, {}, {})

    monkeypatch.setattr(beside, "run", run)
    return ran


def _run(*flags: str) -> None:
    os.environ["JWT_SHARED_SECRET"] = SECRET  # which is forgotten each time
    assert exec_.run([*flags, "--", "true"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        ([], "exec needs a command", "put -- before the command"),
        (["--"], "exec needs a command", "put -- before the command"),
        (["curl", "http://x"], "'curl' comes before --", "put -- before the command"),
        (["--user", "ci", "curl", "--", "x"], "'curl' comes before --", "put -- before the command"),
        (["--workers", "2", "--", "true"], "--workers means nothing to exec", "leave it out"),
        (["--check", "--", "true"], "--check means nothing to exec", "leave it out"),
        (["--options", "--", "true"], "--options means nothing to exec", "leave it out"),
        (["--mode", "reverse:http://x", "--", "true"], "exec does not work in mode reverse:http://x", "leave --mode"),
        (["--mode", "socks5", "--", "true"], "exec does not work in mode socks5", "leave --mode"),
        (["--set", "proxyauth=a:b", "--", "true"], "exec does not work with --proxyauth", "exec --proxy http://USER"),
        (["--proxy", "http://x", "--user", "ci", "--", "true"], "--user means nothing with --proxy", "leave one"),
        (["--proxy", "http://x", "--summary", "--", "true"], "--summary means nothing with --proxy", "leave one"),
        (["--proxy", "http://x", "--set", "a=b", "--", "true"], "--set means nothing with --proxy", "leave one"),
        (["--proxy", "127.0.0.1:1", "--", "true"], "nobody answers at http://127.0.0.1:1: connection refused", "serve"),
        (["--ttl", "x", "--", "true"], "bad value 'x' for jwt_ttl", "number"),
    ],
)
def test_mistakes(arguments: list[str], said: str, hint: str, ran: Ran) -> None:
    with pytest.raises(SettingsError) as caught:
        exec_.run(arguments)
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert ran == []


def test_it_listens_on_loopback_wherever_servers_would(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may run with these very settings."""
    for name, value in (("HTTP_PORT", "1"), ("HTTP_HOST", "*"), ("WORKERS", "4"), ("JWT_PAGES", "127.0.0.1:1")):
        monkeypatch.setenv(name, value)
    Path("config.yaml").write_text("listen_port: 1\nlisten_host: 0.0.0.0\n")
    assert exec_.run(["--set", "confdir=.", "--", "true", "--set", "x"]) == 0
    ((words, reach, plan),) = ran
    assert words == ["true", "--set", "x"]
    assert plan
    ((host, port),) = plan.sockets
    assert (reach.url, host, plan.workers) == (f"http://127.0.0.1:{port}", "127.0.0.1", 1)
    assert port > 1
    assert reach.ca == Path("mitmproxy-ca-cert.pem").read_text()


def test_upstreams_are_trusted_as_the_command_would(ran: Ran) -> None:
    _run()
    _run("--set", f"ssl_verify_upstream_trusted_ca={certifi.where()}")
    _run("--set", "ssl_verify_upstream_trusted_confdir=.")
    assert [plan and plan.options.get("ssl_verify_upstream_trusted_ca") for _, _, plan in ran] == [
        bundles.system_roots(os.environ),
        certifi.where(),
        None,
    ]


def test_nothing_is_printed_of_requests_unless_it_is_wanted(ran: Ran) -> None:
    _run()
    _run("--set", "flow_detail=1")
    _run("-v")
    assert [plan and plan.options.get("flow_detail", 1) for _, _, plan in ran] == [0, 1, 2]


@pytest.mark.parametrize(
    ("place", "warns"), [("key.hex", True), ("deeper/key.hex", True), ("../key.hex", False), ("~/.keys/hex", False)]
)
def test_a_key_beside_the_command_is_warned_of(
    place: str, warns: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JWT_SHARED_SECRET")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    path = Path(place).expanduser()
    path.parent.mkdir(exist_ok=True)
    path.write_text(SECRET)
    assert exec_.run(["--key", place, "--", "true"]) == 0
    assert capsys.readouterr().err == (
        f"jwtproxy: warning: the command can read the key in {place!r}: keep it outside of this directory\n" * warns
    )
    assert exec_.run(["-q", "--key", place, "--", "true"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("content", "warns"), [(f"JWT_SHARED_SECRET={SECRET}", True), ("A=b", False), ("'", False)])
def test_so_is_one_in_dotenv_that_another_proxy_may_sign_with(
    content: str, warns: bool, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(content)
    monkeypatch.setattr(running, "reach_named", lambda url: Reach(url, ""))
    assert exec_.run(["--proxy", "http://127.0.0.1:1", "--", "true"]) == 0
    assert ("the command can read JWT_SHARED_SECRET in .env here" in capsys.readouterr().err) == warns
    assert exec_.run(["-q", "--proxy", "http://127.0.0.1:1", "--", "true"]) == 0
    assert capsys.readouterr().err == ""


def test_so_is_a_key_of_a_rule(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.hex").write_text(SECRET)
    Path("rules.yaml").write_text("rules:\n- {match: ~m PUT, key: other.hex}\n- {match: ~m GET, key: other.hex}\n")
    _run("--rules", "rules.yaml")
    errors = capsys.readouterr().err
    assert (
        errors == "jwtproxy: warning: the command can read the key in 'other.hex': keep it outside of this directory\n"
    )


def test_another_proxy_that_is_passed_over_is_warned_of(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@corporate.example:3128")
    assert exec_.run(["--", "true"]) == 0
    errors = capsys.readouterr().err
    assert errors.startswith("jwtproxy: warning: https_proxy names another proxy, which is passed over")
    assert "secret" not in errors
    _run("--mode", "upstream:http://corporate.example:3128")
    assert capsys.readouterr().err == ""


def test_what_the_proxy_has_not_said_is_not_known(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    run = beside.run
    monkeypatch.setattr(beside, "run", lambda *given: (run(*given)[0], None))
    assert exec_.run(["--require-signed", "--", "true"]) == 3
    assert capsys.readouterr().err == (
        "jwtproxy: error: it is not known whether anything was signed, as the proxy has not said it\n"
    )


def test_the_summary_is_no_part_of_the_output(capsys: Captured) -> None:
    assert exec_.run(["--summary", "--require-signed", "--", "true"]) == 0
    assert capsys.readouterr() == ("", "jwtproxy: signed: 1\njwtproxy:         1  a.example\n")


@pytest.mark.parametrize(("status", "code"), [(0, 3), (5 << 8, 3), (signal.SIGINT, 130)])
def test_a_command_that_was_interrupted_is_not_asked_what_it_has_sent(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = beside.run

    def ended(words: list[str], reach: Reach, plan: Plan | None) -> tuple[int, Passed]:
        run(words, reach, plan)  # closes what it is given
        return status, Passed({}, {}, {}, {})

    monkeypatch.setattr(beside, "run", ended)
    monkeypatch.setattr(command, "end_like", lambda status: 128 + status)
    assert exec_.run(["--require-signed", "--", "true"]) == code
