"""Real proxy processes for the end-to-end tests, and what the kernel says of them.

`Proxy` is a `jwtproxy-run` process, `BareMitmdump` a `mitmdump -s addons/jwt_inject.py`. Both start in an environment
that holds nothing but what the test gives, wait (bounded) until they listen, collect their output, and surely stop.
They are forks of a process that has imported everything, unless the test wants a fresh one: where it is about the start
itself, the command line or the interpreter. JWTPROXY_TEST_FRESH=1 makes all of them fresh.
Upstreams are in `upstreams.py`, raw clients in `clients.py`, fixtures in `tests/e2e/conftest.py`.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from jwtproxy.launcher.cli import may_run_scripts
from tests.support.forks import Fork, ForkServer

REPO = Path(__file__).resolve().parents[2]
ADDONS = REPO / "addons"
SECRET = secrets.token_hex(64)
START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0
MIB = 1 << 20

# Everything else would leak settings in.
_KEPT = re.compile(r"PATH|LANG|LC_\w+|TMPDIR")

thorough = pytest.mark.thorough


def rows(table: Mapping[str, Any], *always: str) -> list[Any]:
    """The rows of a table as parameters by name; all but those named are for `make test-all` alone."""
    assert set(always) <= set(table)
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), id=name, marks=() if name in always else thorough)
        for name, row in table.items()
    ]


def clean_env(home: Path, extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment of a child: nothing from outside that could set the product; `extra` wins, None there removes."""
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    merged = {**kept, "HOME": str(home), **(extra or {})}
    return {name: value for name, value in merged.items() if value is not None}


class Process:
    """A child process: output collected by threads, bounded start and stop; a context manager.

    `ready` finds the port in the first line of output that matches it; None means: do not wait. server: what to fork;
    None: nothing, it becomes a fresh process.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        ready: re.Pattern[str] | None,
        server: ForkServer | None = None,
    ) -> None:
        self.argv = list(argv)
        self.cwd = cwd
        self.port = 0
        self._out: list[bytes] = []
        self._err: list[bytes] = []
        self._changed = threading.Condition()
        self.popen = _start(self.argv, env, cwd) if server is None else Fork(server, self.argv, env=env, cwd=cwd)
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self._readers = [self._collect(self.popen.stdout, self._out), self._collect(self.popen.stderr, self._err)]
        if ready is not None:
            self.port = self._await_port(ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    @property
    def url(self) -> str:
        """Where the proxy listens, as clients want it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def stdout(self) -> str:
        """All that was printed so far; complete after `stop`."""
        return b"".join(self._out).decode(errors="replace")

    @property
    def stderr(self) -> str:
        """All that was printed to standard error so far; complete after `stop`."""
        return b"".join(self._err).decode(errors="replace")

    @property
    def output(self) -> str:
        """Both outputs, for a failure message."""
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    @property
    def running(self) -> bool:
        """Whether the process still lives."""
        return self.popen.poll() is None

    def wait_for_output(self, pattern: str, timeout: float = 5.0) -> re.Match[str]:
        """Wait until either output matches `pattern`; the match."""
        regex, deadline = re.compile(pattern), time.monotonic() + timeout
        with self._changed:
            while (found := regex.search(self.stdout) or regex.search(self.stderr)) is None:
                if (
                    not self._changed.wait(min(0.2, max(0.0, deadline - time.monotonic())))
                    and time.monotonic() > deadline
                ):
                    raise AssertionError(f"no {pattern!r} within {timeout} s\n{self.output}")
        return found

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for the end; the exit status. Raises AssertionError (and kills) when it does not come."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(STOP_TIMEOUT)
            self._finish()
            raise AssertionError(f"still running after {timeout} s\n{self.output}") from None
        self._finish()
        return status

    def stop(self, number: int = signal.SIGTERM, timeout: float = STOP_TIMEOUT) -> int:
        """Signal the process and wait for its end, killing it as the last resort; the exit status. Safe to repeat."""
        if self.running:
            self.send_signal(number)
        try:
            return self.wait(timeout)
        except AssertionError:
            return self.popen.wait(STOP_TIMEOUT)

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        found = [self.pid]
        for pid in found:
            found += _children(pid)
        return found

    def rss(self) -> int:
        """Resident memory now, in bytes, over all processes of the proxy."""
        return sum(_status_bytes(pid, "VmRSS") for pid in self.pids())

    def peak(self) -> int:
        """Peak resident memory in bytes since the start or the last `reset_peak` (VmHWM), over all processes."""
        return sum(_status_bytes(pid, "VmHWM") for pid in self.pids())

    def reset_peak(self) -> None:
        """Make `peak` start again from the present size; where that is not allowed, the old peak stays."""
        for pid in self.pids():
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError:
                continue

    def fds(self) -> int:
        """Open file descriptors, over all processes."""
        return sum(1 for pid in self.pids() for _ in Path(f"/proc/{pid}/fd").iterdir())

    def _collect(self, pipe: IO[bytes], parts: list[bytes]) -> threading.Thread:
        def read() -> None:
            with pipe:
                while part := os.read(pipe.fileno(), 1 << 16):
                    with self._changed:
                        parts.append(part)
                        self._changed.notify_all()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _finish(self) -> None:
        for thread in self._readers:
            thread.join(STOP_TIMEOUT)

    def _await_port(self, ready: re.Pattern[str]) -> int:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if found := ready.search(self.stdout) or ready.search(self.stderr):
                return int(found[1])
            if not self.running:
                self._finish()
                raise AssertionError(f"ended with {self.popen.returncode} before it listened\n{self.output}")
            with self._changed:
                self._changed.wait(0.05)
        self.stop(signal.SIGKILL)
        raise AssertionError(f"not listening after {START_TIMEOUT} s\n{self.output}")


