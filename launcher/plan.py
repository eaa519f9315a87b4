"""All that a process needs to serve, checked, and bound to its sockets, before anything else starts."""

import contextlib
import fcntl
import mmap
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mitmproxy.certs import CertStore
from mitmproxy.options import CONF_BASENAME, Options
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.addons import status
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.options import parse
from jwtproxy.mitm.pages_mode import PagesMode
from jwtproxy.observe import pages
from jwtproxy.observe.board import Board
from jwtproxy.observe.counters import Counters
from jwtproxy.observe.sharing import Sharing
from jwtproxy.policy.current import CurrentPolicy
from jwtproxy.tokens.key_source import KeySource

from .addons.terminal import DAY
from .processes.sockets import PORTS, bind

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
"""The signals that ask us to end."""

_ELSEWHERE = "choose another address with jwt_pages or JWT_PAGES"

Sockets = dict[tuple[str, int], list[socket.socket]]


@dataclass(frozen=True)
class Plan:
    """All that a process needs to serve, checked."""

    source: KeySource
    current: CurrentPolicy
    options: dict[str, Any]
    deferred: dict[str, Any]
    """Options of scripts, which are not loaded yet."""
    sockets: Sockets
    counters: Counters
    workers: int
    grace: float
    """Seconds."""
    terminal: bool
    """Whether we were started from one."""
    tokens: str = ""
    """What the start tells of how requests are signed."""
    drain_delay: float = 0.0
    """Seconds for which all goes on after SIGTERM, before the grace begins."""
    board: Board | None = None
    """What several workers tell one another."""
    day: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, DAY))
    """Of the last line that one of them has printed."""
    sharing: Sharing | None = None
    """With other machines, where it is told."""
    watchers: tuple[object, ...] = ()
    """Addons that only look on, after all others."""

    @property
    def all_sockets(self) -> list[socket.socket]:
        """Those of all modes."""
        return [sock for sockets in self.sockets.values() for sock in sockets]

    @classmethod
    def listening(cls, options: Options, source: KeySource, current: CurrentPolicy, workers: int, grace: float) -> Self:
        """What these options say, once its sockets are bound. Raises SettingsError."""
        sockets = _listen(options)
        changed = {name: option.current() for name, option in options.items() if option.has_changed()}
        changed["confdir"] = options.confdir  # has mitmproxy read the CA before it listens, not after
        counters = Counters(processes=workers, limits=status.LIMITS)
        deferred = dict(options.deferred)
        board = Board(parse(pages.OPTIONS, options)["recent"]) if workers > 1 else None
        terminal = os.isatty(0)
        return cls(source, current, changed, deferred, sockets, counters, workers, grace, terminal, board=board)


def prepare_ca(options: Options) -> CertStore:
    """The CA, made if there is none: here, as each worker would make its own; once, whoever starts at the same time.

    Raises SettingsError.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # to be killed while it is written would spoil it
    folder, passphrase = Path(options.confdir), options.cert_passphrase
    try:
        folder = folder.expanduser().resolve()
        secret = passphrase.encode() if passphrase else None
        with _alone(folder):
            return CertStore.from_store(folder, CONF_BASENAME, options.key_size, secret)
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # Runtime: no home for "~"
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"cannot use the CA in {str(folder)!r}: {reason.lower()}",
            "use a folder this user may write to: --set confdir=FOLDER; or its passphrase: --set cert_passphrase=…",
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold others of us off a folder, where it can be locked: who is only allowed to read it does without."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _listen(options: Options) -> Sockets:
    """Bind what the modes say. Raises SettingsError."""
    bound: Sockets = {}
    specs = list(options.mode) if options.server else []
    for index, spec in enumerate(specs):
        mode = ProxyMode.parse(spec)
        host, port = mode.listen_host(options.listen_host), mode.listen_port(options.listen_port)
        if mode.transport_protocol not in ("tcp", "both") or port is None:
            continue
        sockets = bind(host, port, _ELSEWHERE if isinstance(mode, PagesMode) else PORTS)
        if port == 0:
            # Who is told 0 later would take another port, each worker its own.
            port = sockets[0].getsockname()[1]
            if mode.custom_listen_port is None:
                options.listen_port = port
            else:
                specs[index] = f"{spec.removesuffix('0')}{port}"
        bound[host, port] = sockets
    if options.server:
        options.mode = specs
    return bound
