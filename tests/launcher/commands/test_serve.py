"""The launcher from its arguments to its exit status, in this process."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from mitmproxy.certs import create_ca
from mitmproxy.io import FlowWriter
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

import jwtproxy
from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.commands import serve
from jwtproxy.observe.counters import Counters
from jwtproxy.policy.current import Change
from jwtproxy.tokens.key_source import SECRET, KeySource

pytestmark = [
    pytest.mark.usefixtures("pristine"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

KEY = secrets.token_bytes(64)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Listening sockets are left to the end of the process, of which there is none here."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def key(pristine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SHARED_SECRET", KEY.hex())


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _started(port: int, number: int) -> threading.Thread:
    """Ends the proxy with this signal once it answers: by then it has its handlers."""

    def end() -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(200):
            try:
                with opener.open(f"http://127.0.0.1:{port}/status", timeout=5):
                    os.kill(os.getpid(), number)
                return
            except OSError:
                time.sleep(0.05)

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    return thread


@pytest.mark.usefixtures("key")
def test_check_checks_and_serves_nothing(capsys: pytest.CaptureFixture[str], taken: int) -> None:
    assert serve.run(["--check", "--port", str(taken)]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    first, *rest = printed.splitlines()
    assert first == "jwtproxy: all settings are valid"
    assert rest[0].split() == ["key", "JWT_SHARED_SECRET", "(environment)"]
    assert len(rest) == 9


@pytest.mark.usefixtures("key")
def test_check_tells_programs_of_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.run(["--check", "--json", "--set", "jwt_user=ci"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["options"]["jwt_user"] == {"value": "ci", "source": "--set", "where": "--set"}
    assert KEY.hex() not in json.dumps(told)
    assert serve.run(["--json"]) == 2
    assert capsys.readouterr().err.startswith("jwtproxy: error: --json without --check\n")


SCRIPT = "def load(loader):\n    loader.add_option('mine', str, '', 'Of a script.')\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "mine=1", "-s", "mine.py"], ""),
        (["--set", "min=1", "-s", "mine.py"], "unknown option 'min'"),
        (["--set", "mine=1"], "unknown option 'mine'"),
        (["--set", "mine=1", "-s", "broken.py"], "error in script broken.py"),
    ],
)
@pytest.mark.usefixtures("key")
def test_check_knows_the_options_of_scripts(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    (tmp_path / "broken.py").write_text("def broken(")
    assert serve.run(["--check", *arguments]) == (2 if said else 0)
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("key")
def test_what_no_script_has_ends_the_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    assert serve.run(["--port", "0", "--set", "min=1", "-s", "mine.py"]) == 2
    assert capsys.readouterr() == ("", "jwtproxy: error: unknown option 'min'\njwtproxy: hint: did you mean mine?\n")


def test_version_needs_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"jwtproxy {jwtproxy.__version__}\nMitmproxy: ")


def test_the_reference_lists_ours_and_those_of_scripts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def load(loader):\n    loader.add_option('mine', str, '', 'Of a script.')\n")
    assert serve.run(["--options", "-s", "mine.py"]) == 0
    listed = capsys.readouterr().out
    assert {"jwt_user", "listen_port", "mine"} <= set(re.findall(r"(?m)^(\w+):", listed))
    assert serve.run(["--commands"]) == 0


@pytest.mark.parametrize(
    ("environ", "arguments", "said"),
    [
        ({"JWT_SHARED_SECRET": None}, [], "JWT_SHARED_SECRET is not set"),
        ({"JWT_SHARED_SECRET": ""}, [], "JWT_SHARED_SECRET is empty"),
        ({"JWT_SHARED_SECRET": KEY.hex()[2:]}, [], "JWT_SHARED_SECRET has 63 bytes, HS512 needs at least 64"),
        ({"JWT_SHARED_SECRET_FILE": "x"}, [], "both JWT_SHARED_SECRET and JWT_SHARED_SECRET_FILE are set"),
        ({"WORKERS": "many"}, [], "bad value 'many' for WORKERS"),
        ({"HTTP_PORT": "http"}, [], "bad value 'http' for HTTP_PORT"),
        ({"HTTP_HOST": "192.0.2.1"}, [], "cannot listen on 192.0.2.1:8080: "),
        ({}, ["--nonsense"], "unrecognized arguments: --nonsense"),
        ({}, ["--set", "jwt_x=1"], "unknown option 'jwt_x'"),
        ({}, ["-s", "missing.py", "--port", "0"], "no such script"),
        ({}, ["-s", "broken.py", "-n"], "error in script broken.py"),
        ({}, ["-w", "no/such/folder", "--port", "0", "--workers", "2"], "2 workers cannot be used"),
        ({"JWT_ALGORITHM": "none"}, ["--check"], "bad value 'none' for jwt_algorithm"),
    ],
)
@pytest.mark.usefixtures("key")
def test_a_mistake_ends_the_start_with_one_line_and_status_2(
    environ: dict[str, str | None],
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.py").write_text("def broken(")
    for name, value in environ.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    assert serve.run(arguments) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert said in errors
    assert re.fullmatch(r"jwtproxy: error: .+\n(jwtproxy: hint: .+\n)?", errors)
    assert KEY.hex()[2:] not in errors


@pytest.mark.parametrize("config", ["jwt_user: [1]", "jwt_user: true", "jwt_user: 2020-01-01", "listen_port: [1]"])
@pytest.mark.usefixtures("key")
def test_a_value_of_the_wrong_type_in_the_config_is_a_mistake_too(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(config)
    assert serve.run(["--set", f"confdir={tmp_path}", "--check"]) == 2
    assert re.fullmatch(r"jwtproxy: error: .+\njwtproxy: hint: .+\n", capsys.readouterr().err)


@pytest.mark.usefixtures("key")
def test_a_port_that_is_taken_is_said(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.run(["--port", str(taken)]) == 2
    assert capsys.readouterr().err.startswith(
        f"jwtproxy: error: cannot listen on 127.0.0.1:{taken}: address already in use\n"
    )


def _listening(**options: Any) -> tuple[Options, serve.Sockets]:
    """The options after all that they say is bound, and what is."""
    given = Options(listen_host="127.0.0.1")
    given.update(**options)
    bound = serve._listen(given)
    for sockets in bound.values():
        for sock in sockets:
            assert sock.getsockname()[1] > 0
            sock.close()
    return given, bound


@pytest.mark.parametrize(
    ("mode", "host"),
    [
        ("regular@0", "127.0.0.1"),
        ("regular@127.0.0.1:0", "127.0.0.1"),
        ("reverse:http://up.example:80@0", "127.0.0.1"),
        ("upstream:http://up.example:80@127.0.0.1:0", "127.0.0.1"),
    ],
)
def test_a_mode_with_any_port_binds_one_and_names_it(mode: str, host: str) -> None:
    """Whoever was told 0 later would take another, each worker its own."""
    options, bound = _listening(mode=[mode])
    (((at, port), sockets),) = bound.items()
    assert len(sockets) == 1
    assert at == host
    assert port > 0
    assert options.mode == [f"{mode[:-1]}{port}"]
    spec = ProxyMode.parse(options.mode[0])
    assert (spec.listen_host(options.listen_host), spec.listen_port(options.listen_port)) == (at, port)
    assert options.listen_port is None


def test_each_of_several_modes_names_its_own_port(port: int) -> None:
    modes = ["regular@0", f"socks5@{port}", "reverse:http://up.example@127.0.0.1:0", "reverse:udp://up.example:9@0"]
    options, bound = _listening(mode=modes)
    (_, first), fixed, (_, last) = bound
    assert fixed == ("127.0.0.1", port)
    assert len({first, port, last}) == 3
    assert options.mode == [
        f"regular@{first}",
        f"socks5@{port}",
        f"reverse:http://up.example@127.0.0.1:{last}",
        "reverse:udp://up.example:9@0",  # on UDP alone: not ours to bind
    ]


def test_any_port_for_all_is_named_by_the_option() -> None:
    options, bound = _listening(listen_port=0, mode=["regular"])
    assert list(bound) == [("127.0.0.1", options.listen_port)]
    assert options.listen_port > 0
    assert options.mode == ["regular"]


def test_without_a_server_nothing_is_bound() -> None:
    options, bound = _listening(server=False, mode=["regular@0"])
    assert bound == {}
    assert options.mode == ["regular@0"]


class Changing:
    """What follows the files, in place of a CurrentPolicy."""

    def __init__(self, *reports: Change | None) -> None:
        self.asked: list[str] = []
        self._reports = list(reports)

    def poll(self) -> Change | None:
        return self._answer("poll")

    def reload(self) -> Change | None:
        return self._answer("reload")

    def _answer(self, asked: str) -> Change | None:
        self.asked.append(asked)
        return self._reports.pop(0)


def _plan(live: Any, *, terminal: bool = False) -> serve.Plan:
    return serve.Plan(KeySource(SECRET, KEY), live, {}, {}, {}, Counters(), 2, 0, terminal)


def test_what_changed_is_told_once_for_all_workers(capsys: pytest.CaptureFixture[str]) -> None:
    live = Changing(None, "reloaded: 1 keys", SettingsError("no good", "mend it"), None)
    for asked in (False, False, False, True):
        serve._refresh(_plan(live), asked)
    assert live.asked == ["poll", "poll", "poll", "reload"]
    assert capsys.readouterr() == (
        "jwtproxy: reloaded: 1 keys\n",
        "jwtproxy: error: no good; keeping the previous configuration\njwtproxy: hint: mend it\n",
    )


def test_a_reader_who_has_gone_ends_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arbiter stops them all for an exception."""
    reading, writing = os.pipe()
    os.close(reading)
    gone_on = False
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        serve._refresh(_plan(Changing("reloaded: 1 keys")), False)
        gone_on = True
    assert gone_on