class Proxy(Process):
    """A `jwtproxy-run` process on a free port, with a working secret and a prepared CA.

    args: its command line. env: added to a clean environment (JWT_SHARED_SECRET=secret, HTTP_PORT=0); None removes a
    variable. confdir: the CA's folder, given as `--set confdir=`; None leaves it out. wait=False: do not wait until it
    listens. fresh=True: no fork.
    """

    READY = re.compile(r"listening on http://\S*?:(\d+)")

    def __init__(
        self,
        *args: str,
        cwd: Path,
        env: Mapping[str, str | None] | None = None,
        secret: str | None = SECRET,
        confdir: Path | None = None,
        wait: bool = True,
        fresh: bool = False,
    ) -> None:
        own = {"JWT_SHARED_SECRET": secret, "HTTP_PORT": "0", "WORKERS": os.environ.get("JWTPROXY_TEST_WORKERS")}
        own["JWT_FAST_LANE"] = os.environ.get("JWTPROXY_TEST_FAST_LANE")
        where = () if confdir is None else ("--set", f"confdir={confdir}")
        super().__init__(
            [*launcher(), *where, *args],
            env=clean_env(cwd, {**own, **(env or {})}),
            cwd=cwd,
            ready=self.READY if wait else None,
            server=None if fresh else _launcher_server([*where, *args], env),
        )


class BareMitmdump(Process):
    """A stock `mitmdump -s addons/jwt_inject.py` from the checkout, on a free port of 127.0.0.1.

    scripts: what to load with `-s`. rawtcp: stock mitmdump has it on; the script cannot promise anything then.
    Other parameters as for `Proxy`.
    """

    READY = re.compile(r"proxy listening at \S*?:(\d+)")

    def __init__(
        self,
        *args: str,
        cwd: Path,
        scripts: Sequence[Path] = (ADDONS / "jwt_inject.py",),
        env: Mapping[str, str | None] | None = None,
        secret: str | None = SECRET,
        confdir: Path | None = None,
        rawtcp: bool = False,
        wait: bool = True,
        fresh: bool = False,
    ) -> None:
        where = [] if confdir is None else ["--set", f"confdir={confdir}"]
        loaded = [part for script in scripts for part in ("-s", str(script))]
        fixed = ["--listen-host", "127.0.0.1", "-p", "0", "--set", f"rawtcp={str(rawtcp).lower()}"]
        super().__init__(
            [str(Path(sys.executable).with_name("mitmdump")), *fixed, *where, *loaded, *args],
            # Python holds back what it prints into a pipe, and with it the line that names the port.
            env=clean_env(cwd, {"JWT_SHARED_SECRET": secret, "PYTHONUNBUFFERED": "1", **(env or {})}),
            cwd=cwd,
            ready=self.READY if wait else None,
            server=None if fresh else _server("mitmdump", "-uP", env),
        )


class StartProxy(Protocol):
    """The type of the fixture `start_proxy`."""

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str | None] | None = ...,
        secret: str | None = ...,
        cwd: Path | None = ...,
        prepared: bool = ...,
        wait: bool = ...,
        fresh: bool = ...,
    ) -> Proxy:
        """Start a proxy that is stopped at the end of the test."""


class StartBare(Protocol):
    """The type of the fixture `start_bare`."""

    def __call__(
        self,
        *args: str,
        scripts: Sequence[Path] = ...,
        env: Mapping[str, str | None] | None = ...,
        secret: str | None = ...,
        cwd: Path | None = ...,
        rawtcp: bool = ...,
        wait: bool = ...,
        fresh: bool = ...,
    ) -> BareMitmdump:
        """Start a stock mitmdump that is stopped at the end of the test."""


def launcher() -> list[str]:
    """The command that starts jwtproxy-run with this interpreter."""
    return [sys.executable, "-m", "jwtproxy.launcher"]


def run_launcher(
    *args: str,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    secret: str | None = SECRET,
    timeout: float = START_TIMEOUT,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run jwtproxy-run to its end (--help, --check, a refused setting); its exit status and output."""
    with Proxy(*args, cwd=cwd, env=env, secret=secret, wait=False, fresh=fresh) as process:
        status = process.wait(timeout)
    return subprocess.CompletedProcess(process.argv, status, process.stdout, process.stderr)


def _start(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)


def _launcher_server(args: Sequence[str], env: Mapping[str, str | None] | None) -> ForkServer | None:
    """What to fork to run jwtproxy-run with these arguments; where no script is used it restarts itself with -O."""
    return _server("launcher", "-P" if may_run_scripts(list(args)) else "-OP", env)


def _server(kind: str, flags: str, env: Mapping[str, str | None] | None) -> ForkServer | None:
    """What to fork; None where only a fresh interpreter will do, as its environment changes how it works."""
    if os.environ.get("JWTPROXY_TEST_FRESH") or any(name.startswith("PYTHON") for name in env or {}):
        return None
    return _shared_server(kind, flags)


@functools.cache
def _shared_server(kind: str, flags: str) -> ForkServer:
    return ForkServer(kind, flags, clean_env(Path("/nonexistent")))


def verify(token: str, secret: str = SECRET, algorithm: str = "HS512") -> dict[str, object]:
    """The claims of a token whose signature an independent library accepts; raises when it does not."""
    return dict(jwt.decode(token, OctKey.import_key(bytes.fromhex(secret)), algorithms=[algorithm]).claims)


def token_header(token: str, secret: str = SECRET, algorithm: str = "HS512") -> dict[str, object]:
    """The JOSE header of a token whose signature an independent library accepts."""
    return dict(jwt.decode(token, OctKey.import_key(bytes.fromhex(secret)), algorithms=[algorithm]).header)


def _status_bytes(pid: int, field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
