"""What is measured: our proxy beside the others, each as its users start it, and what the kernel says of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.harness import SECRET, Process, clean_env, launcher
from tests.support.redis_server import RedisServer

from .upstream import find_nginx, free_ports, wait_until_listening

PEERS = Path(__file__).with_name("peers")
REPO = Path(__file__).resolve().parents[2]
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Place:
    """Where proxies run: a scratch folder, the CA they share, the upstream's CA."""

    folder: Path
    trust: Path

    @property
    def ca(self) -> Path:
        """Certificate and key of the CA that they share."""
        return self.folder / "mitmproxy-ca.pem"

    @property
    def options(self) -> list[str]:
        """For proxies built on mitmproxy."""
        return ["--set", f"confdir={self.folder}", "--set", f"ssl_verify_upstream_trusted_ca={self.trust}"]


@dataclass(frozen=True)
class Target:
    """One proxy; `command` gives the command line for a port, None stands for no proxy at all."""

    key: str
    label: str
    command: Callable[[Place, int], list[str]] | None
    environment: Mapping[str, str] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Protocols it does not sign, with the reason."""
    lacks: Callable[[], str] = lambda: ""
    """Why it cannot run here, where something is not installed."""
    variant: bool = False
    """Whether it is measured in those scenarios alone that name it."""
    beside: Callable[[Place], AbstractContextManager[Mapping[str, str]]] = lambda place: contextlib.nullcontext({})
    """What has to run beside it, and the variables that tell it so."""


def ours(workers: int, *arguments: str) -> Target:
    """Our proxy, with the fast lane."""
    name = f"jwtproxy, {workers} worker{'s' if workers > 1 else ''}"
    variables = {"WORKERS": str(workers), "JWT_FAST_LANE": "on"}
    return Target(f"jwtproxy-{workers}", name, _launched(launcher(), *arguments), variables)


def without_lane() -> Target:
    """One worker of our proxy, all of whose requests go through mitmproxy."""
    variables = {"WORKERS": "1", "JWT_FAST_LANE": "off"}
    return Target("jwtproxy-off", "jwtproxy, lane off", _launched(launcher()), variables)


def watched() -> list[Target]:
    """One worker of ours that counts nothing, and some that do: what it costs to be watched.

    Those have no page of recent requests, but for the last, which has all that our proxy has and tells its totals to
    Redis, whose own time is not counted.
    """
    plain = {"WORKERS": "1", "JWT_FAST_LANE": "on"}
    bare = {**plain, "JWT_RECENT": "0"}
    counted = {**bare, "BENCH_COUNTED": "1"}
    script = [sys.executable, "-O", str(PEERS / "uncounted.py")]
    quiet, loud = _launched(script), _launched(script, quiet=False)
    lacks = "" if shutil.which("redis-server") else "needs redis-server"
    return [
        Target("uncounted", "jwtproxy, no metrics", quiet, bare, variant=True),
        Target("jwtproxy-counted", "jwtproxy, metrics", quiet, counted, variant=True),
        Target(
            "jwtproxy-json", "jwtproxy, metrics, JSON logs", loud, {**counted, "JWT_LOG_FORMAT": "json"}, variant=True
        ),
        Target("jwtproxy-redis", "jwtproxy, Redis", ours(1).command, plain, {}, lambda: lacks, True, _redis),
    ]


@contextlib.contextmanager
def _redis(place: Place) -> Iterator[Mapping[str, str]]:
    with RedisServer(place.folder) as server:
        yield {"JWT_REDIS_URL": server.url}


def before(checkout: str) -> Target:
    """Our proxy as it was: one worker of another checkout, in which `make build` has been run."""
    command = _launched([f"{checkout}/.venv/bin/python", "-m", "jwtproxy.launcher"])
    return Target("before", "jwtproxy before", command, {"WORKERS": "1"})


def _launched(launcher: list[str], *arguments: str, quiet: bool = True) -> Callable[[Place, int], list[str]]:
    start = [*launcher, *(["-q"] if quiet else [])]
    return lambda place, port: [*start, "--port", str(port), *place.options, *arguments]


def _mitmdump(place: Place, port: int) -> list[str]:
    mitmdump = str(Path(sys.executable).with_name("mitmdump"))
    script = str(PEERS / "mitmdump_script.py")
    return [mitmdump, "-q", "-s", script, "--listen-host", "127.0.0.1", "-p", str(port), *place.options]


def _proxy_py(place: Place, port: int) -> list[str]:
    fixed = "--hostname 127.0.0.1 --num-acceptors 1 --num-workers 1 --log-level CRITICAL --timeout 900".split()
    plugin = ["--plugins", "tests.benchmarks.peers.proxy_py_plugin.SignPlugin"]
    ca, made = str(place.ca), str(place.folder / "proxy.py")
    intercept = ["--ca-cert-file", ca, "--ca-key-file", ca, "--ca-signing-key-file", ca, "--ca-cert-dir", made]
    trust = ["--ca-file", str(place.trust)]
    return [sys.executable, "-m", "proxy", *fixed, "--port", str(port), *plugin, *intercept, *trust]


def _asgi(place: Place, port: int) -> list[str]:
    fixed = "--host 127.0.0.1 --log-level critical --timeout-keep-alive 900".split()
    return [sys.executable, "-m", "uvicorn", "tests.benchmarks.peers.asgi_proxy:app", *fixed, "--port", str(port)]


def _nginx(place: Place, port: int) -> list[str]:
    folder = place.folder / f"nginx-{port}"
    folder.mkdir()
    filled = {"folder": folder, "port": port, "peers": PEERS, "modules": _nginx_modules()}
    config = re.sub(r"@(\w+)@", lambda found: str(filled[found[1]]), (PEERS / "nginx.conf").read_text())
    (folder / "nginx.conf").write_text(config)
    return [find_nginx() or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _nginx_modules() -> Path:
    """Where nginx looks for its modules."""
    told = subprocess.run([find_nginx() or "nginx", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"--modules-path=(\S+)", told)
    return Path(found[1] if found else "modules")


def _nginx_lacks() -> str:
    """What keeps nginx from signing here."""
    if find_nginx() and (_nginx_modules() / "ngx_http_lua_module.so").exists():
        return ""
    return "needs nginx with its Lua module: libnginx-mod-http-lua of Debian"


def _tunnels(reason: str) -> dict[str, str]:
    return {"https/1.1": reason, "https/2": reason}


_PEERS_FOUND = {"PYTHONPATH": str(REPO)}
UPSTREAM = Target("upstream", "no proxy", None)
MITMDUMP = Target("mitmdump", "mitmdump -s", _mitmdump)
PROXY_PY = Target(
    "proxy.py",
    "proxy.py, plugin",
    _proxy_py,
    _PEERS_FOUND,
    {"https/2": "its interception has no HTTP/2"},
    lambda: "" if shutil.which("openssl") else "needs the openssl command, for its interception",
)
NGINX = Target("nginx", "nginx, Lua", _nginx, {}, _tunnels("it has no CONNECT"), _nginx_lacks)
ASGI = Target("asgi", "Starlette + HTTPX", _asgi, _PEERS_FOUND, _tunnels("ASGI servers have no CONNECT"))


def many_workers() -> int:
    """How many workers stand for `many`: one for each core that proxies have, two at least."""
    return max(2, len(Cores.here().proxies))


def all_targets(workers: int) -> list[Target]:
    """Everything that is compared; with BENCH_BEFORE=CHECKOUT one worker alone with that one's, and stock mitmdump."""
    if checkout := os.environ.get("BENCH_BEFORE"):
        return [ours(1), before(checkout), MITMDUMP]
    return [ours(1), *watched(), without_lane(), ours(workers), MITMDUMP, PROXY_PY, NGINX, ASGI, UPSTREAM]


