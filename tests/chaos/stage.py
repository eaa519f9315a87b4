"""Where chaos is played: a proxy, its files, its upstreams in a process of their own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from mitmproxy.certs import CertStore

from tests.support import namespace
from tests.support.harness import REPO, SECRET, Process, Proxy, clean_env, launcher
from tests.support.upstreams import Authority

NAME = "upstream.example"
_RULES = "rules:\n- name: all\n  match: ~all\n  user: chaos\n"


class Stage:
    """What a fault has to do with; a context manager. records: whether the proxy does (-w)."""

    def __init__(self, folder: Path, workers: int, *, records: bool = False) -> None:
        self.folder, self.workers, self.records = folder, workers, records
        self.key_file, self.rules = folder / "key", folder / "rules.yaml"
        self.secrets, self.hosts = folder / "secrets", folder / "hosts"
        self.knows_names = not namespace.unable()
        """Whether there is a name that the proxy knows by a file of ours alone."""
        self._write_files()
        self._ports = _free_ports(3)
        self.upstream: subprocess.Popen[bytes]
        self.proxy: Process
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: self.upstream.kill())  # whichever it is by then
            self.start_upstream()
            self.proxy = stack.enter_context(self._start_proxy())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()
        self.upstream.wait()

    @property
    def trust(self) -> ssl.SSLContext:
        """That of clients of the proxy."""
        return ssl.create_default_context(cafile=str(self.folder / "mitmproxy-ca-cert.pem"))

    @property
    def kinds(self) -> dict[str, tuple[str, bool]]:
        """The upstreams as clients know them, and whether they speak HTTP/2 with them."""
        plain, tls, two = self._ports
        kinds = {
            "plain": (f"http://127.0.0.1:{plain}", False),
            "tls": (f"https://127.0.0.1:{tls}", False),
            "http/2": (f"https://127.0.0.1:{two}", True),
        }
        return {**kinds, "name": (f"http://{NAME}:{plain}", False)} if self.knows_names else kinds

    @property
    def unsigned(self) -> list[str]:
        """The requests that have reached an upstream without a good token."""
        found = self.folder / "unsigned"
        return found.read_text().splitlines() if found.exists() else []

    def start_upstream(self) -> None:
        """Have the upstreams listen, on the same ports each time."""
        command = [sys.executable, "-m", "tests.chaos.upstream", str(self.folder), *map(str, self._ports)]
        self.upstream = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPO)
        assert self.upstream.stdout
        with self.upstream.stdout as told:
            assert told.readline() == b"ready\n"

    def _write_files(self) -> None:
        self.key_file.write_text(SECRET)
        self.secrets.write_text(f"{SECRET}\n")
        self.rules.write_text(_RULES)
        authority = Authority(self.folder)
        (self.folder / "upstream.pem").write_bytes(authority.key_pem + authority.chain_pem)
        self._trusted = authority.pem
        CertStore.create_store(self.folder, "mitmproxy", 2048)
        namespace.write_files(self.folder, nameserver="127.0.0.1", hosts={NAME: "127.0.0.1"})

    def _start_proxy(self) -> Process:
        within = namespace.with_files(self.folder) if self.knows_names else []
        options = {"confdir": self.folder, "ssl_verify_upstream_trusted_ca": self._trusted}
        flags = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
        variables = {
            "JWT_SHARED_SECRET_FILE": str(self.key_file),
            "JWT_RULES": str(self.rules),
            "JWT_CONNECT_TIMEOUT": "4",
            "JWT_RESPONSE_TIMEOUT": "5",
            "JWT_MAX_CLIENT_CONNECTIONS": "0",
            "WORKERS": str(self.workers),
            "HTTP_PORT": "0",
        }
        recording = ["-w", str(self.folder / "flows")] if self.records else []
        command = [*within, *launcher(), *flags, *recording]
        return Process(command, env=clean_env(self.folder, variables), cwd=self.folder, ready=Proxy.READY)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in free]
