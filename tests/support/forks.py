"""Proxies that start many times faster: as forks of a process that has imported everything (see `fork_server.py`)."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_SERVER = Path(__file__).with_name("fork_server.py")


class ForkServer:
    """A process to fork. kind: which program it is; flags: those of its interpreter.

    interpreter: how many words of a command line are the interpreter's, so that its program does not see them.
    """

    def __init__(self, kind: str, flags: str, env: Mapping[str, str]) -> None:
        self.interpreter = 2 if kind == "launcher" else 0
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, flags, str(_SERVER), str(number), kind]
            devnull = subprocess.DEVNULL
            self._process = subprocess.Popen(command, env=dict(env), pass_fds=[number], stdin=devnull, stdout=devnull)
        atexit.register(self.close)

    def close(self) -> None:
        """End it; its forks go on."""
        self.requests.close()
        self._process.wait(15)


class Fork:
    """A proxy that is a fork: what `Process` needs of a `subprocess.Popen`, its outputs being pipes."""

    def __init__(self, server: ForkServer, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self.returncode: int | None = None
        self.stdout, stdout = _pipe()
        self.stderr, stderr = _pipe()
        self._report, report = _pipe()
        start = {"argv": list(argv[server.interpreter :]), "env": dict(env), "cwd": str(cwd)}
        socket.send_fds(server.requests, [json.dumps(start).encode()], [stdout, stderr, report])
        for descriptor in (stdout, stderr, report):
            os.close(descriptor)
        self.pid = int(os.read(self._report.fileno(), 10))

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit status. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._report], (), (), timeout)[0]:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            self.returncode = int(os.read(self._report.fileno(), 10))
            self._report.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(9)


def _pipe() -> tuple[IO[bytes], int]:
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), writer
