"""Stock `mitmdump -s addons/jwt_inject.py` from a checkout: whatever is wrong, nothing is forwarded unsigned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.bare import never_unsigned, outcome, requests_to, send, told
from tests.support.clients import Raw, message
from tests.support.harness import ADDONS, SECRET, BareMitmdump, StartBare, clean_env, rows, thorough, verify
from tests.support.upstreams import Recorder

INJECT, STATUS = ADDONS / "jwt_inject.py", ADDONS / "status.py"
ORDERS = [(INJECT, STATUS), (STATUS, INJECT)]
BY_ORDER = dict(zip(["inject-first", "status-first"], map(list, ORDERS), strict=True))


# --- what works


def signed(process: BareMitmdump, upstream: Recorder) -> None:
    """Every kind of request arrives with one valid token."""
    for data in requests_to(upstream):
        assert send(process.port, data) == 200, process.output
    for seen in upstream.wait(4):
        assert verify(seen.token)["payload"]


@pytest.mark.parametrize(
    "where", ["elsewhere", pytest.param("root", marks=thorough), pytest.param("addons", marks=thorough)]
)
def test_it_works_from_any_folder(start_bare: StartBare, recorder: Recorder, tmp_path: Path, where: str) -> None:
    """Where mitmdump is started does not matter."""
    signed(
        start_bare(
            cwd={"elsewhere": tmp_path, "root": Path("/"), "addons": ADDONS}[where], env={"HOME": str(tmp_path)}
        ),
        recorder,
    )


def test_it_works_by_a_relative_path(start_bare: StartBare, recorder: Recorder, tmp_path: Path) -> None:
    """As people type it: `mitmdump -s addons/jwt_inject.py`."""
    process = start_bare(
        cwd=ADDONS.parent, scripts=[Path("addons/jwt_inject.py")], env={"HOME": str(tmp_path)}, fresh=True
    )
    signed(process, recorder)


@pytest.mark.parametrize("scripts", rows(BY_ORDER, "inject-first"))
def test_status_works_beside_it(start_bare: StartBare, recorder: Recorder, scripts: Sequence[Path]) -> None:
    """The page and the count, in either order."""
    process = start_bare(scripts=scripts)
    signed(process, recorder)
    with Raw(process.port) as client:
        page = client.request(message("GET", "/status", "Host: proxy.svc"))
        assert json.loads(page.body)["proxied_requests"] == 4
        own = f"127.0.0.1:{process.port}"
        assert client.request(message("GET", f"http://{own}/status", f"Host: {own}")).status == 200
        assert client.request(message("GET", "/nope", "Host: x")).status == 404
    process.stop()
    assert "Traceback" not in process.output


def test_status_works_alone(start_bare: StartBare, recorder: Recorder) -> None:
    """It does not sign, and needs no secret; nobody asked for it."""
    process = start_bare(scripts=[STATUS], secret=None)
    assert send(process.port, message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")) == 200
    with Raw(process.port) as client:
        assert json.loads(client.request(message("GET", "/status", "Host: x")).body)["proxied_requests"] == 1
    assert recorder.only().values("x-my-jwt") == []


def test_without_status_own_requests_find_nothing(start_bare: StartBare) -> None:
    """A request in origin form is still one to the proxy: no loop."""
    process = start_bare()
    assert send(process.port, message("GET", "/status", f"Host: 127.0.0.1:{process.port}")) == 404


def test_options_and_variables_work(start_bare: StartBare, recorder: Recorder) -> None:
    """--set and the environment; --set is the stronger."""
    args = ["--set", "jwt_user=from set", "--set", "jwt_header=x-own"]
    process = start_bare(*args, env={"JWT_USER": "from environment", "JWT_ALGORITHM": "HS256"})
    assert send(process.port, message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")) == 200
    (token,) = recorder.only().values("x-own")
    assert verify(token, algorithm="HS256")["payload"]["user"] == "from set"  # type: ignore[index]


def test_what_it_cannot_promise_is_said(start_bare: StartBare, recorder: Recorder) -> None:
    """Stock mitmdump relays raw TCP; ignored hosts pass: both are named at the start."""
    process = start_bare("--ignore-hosts", "example", rawtcp=True)
    process.wait_for_output("jwtproxy: .*rawtcp")
    process.wait_for_output("jwtproxy: .*ignore_hosts")
    signed(process, recorder)


def test_what_has_no_effect_is_said(start_bare: StartBare, recorder: Recorder) -> None:
    """Other programs have variables that begin like ours."""
    process = start_bare(env={"JWT_USR": "me", "JWT_COOKIE_SECURE": "1"})
    process.wait_for_output(r"jwtproxy: warning: unknown variable JWT_USR: did you mean JWT_USER\?\n")
    process.wait_for_output(r"jwtproxy: warning: unknown variables, which have no effect: JWT_COOKIE_SECURE\n")
    signed(process, recorder)


# --- without our package, without PyJWT

# Found on PYTHONPATH before any other; takes modules out of the interpreter's sight.
HIDE = """
import importlib.abc, sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path[:] = [path for path in sys.path if "__editable__" not in path]

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


