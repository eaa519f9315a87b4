"""A real redis-server on a port of its own, which can be killed and started again, empty."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

needs_redis = pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server here")


class RedisServer:
    """A context manager. `options`: more of its command line, as `["--requirepass", "x"]`."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self._folder, self._options = folder, options
        self.port = port or _free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty; return when it accepts connections."""
        own = ("--port", str(self.port)) if "--tls-port" not in self._options else ("--port", "0")
        self._process = subprocess.Popen(
            ["redis-server", *own, "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder), *self._options],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while not self._accepts():
            assert time.monotonic() < deadline, "redis-server does not start"
            assert self._process.poll() is None, "redis-server has ended"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash does: what it held is lost."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *words: str) -> str:
        """What redis-cli says."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout

    def _accepts(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
