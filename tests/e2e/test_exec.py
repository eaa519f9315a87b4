"""A command beside a proxy of its own: its requests are signed, all else is as without us; nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import MIB, SECRET, StartProxy, clean_env, launcher, thorough, verify
from tests.support.upstreams import Authority, Recorder, respond

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")

PROMPT = 2.0
"""Seconds after which nothing may be left."""
ASK = "import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1]).read().decode())"

Exec = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path, confdir: Path, authority: Authority) -> Iterator[Exec]:
    """Run `jwtproxy-run exec` in an empty directory: `start(flags, words, env=…, **popen)`."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def run(flags: list[str], words: list[str], env: Mapping[str, str | None] | None = None, **how: Any) -> Any:
        given = {"JWT_SHARED_SECRET": SECRET, "TMPDIR": str(temporary), **(env or {})}
        sets = ["--set", f"confdir={confdir}", "--set", f"ssl_verify_upstream_trusted_ca={authority.pem}"]
        sets = [] if "--proxy" in flags else sets
        argv = [*launcher(), "exec", *sets, *flags, "--", *words]
        pipes: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": home,
        } | how
        process = subprocess.Popen(argv, env=clean_env(home, given), **pipes)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait(10)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
    _gone(temporary)


def _gone(temporary: Path) -> None:
    """Nothing is left of it, soon: neither a process that has this folder in its environment, nor a file there."""
    deadline = time.monotonic() + PROMPT
    while (left := [*temporary.iterdir(), *_processes(temporary)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def _processes(temporary: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={temporary}".encode() in path.read_bytes().split(b"\0"):
                found.append(f"{path} {path.with_name('cmdline').read_text()}")
    return found


def _done(process: subprocess.Popen[bytes], stdin: bytes | None = None) -> tuple[int, str, str]:
    out, err = process.communicate(stdin, timeout=20)
    return process.returncode, out.decode(), err.decode()


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    return process.stdout.readline().decode().strip()


def test_requests_are_signed_and_summed_up(start: Exec, authority: Authority) -> None:
    """With neither the proxy nor its CA known to the program, by plain HTTP and by HTTPS."""
    script = """
import ssl, urllib.request, sys
for url in sys.argv[1:]: print(urllib.request.urlopen(url).read().decode())
"""
    with Recorder() as plain, Recorder(authority=authority) as secure:
        plain.route("/", respond(body=b"plain"))
        secure.route("/", respond(body=b"secure"))
        urls = [f"{plain.url}/", f"{secure.url}/", f"{secure.url}/"]
        status, out, err = _done(
            start(["--user", "ci", "--summary", "--require-signed"], [sys.executable, "-c", script, *urls])
        )
        assert (status, out.split()) == (0, ["plain", "secure", "secure"]), err
        for seen in (*plain.wait(1), *secure.wait(2)):
            assert verify(seen.token)["payload"]["user"] == "ci"  # type: ignore[index]
        counts = {plain.authority: 1, secure.authority: 2}
    lines = re.findall(r"^jwtproxy: +(\d+)  (\S+)$", err, re.MULTILINE)
    assert {place: int(count) for count, place in lines} == counts
    assert err.startswith("jwtproxy: signed: 3\n")


def test_a_command_that_sends_nothing_by_the_proxy_is_told(start: Exec) -> None:
    with Recorder() as upstream:
        upstream.route("/", respond(body=b"direct"))
        around = ["curl", "--silent", "--noproxy", "*", f"{upstream.url}/"]
        status, out, err = _done(start(["--require-signed"], around))
        assert (status, out) == (3, "direct")
        assert "sent no request that could be signed" in err
        assert upstream.wait(1)[0].values("x-my-jwt") == []


def test_the_key_stays_out_of_the_command(start: Exec, tmp_path: Path) -> None:
    """Out of its environment, what is in the proxy's memory, and what the proxies' processes started with."""
    phrase = secrets.token_hex(16)
    look = f"""
import os, pathlib
found = [pathlib.Path("/proc/self/environ").read_bytes()]
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try: found.append(path.read_bytes())
    except OSError: pass
text = b"".join(found)
print(b"{SECRET}" in text, b"{phrase}" in text, [name for name in os.environ if name.startswith("JWT_")])
""".replace(SECRET, SECRET[:40] + '" b"' + SECRET[40:]).replace(phrase, phrase[:9] + '" b"' + phrase[9:])
    env = {"JWT_KEY_PASSPHRASE": phrase, "JWT_USER": "ci"}
    status, out, err = _done(start([], [sys.executable, "-c", look], env))
    assert (status, out) == (0, "False False ['JWT_USER']\n"), err
    for name, content in (("secret", SECRET), ("phrase", phrase)):
        (tmp_path / name).write_text(content)
    files = {"JWT_SHARED_SECRET_FILE": "secret", "JWT_KEY_PASSPHRASE_FILE": "phrase"}
    named: dict[str, str | None] = {variable: str(tmp_path / name) for variable, name in files.items()}
    status, out, _ = _done(start([], ["env"], {"JWT_SHARED_SECRET": None, **named}))
    assert status == 0
    assert not re.search("^JWT_", out, re.MULTILINE)


def test_a_key_that_the_command_can_read_is_warned_of(start: Exec, tmp_path: Path) -> None:
    (tmp_path / "home" / ".env").write_text(f"JWT_SHARED_SECRET={SECRET}\n")
    status, out, err = _done(start([], ["true"], {"JWT_SHARED_SECRET": None}))
    assert (status, out) == (0, "")
    assert err.startswith("jwtproxy: warning: the command can read JWT_SHARED_SECRET in .env here: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        pytest.param(["sh", "-c", "exit 7"], 7, "", id="its own"),
        pytest.param(["sh", "-c", "kill -TERM $$"], -signal.SIGTERM, "", id="a signal"),
        pytest.param(["no-such-command"], 127, "cannot run 'no-such-command': not found", id="not found"),
        pytest.param(["/"], 126, "cannot run '/': permission denied", marks=thorough, id="a folder"),
        pytest.param(["./script"], 5, "", marks=thorough, id="a script without an interpreter"),
    ],
)
def test_the_exit_status_is_that_of_the_command(
    words: list[str], status: int, said: str, start: Exec, tmp_path: Path
) -> None:
    script = tmp_path / "home" / "script"
    script.write_text("exit 5\n")
    script.chmod(0o700)
    code, out, err = _done(start([], words))
    assert (code, out) == (status, "")
    assert said in err if said else err == ""


def test_input_and_outputs_are_those_of_the_command(start: Exec) -> None:
    data = os.urandom(MIB)
    process = start([], ["sh", "-c", "cat; echo trouble >&2"], stdin=subprocess.PIPE)
    out, err = process.communicate(data, timeout=20)
    assert (process.returncode, out, err) == (0, data, b"trouble\n")


def test_descriptors_are_handed_on(start: Exec) -> None:
    """As shells do with `<(…)`; and nothing of ours is."""
    read, write = os.pipe()
    os.write(write, b"handed on")
    os.close(write)
    look = "import os, sys; print(os.read(int(sys.argv[1]), 99).decode(), len(os.listdir('/proc/self/fd')))"
    process = start([], [sys.executable, "-c", look, str(read)], pass_fds=[read])
    os.close(read)
    assert _done(process)[:2] == (0, "handed on 5\n")  # standard ones, this one, and that of listdir


def test_other_signals_are_forwarded(start: Exec) -> None:
    """Where only we are sent them."""
    script = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print(1, flush=True)
signal.pause()
"""
    process = start([], [sys.executable, "-c", script])
    assert _line(process) == "1"
    process.send_signal(signal.SIGTERM)
    assert _done(process) == (9, "", "")


def test_ctrl_c_is_the_commands(start: Exec) -> None:
    """Who types it at a terminal interrupts the command, once, which may go on; the proxy goes on meanwhile."""
    script = """
import signal, sys, time, urllib.request
hits = []
signal.signal(signal.SIGINT, lambda *_: hits.append(1))
print("ready", flush=True)
while not hits: time.sleep(0.01)
time.sleep(0.3)
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("hits", len(hits), urllib.request.urlopen(sys.argv[1]).read().decode(), flush=True)
signal.pause()
"""
    with Recorder() as upstream:
        upstream.route("/", respond(body=b"signed"))
        keyboard, terminal = pty.openpty()
        own = {"start_new_session": True, "preexec_fn": lambda: _take_terminal(terminal)}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        process = start([], [sys.executable, "-c", script, f"{upstream.url}/"], **own, **streams)
        os.close(terminal)
        with os.fdopen(keyboard, "r+b", buffering=0) as typed:
            _until(typed, b"ready")
            typed.write(b"\x03")
            _until(typed, b"hits 1 signed")
            typed.write(b"\x03")
            assert process.wait(10) == -signal.SIGINT
        assert len(upstream.wait(1)) == 1


def _take_terminal(terminal: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def _until(stream: Any, text: bytes, timeout: float = 10.0) -> None:
    """Read until this comes."""
    came, deadline = b"", time.monotonic() + timeout
    while text not in came:
        assert select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0], came
        came += stream.read(4096)


@pytest.mark.parametrize("victim", ["exec", pytest.param("command", marks=thorough), "proxy"])
def test_whoever_is_killed_nothing_is_left(victim: str, start: Exec, tmp_path: Path) -> None:
    script = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    process = start([], [sys.executable, "-c", script], stdin=subprocess.PIPE)
    command = int(_line(process))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (proxy,) = {int(pid) for pid in children} - {command}
    os.kill({"exec": process.pid, "command": command, "proxy": proxy}[victim], signal.SIGKILL)
    if victim == "proxy":
        assert process.stderr
        assert process.stderr.readline().startswith(b"jwtproxy: error: the proxy has ended")
        status, _, err = _done(process)
        assert (status, err) == (0, "")
    else:
        assert process.wait(10) == -signal.SIGKILL
    if victim == "exec":
        folder = tmp_path / "temporary"
        deadline = time.monotonic() + PROMPT
        while (left := [*folder.iterdir()] or Path(f"/proc/{proxy}/stat").exists()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left
        os.kill(command, signal.SIGKILL)


def test_a_proxy_that_runs_already(start: Exec, start_proxy: StartProxy) -> None:
    """With its CA from its own page; the folder is removed after us there, too."""
    with Recorder() as upstream:
        upstream.route("/", respond(body=b"signed"))
        proxy = start_proxy("--user", "shared")
        words = [sys.executable, "-c", ASK, f"{upstream.url}/"]
        assert _done(start(["--proxy", proxy.url], words, {"JWT_SHARED_SECRET": None})) == (0, "signed\n", "")
        assert json.dumps(verify(upstream.wait(1)[0].token)["payload"]).startswith('{"user": "shared"')
        look = "import os, sys; print(os.path.dirname(os.environ['SSL_CERT_FILE']), flush=True); sys.stdin.read()"
        own = {"JWT_SHARED_SECRET": None}
        process = start(["--proxy", proxy.url], [sys.executable, "-c", look], own, stdin=subprocess.PIPE)
        folder = Path(_line(process))
        assert sorted(path.name for path in folder.iterdir()) == ["ca-bundle.pem", "trust-store.p12", "wgetrc"]
        assert folder.stat().st_mode & 0o777 == 0o700
        process.kill()
        process.wait(10)