def test_a_closed_terminal_ends_the_whole_and_no_terminal_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    with pytest.raises(StopIteration):
        serve._refresh(_plan(Changing(), terminal=True), True)
    live = Changing(None)
    serve._refresh(_plan(live, terminal=False), True)
    assert live.asked == ["reload"]
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    live = Changing(None)
    serve._refresh(_plan(live, terminal=True), True)
    assert live.asked == ["reload"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("key")
def test_a_signal_ends_it_well(number: int, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    thread = _started(port, number)
    assert serve.run(["--port", str(port)]) == 0
    thread.join()
    printed, errors = capsys.readouterr()
    assert printed.startswith(f"jwtproxy {jwtproxy.__version__} listening on http://127.0.0.1:{port}\n")
    assert errors == ""


@pytest.mark.usefixtures("key")
def test_a_port_of_the_systems_choice_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import os\ndef running(): os.kill(os.getpid(), 15)\n")
    assert serve.run(["--port", "0", "-s", "ends.py"]) == 0
    assert re.search(r"listening on http://127\.0\.0\.1:[1-9]\d*\n", capsys.readouterr().out)


@pytest.mark.usefixtures("key")
def test_it_ends_when_there_is_nothing_left_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS", "auto")
    _flows(tmp_path / "flows")
    assert serve.run(["-n", "-r", "flows"]) == 0
    printed, errors = capsys.readouterr()
    assert printed.startswith("jwtproxy: one worker, as -r keeps its records in one process\n")
    assert "GET http://address:22/path 200 " in printed
    assert errors == ""


def _flows(path: Path) -> None:
    with path.open("wb") as file:
        FlowWriter(file).add(tflow.tflow(resp=True))


def _a_file(folder: Path) -> None:
    folder.write_text("not a folder")


def _a_broken_ca(folder: Path) -> None:
    folder.mkdir()
    (folder / "mitmproxy-ca.pem").write_text("not a key")


def _a_locked_ca(folder: Path) -> None:
    folder.mkdir()
    key, certificate = create_ca("someone", "someone", 2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    locked = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"right"))
    (folder / "mitmproxy-ca.pem").write_bytes(locked + certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("make", "passphrase", "said"),
    [
        (_a_file, None, "file exists"),
        (_a_broken_ca, None, "unable to load pem file"),
        (_a_locked_ca, None, "password was not given"),
        (_a_locked_ca, "wrong", "incorrect password"),
    ],
)
@pytest.mark.usefixtures("key")
def test_a_ca_that_cannot_be_used_is_said_before_anything_listens(
    make: Callable[[Path], None],
    passphrase: str | None,
    said: str,
    tmp_path: Path,
    taken: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "ca"
    make(folder)
    with pytest.raises(SettingsError, match=said) as caught:
        serve.prepare_ca(Options(confdir=str(folder), cert_passphrase=passphrase))
    assert "--set confdir=FOLDER" in caught.value.hint
    more = ["--set", f"cert_passphrase={passphrase}"] if passphrase else []
    assert serve.run(["--port", str(taken), "--set", f"confdir={folder}", *more]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert re.fullmatch(
        rf"jwtproxy: error: cannot use the CA in '{re.escape(str(folder))}': .*{said}.*\njwtproxy: hint: .+\n", errors
    )


def test_a_ca_is_made_once_and_a_locked_one_opened(tmp_path: Path) -> None:
    options = Options(confdir=str(tmp_path / "new" / "ca"))
    serve.prepare_ca(options)
    made = {path.name: path.read_bytes() for path in (tmp_path / "new" / "ca").iterdir()}
    assert {"mitmproxy-ca.pem", "mitmproxy-ca-cert.pem"} <= set(made)
    serve.prepare_ca(options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "new" / "ca").iterdir()} == made
    _a_locked_ca(tmp_path / "locked")
    serve.prepare_ca(Options(confdir=str(tmp_path / "locked"), cert_passphrase="right"))
