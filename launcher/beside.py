"""A command, and a proxy beside it that nobody else uses: from the start of both to their end."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jwtproxy.config.errors import SettingsError

from .addons.tally import READY, Passed, Tally
from .clients import bundles
from .clients.variables import variables, without_secrets
from .plan import Plan
from .processes import command, descriptors, secrecy
from .processes.companion import Companion
from .processes.sockets import Loop
from .report import MISTAKEN, report
from .running import Reach
from .serving import serve

_START = 30.0  # seconds


def run(words: Sequence[str], reach: Reach, plan: Plan | None) -> tuple[int, Passed | None]:
    """Run a command to its end; how that was, as waitpid says, and what has passed the proxy beside it.

    plan: of that proxy; None: one runs already, and what passes it is not known. Raises OSError if the command cannot
    be run, SettingsError for all else.
    """
    try:
        folder = Path(tempfile.gettempdir(), f"jwtproxy-{secrets.token_hex(8)}")  # which nobody has made before us
    except OSError as error:
        raise _no_folder(os.environ.get("TMPDIR") or "/tmp", error) from None  # noqa: S108  # told only
    # Before it is made: who removes it where we are killed is to be there first.
    companion = Companion.fork(lambda line: _accompany(plan, folder, line))
    passed = None
    for sock in plan.all_sockets if plan else ():
        sock.close()  # where the proxy is gone, nobody is to wait for it
    try:
        status = _run(words, reach, folder, companion)
    finally:
        passed = Passed.read(companion.dismiss())
        shutil.rmtree(folder, ignore_errors=True)
    return status, passed


def _run(words: Sequence[str], reach: Reach, folder: Path, companion: Companion) -> int:
    environ = without_secrets(os.environ)
    try:
        folder.mkdir(mode=0o700)
        files = bundles.write(folder, reach.url, reach.ca, environ)
    except OSError as error:
        raise _no_folder(str(folder), error) from None
    if companion.read_line(_START) != READY:
        raise SettingsError("the proxy has not started", "jwtproxy-run check tells whether the settings can be used")

    def attend(pid: int, status: int) -> None:
        if pid == companion.pid:
            companion.status = status
            report("the proxy has ended: what the command still asks for will fail")

    return command.run(words, {**environ, **variables(reach.url, files, environ)}, attend)


def _no_folder(folder: str, error: OSError) -> SettingsError:
    reason = (error.strerror or "error").lower()
    return SettingsError(f"cannot write to {folder!r}: {reason}", "name a folder for temporary files in TMPDIR")


def _accompany(plan: Plan | None, folder: Path, line: socket.socket) -> int:
    """Serve, if that is planned, until our parent has gone or wants no more; the exit status.

    Where it was killed, nobody else removes the folder.
    """
    try:
        if plan:
            return _serve(plan, line)
        line.sendall(READY.encode())
        line.recv(1)
        return 0
    except SettingsError as error:
        report(str(error), error.hint)
        return MISTAKEN
    finally:
        if _is_at_end(line):
            shutil.rmtree(folder, ignore_errors=True)


def _serve(plan: Plan, line: socket.socket) -> int:
    async def until_left() -> None:
        await _end_of(line)
        signal.raise_signal(signal.SIGINT)

    descriptors.raise_limit()
    secrecy.seal()
    line.setblocking(False)
    return asyncio.run(serve(replace(plan, watchers=(Tally(line),)), beat=until_left), loop_factory=Loop)


async def _end_of(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # reset: our parent has gone before it has read all that we have said
        await asyncio.get_running_loop().sock_recv(line, 1)


def _is_at_end(line: socket.socket) -> bool:
    """Whether our parent has gone, or wants no more."""
    line.setblocking(False)
    try:
        return not line.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