def hiding(folder: Path, *hidden: str) -> dict[str, str]:
    """The environment of a Python that has neither our package nor the hidden modules."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    return {"PYTHONPATH": str(folder)}


def test_it_works_without_being_installed(start_bare: StartBare, recorder: Recorder, tmp_path: Path) -> None:
    """The checkout is all it needs."""
    env = hiding(tmp_path / "hide")
    command = [sys.executable, "-P", "-c", "import jwtproxy"]
    done = subprocess.run(
        command, env=clean_env(tmp_path, env), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "No module named 'jwtproxy'" in done.stderr, "the test does not hide the installed package"
    process = start_bare(scripts=[STATUS, INJECT], env=env)
    signed(process, recorder)
    with Raw(process.port) as client:
        assert json.loads(client.request(message("GET", "/status", "Host: x")).body)["version"]


@pytest.mark.parametrize("scripts", rows({"alone": [INJECT], **BY_ORDER}, "alone", "status-first"))
def test_without_pyjwt_it_signs_or_says_what_to_do(
    start_bare: StartBare, recorder: Recorder, tmp_path: Path, scripts: Sequence[Path]
) -> None:
    """It may be missing beside mitmproxy: either that does no harm, or one clear error with the remedy ends it."""
    process = start_bare(scripts=scripts, env=hiding(tmp_path / "hide", "jwt"), wait=False)
    status = outcome(process)
    if status is None:
        signed(process, recorder)
    else:
        assert status != 0
        told(process, "PyJWT")
        assert "pipx inject mitmproxy pyjwt" in process.output


@pytest.mark.parametrize("script", [INJECT, STATUS], ids=["jwt_inject", "status"])
def test_an_older_mitmproxy_is_told_of_in_one_line(start_bare: StartBare, tmp_path: Path, script: Path) -> None:
    """Before 12.2 it goes on when a script exits, and would pass all requests unsigned."""
    (tmp_path / "sitecustomize.py").write_text("from mitmproxy import version\nversion.VERSION = '12.1.2'\n")
    process = start_bare(scripts=[script], env={"PYTHONPATH": str(tmp_path)}, wait=False)
    assert outcome(process) == 1
    told(process, "this is mitmproxy 12.1.2")
    assert "pip install 'mitmproxy>=12.2,<13'" in process.output


# --- mistakes

MISTAKES: dict[str, tuple[str, Sequence[str], Mapping[str, str | None]]] = {
    "missing": ("JWT_SHARED_SECRET is not set", [], {"JWT_SHARED_SECRET": None}),
    "empty": ("JWT_SHARED_SECRET is empty", [], {"JWT_SHARED_SECRET": ""}),
    "not-hex": ("not hexadecimal", [], {"JWT_SHARED_SECRET": "zz" * 64}),
    "odd": ("odd number", [], {"JWT_SHARED_SECRET": SECRET[1:]}),
    "short": ("has 63 bytes", [], {"JWT_SHARED_SECRET": SECRET[2:]}),
    "both": ("both", [], {"JWT_SHARED_SECRET_FILE": "key"}),
    "file-missing": ("cannot read", [], {"JWT_SHARED_SECRET": None, "JWT_SHARED_SECRET_FILE": "nowhere"}),
    "file-is-a-folder": ("cannot read", [], {"JWT_SHARED_SECRET": None, "JWT_SHARED_SECRET_FILE": "."}),
    "unknown-option": ("jwt_x", ["--set", "jwt_x=1"], {}),
    "misspelt-option": ("'jwt-ttl'", ["--set", "jwt-ttl=5"], {}),
    "algorithm": ("'none'", ["--set", "jwt_algorithm=none"], {}),
    "algorithm-variable": ("'none'", [], {"JWT_ALGORITHM": "none"}),
    "pages": ("'maybe'", ["--set", "jwt_pages=maybe"], {}),
    "timeout": ("'soon'", ["--set", "jwt_connect_timeout=soon"], {}),
    "timeout-variable": ("'-1'", [], {"JWT_RESPONSE_TIMEOUT": "-1"}),
    "header": ("'Host'", ["--set", "jwt_header=Host"], {}),
    "header-rule": ("x-my-jwt", ["--modify-headers", "/x-my-jwt/forged"], {}),
}


FEW = "missing short file-missing misspelt-option algorithm timeout header-rule".split()


@pytest.mark.parametrize(("says", "args", "env"), rows(MISTAKES, *FEW))
def test_a_mistake_never_means_unsigned(
    start_bare: StartBare, recorder: Recorder, says: str, args: Sequence[str], env: Mapping[str, str | None]
) -> None:
    """A mistake in a setting is told once, and nothing is forwarded."""
    process = start_bare(*args, env=env, wait=False)
    never_unsigned(process, recorder)
    process.stop()
    told(process, says)


@pytest.mark.parametrize(
    ("name", "scripts"),
    [
        ("short", ORDERS[0]),
        ("unknown-option", ORDERS[1]),
        pytest.param("timeout", ORDERS[0], marks=thorough),
        pytest.param("timeout", ORDERS[1], marks=thorough),
    ],
)
def test_a_mistake_never_means_unsigned_beside_status(
    start_bare: StartBare, recorder: Recorder, name: str, scripts: Sequence[Path]
) -> None:
    """The same with both scripts, in either order."""
    says, args, env = MISTAKES[name]
    process = start_bare(*args, scripts=scripts, env=env, wait=False)
    never_unsigned(process, recorder)
    process.stop()
    assert says in process.output
    assert "Traceback" not in process.output


# --- scripts that change while serving


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the addons, to be damaged."""
    shutil.copytree(ADDONS, tmp_path / "addons", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "addons"


class Traffic:
    """Requests without a pause, from a thread; a context manager."""

    def __init__(self, port: int, upstream: Recorder) -> None:
        self.statuses: list[int] = []
        self._data = requests_to(upstream)
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(0.02):
            self.statuses.append(send(self._port, self._data[(0, 1, 0, 3)[number % 4]]))
            number += 1


def _overwrite(text: str) -> Callable[[Path], None]:
    def damage(script: Path) -> None:
        script.write_text(text)

    return damage


def _replace(script: Path) -> None:
    other = script.with_name("new")
    other.write_text("raise SystemError('by design')")
    other.rename(script)


def _delete_all(script: Path) -> None:
    shutil.rmtree(script.parent)


def _half(script: Path) -> None:
    text = script.read_text()
    script.write_text(text[: len(text) // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "raises": _overwrite("raise RuntimeError('by design')"),
    "syntax": _overwrite("class JwtInject(:"),
    "empty": _overwrite(""),
    "no-addons": _overwrite("addons = []"),
    "exits": _overwrite("import sys; sys.exit('by design')"),
    "another": _overwrite("def request(flow):\n    flow.request.headers['x-my-jwt'] = 'forged'\n"),
    "impostor": _overwrite("class JwtInject:\n    pass\naddons = [JwtInject()]\n"),
    "half-written": _half,
    "replaced": _replace,
    "deleted": Path.unlink,
    "all-deleted": _delete_all,
}


@pytest.mark.parametrize("damage", rows(DAMAGES, "raises", "half-written", "deleted"))
def test_a_script_that_breaks_while_serving_never_means_unsigned(
    start_bare: StartBare, recorder: Recorder, checkout: Path, damage: Callable[[Path], None]
) -> None:
    """Overwritten or deleted under traffic: signed until then, afterwards refused, or the proxy ends with an error."""
    process = start_bare(scripts=[checkout / "jwt_inject.py"])
    with Traffic(process.port, recorder) as traffic:
        time.sleep(0.3)
        damage(checkout / "jwt_inject.py")
        deadline = time.monotonic() + 10
        while process.running and traffic.statuses[-1:] != [502] and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
    assert set(traffic.statuses) <= {200, 502, 0}
    assert 200 in traffic.statuses
    assert not process.running or traffic.statuses[-1] == 502, process.output
    for seen in recorder.requests:
        assert verify(seen.token)
    if not process.running:
        assert process.wait() != 0, process.output
        assert "jwtproxy: error: " in process.output


def test_a_script_that_is_saved_anew_goes_on(start_bare: StartBare, recorder: Recorder, checkout: Path) -> None:
    """A reload of a good script loses no request, and leaves none unsigned."""
    script = checkout / "jwt_inject.py"
    process = start_bare(scripts=[script, checkout / "status.py"])
    with Traffic(process.port, recorder) as traffic:
        for _ in range(2):
            time.sleep(0.2)
            script.write_text(script.read_text() + "\n# edited\n")
            os.utime(script, (time.time() + 2, time.time() + 2))
            process.wait_for_output("Loading script.*jwt_inject.py")
            time.sleep(1.2)
    assert process.running, process.output
    assert traffic.statuses[-1] == 200
    assert set(traffic.statuses) == {200}
    for seen in recorder.requests:
        assert verify(seen.token)


@pytest.mark.parametrize("name", ["raises", *(pytest.param(name, marks=thorough) for name in ("deleted", "empty"))])
def test_signing_does_not_need_status(start_bare: StartBare, recorder: Recorder, checkout: Path, name: str) -> None:
    """When the other script breaks, requests go on to be signed."""
    process = start_bare(scripts=[checkout / "jwt_inject.py", checkout / "status.py"])
    DAMAGES[name](checkout / "status.py")
    time.sleep(1.5)
    assert process.running
    signed(process, recorder)


@pytest.fixture
def port_of(start_bare: StartBare) -> Callable[..., int]:
    """Start with a user's script as well; the port."""

    def start(text: str, folder: Path, *, first: bool) -> int:
        (folder / "mine.py").write_text(text)
        return start_bare(scripts=[folder / "mine.py", INJECT] if first else [INJECT, folder / "mine.py"]).port

    return start


NEIGHBOURS = {
    "stream-and-forge": "def requestheaders(flow):\n    flow.request.stream = True\n"
    "    flow.request.headers['x-my-jwt'] = 'forged'\n",
    "forge": "def request(flow):\n    flow.request.headers.set_all('X-My-Jwt', ['forged', 'twice'])\n",
    "remove": "def request(flow):\n    flow.request.headers.pop('x-my-jwt', None)\n",
    "halt": "from mitmproxy.exceptions import AddonHalt\ndef requestheaders(flow):\n    raise AddonHalt\n",
}
PLACED = {
    f"{name}-{place}": (text, place == "before") for name, text in NEIGHBOURS.items() for place in ("before", "after")
}


@pytest.mark.parametrize(
    ("text", "first"), rows(PLACED, "stream-and-forge-after", "forge-before", "remove-after", "halt-before")
)
def test_a_neighbour_script_never_means_unsigned(
    port_of: Callable[..., int], recorder: Recorder, tmp_path: Path, text: str, first: bool
) -> None:
    """Whatever another script does, before or after ours, one valid token arrives, or nothing."""
    port = port_of(text, tmp_path, first=first)
    statuses = [send(port, data) for data in requests_to(recorder)]
    for seen in recorder.requests:
        assert verify(seen.token)
    assert statuses.count(200) == len(recorder.requests)
    assert set(statuses) <= {200, 502}
