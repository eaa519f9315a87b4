"""Fixtures of the tests that run mitmproxy, or parts of it, inside this process."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import re
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support import inside
from tests.support.fork_server import trust_keys
from tests.support.inside import Serve, Upstream

if TYPE_CHECKING:
    from mitmproxy.master import Master

_OURS = re.compile(r"JWT_\w+|HTTP_PORT|HTTP_HOST|WORKERS|NO_COLOR|FORCE_COLOR")
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


hypothesis.settings.register_profile("unhurried", deadline=None)  # other tests keep the machine busy
hypothesis.settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """Import mitmproxy, which with its dependencies uses a few deprecated names, before warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("mitmproxy.addons")
    trust_keys()
    # It goes on to do so wherever it reads a flow filter.
    config.addinivalue_line("filterwarnings", "ignore:.*deprecated:DeprecationWarning:(mitmproxy|pyparsing)")


def pytest_collection_finish() -> None:
    """Leave thousands of tests, and all that is imported, out of each collection of garbage: a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def pristine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment without our variables, an empty working directory and home; whatever is patched is put back."""
    from mitmproxy import ctx

    from jwtproxy.mitm import patches

    for name in filter(_OURS.fullmatch, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("master", "options", "log"):
        monkeypatch.setattr(ctx, name, None, raising=False)
    root, handled = logging.getLogger(), {number: signal.getsignal(number) for number in _HANDLED}
    handlers, level, blocked = root.handlers[:], root.level, signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    patches.undo()
    master: Master | None = ctx.master
    if master is not None and not master.event_loop.is_closed():
        master.event_loop.close()  # that of a taddons.context
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, handler in handled.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(scope="session")
def shown() -> Callable[[BaseException], str]:
    """All that any way of printing an error could show: of itself, of what it came of, of its hint."""
    return _shown


def _shown(error: BaseException | None) -> str:
    if error is None:
        return ""
    own = "".join(traceback.format_exception(error, chain=False)) + str(error) + getattr(error, "hint", "")
    return own + _shown(error.__cause__) + _shown(error.__context__)


@pytest.fixture
def serve(pristine: None) -> Serve:
    """mitmproxy's own server on loopback, on a port of its choice, with those addons it needs and those given."""
    return inside.serve


@pytest.fixture
def upstream() -> type[Upstream]:
    """The upstream of a proxy inside this process."""
    return Upstream
