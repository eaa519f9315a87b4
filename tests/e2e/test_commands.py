"""What jwtproxy-run is told by words and flags, and what it makes of others."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import pytest

from jwtproxy import __version__
from tests.support.harness import StartProxy, rows, run_launcher, verify
from tests.support.mistakes import Mistake, RunLauncher, Start, check


def test_a_running_proxy_is_asked_for_its_status(start_proxy: StartProxy, tmp_path: Path) -> None:
    """By whoever has the same settings; they need no key."""
    proxy = start_proxy()
    done = run_launcher("status", cwd=tmp_path, secret=None, env={"HTTP_PORT": str(proxy.port)})
    assert (done.returncode, done.stderr) == (0, ""), done
    assert re.search(r"(?m)^proxied_requests +0$", done.stdout)
    raw = run_launcher("status", "--proxy", proxy.url, "--json", cwd=tmp_path, secret=None)
    assert json.loads(raw.stdout)["version"] == __version__
    proxy.stop()
    done = run_launcher("status", "--port", str(proxy.port), cwd=tmp_path, secret=None)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"jwtproxy: error: nobody answers at {proxy.url}: connection refused\njwtproxy: hint: "
    )


def test_ctrl_c_ends_the_wait_for_an_answer(start_proxy: StartProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(15)
        asking = start_proxy("status", "--proxy", f"127.0.0.1:{silent.getsockname()[1]}", prepared=False, wait=False)
        with silent.accept()[0] as client:
            client.recv(1)
            asking.send_signal(signal.SIGINT)
            assert asking.wait(2) == 130
    assert asking.output.split() == ["---", "stdout", "---", "stderr"]


def test_a_token_can_be_had_without_a_request(tmp_path: Path) -> None:
    """The same as a request would get."""
    done = run_launcher("token", "--user", "ci", "--audience", "origin", "https://api.example/x", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    claims = verify(done.stdout.strip())
    assert claims["aud"] == "https://api.example"
    assert claims["payload"]["user"] == "ci"  # type: ignore[index]


def test_what_is_set_daily_has_flags(start_proxy: StartProxy, tmp_path: Path) -> None:
    """A proxy that got all of its settings by them, behind the word that says to serve."""
    made = run_launcher("keys", "new", "--out", "key.pem", cwd=tmp_path)
    assert made.returncode == 0
    proxy = start_proxy("--key", str(tmp_path / "key.pem"), "--user", "ci", "--ttl", "9", secret=None)
    listed = run_launcher("keys", "list", "--key", "key.pem", cwd=tmp_path, secret=None).stdout
    page = run_launcher("keys", "jwks", "--key", "key.pem", cwd=tmp_path, secret=None).stdout
    assert json.loads(page)["keys"][0]["kid"] in listed
    assert proxy.running


NOT_COMMANDS = {
    "misspelt": Mistake("unknown command 'srve'", ["srve"], hint="did you mean serve?"),
    "capital": Mistake("unknown command 'Explain'", ["Explain", "GET", "http://x/"], hint="did you mean explain?"),
    "plural": Mistake("unknown command 'tokens'", ["tokens", "http://x/"], hint="did you mean token?"),
    "another-name": Mistake("unknown command 'start'", ["start", "--port", "0"], hint="did you mean serve?"),
    "topic": Mistake("unknown command 'settings'", ["settings"], hint="jwtproxy-run help settings"),
    "url": Mistake("unknown command 'http://x/'", ["http://x/"], hint="jwtproxy-run token URL"),
    "method": Mistake("unknown command 'GET'", ["GET", "http://x/"], hint="jwtproxy-run explain GET URL"),
    "port": Mistake("unknown command '9090'", ["9090"], hint="--port 9090"),
    "script": Mistake("unknown command 'mine.py'", ["mine.py"], hint="-s mine.py"),
    "rules": Mistake("unknown command 'rules.yaml'", ["rules.yaml"], hint="--rules rules.yaml"),
    "key": Mistake("unknown command 'key.pem'", ["key.pem"], hint="--key key.pem"),
    "secret": Mistake("unknown command '…'", ["0123456789abcdef" * 8], hint="--key FILE"),
    "filter": Mistake("unknown command '~d'", ["~d", "example.com"], hint="--filter '~d example.com'"),
    "filter-after-a-flag": Mistake("unexpected word '~d'", ["--port", "0", "~d", "x"], hint="--filter '~d x'"),
    "host": Mistake("unknown command 'example.com'", ["example.com"], hint="the commands are serve, exec"),
    "nothing": Mistake("unknown command ''", [""], hint="the commands are"),
    "after-a-flag": Mistake("'keys' is not the first word", ["--port", "0", "keys", "list"], hint="jwtproxy-run keys"),
    "two": Mistake("'check' is not the first word", ["serve", "check"], hint="put it first: jwtproxy-run check"),
    "word-for-check": Mistake("unexpected word 'rules.yaml'", ["check", "rules.yaml"], hint="--rules rules.yaml"),
    "word-for-version": Mistake("unrecognized arguments: all", ["version", "all"], hint="--help"),
    "word-for-status": Mistake("unexpected word 'http://x/'", ["status", "http://x/"], hint="explain"),
    "keys-of-what": Mistake("unknown command 'keys make'", ["keys", "make"], hint="keys new"),
    "ca-of-what": Mistake("unknown command 'ca turst'", ["ca", "turst"], hint="ca trust"),
    "topic-of-nothing": Mistake("unknown topic 'token'", ["help", "token"], hint="jwtproxy-run token --help"),
    "flag": Mistake("unrecognized arguments: --usr", ["--usr", "ci"], hint="did you mean --user?"),
    "flag-of-an-option": Mistake("--jwt-via=on", ["--jwt-via=on"], hint="--set jwt_via=…"),
    "flag-of-a-secret": Mistake("--secret", ["--secret", "00"], hint="--key FILE"),
    "flags-contradict": Mistake("contradict", ["--user", "a", "--set", "jwt_user=b"], hint="keep one of the two"),
    "token-of-nothing": Mistake("token needs a URL", ["token"], hint="jwtproxy-run token https://api.example/"),
    "token-refused": Mistake("refused with 403", ["token", "http://169.254.169.254/"], hint="explain"),
    "status-elsewhere": Mistake(
        "is not asked", ["status", "--host", "192.0.2.1", "--port", "9"], hint="--proxy http://192.0.2.1:"
    ),
}


@pytest.mark.parametrize("mistake", rows(NOT_COMMANDS, *list(NOT_COMMANDS)[::2]))
def test_nothing_that_is_misspelt_starts_a_proxy(run: RunLauncher[Start], tmp_path: Path, mistake: Mistake) -> None:
    """Nor does it listen before it is refused."""
    assert not check(run, mistake, tmp_path).bound