@dataclass(frozen=True)
class Cores:
    """Which cores the proxies have, and which the load and the upstream."""

    proxies: frozenset[int]
    others: frozenset[int]

    @classmethod
    def here(cls, fewest: int = 4) -> Cores:
        """Half for each, from so many on; where there are fewer, everybody shares all."""
        found = sorted(os.sched_getaffinity(0))
        half = len(found) // 2 if len(found) >= fewest else 0
        return cls(frozenset(found[:half] or found), frozenset(found[half:]))

    @property
    def shared(self) -> bool:
        """Whether what measures takes time from what is measured."""
        return bool(self.proxies & self.others)


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """What is started within runs on these."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Running:
    """A target's processes."""

    def __init__(self, target: Target, process: Process | None, port: int) -> None:
        self.target = target
        self.process = process
        self.port = port

    def pids(self) -> list[int]:
        """All of them; one may end while we look."""
        for _ in range(5):
            with contextlib.suppress(OSError):
                return self.process.pids() if self.process else []
        return []

    def cpu(self) -> float:
        """Seconds of processor time so far, user and system."""
        return sum(_cpu(pid) for pid in self.pids())

    def pss(self) -> float:
        """Proportional memory in MiB: shared pages count for each process in part."""
        return sum(_pss(pid) for pid in self.pids())


@contextlib.contextmanager
def start(target: Target, place: Place) -> Iterator[Running]:
    """Start a target on a free port; at the end none of its processes is left."""
    if target.command is None:
        yield Running(target, None, 0)
        return
    with target.beside(place) as variables:
        yield from _started(target, place, variables)


def _started(target: Target, place: Place, variables: Mapping[str, str]) -> Iterator[Running]:
    assert target.command
    (port,) = free_ports(1)
    environment = clean_env(place.folder, {"JWT_SHARED_SECRET": SECRET, **target.environment, **variables})
    process = Process(target.command(place, port), env=environment, cwd=place.folder, ready=None)
    running = Running(target, process, port)
    pids: list[int] = []
    try:
        wait_until_listening(process, port)
        yield running
    finally:
        with contextlib.suppress(OSError):
            pids = process.pids()[1:]
        process.stop(timeout=15)
        _end(pids)


def _end(pids: list[int]) -> None:
    """Kill what outlived its parent."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK
    return 0.0


def _pss(pid: int) -> float:
    with contextlib.suppress(OSError):
        if found := re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE):
            return int(found[1]) / 1024
    return 0.0
