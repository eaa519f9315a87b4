"""What gunicorn's arbiter says and how it ends, in our voice."""

from __future__ import annotations

import errno
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from jwtproxy.launcher.processes import supervisor


def _work(number: int, listeners: Iterable[object], beat: Callable[[], Awaitable[None]]) -> int:
    raise AssertionError("no worker is started here")


@pytest.mark.parametrize(("end", "status"), [(None, 0), (0, 0), (1, 1), (supervisor.NOT_BOOTED, 2)])
def test_the_status_of_the_whole_is_ours(monkeypatch: pytest.MonkeyPatch, end: int | None, status: int) -> None:
    """A worker that could not start is a start that failed, as with one worker."""

    def run(self: Any) -> None:
        assert (self.cfg.workers, self.cfg.graceful_timeout, self.cfg.control_socket_disable) == (3, 2, True)
        if end is not None:
            raise SystemExit(end)

    monkeypatch.setattr(supervisor._Arbiter, "run", run)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert supervisor.run(_work, [], 3, 0.3, lambda asked: None) == status
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        gc.unfreeze()


def test_only_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line of ours each; a worker that could not start has said why itself."""
    log = supervisor._Log(SimpleNamespace())
    log.setup(SimpleNamespace())
    log.info("Booting worker with pid: %s", 7)
    log.debug("Arbiter booted")
    log.error("Worker (pid:%s) exited with code %s.", 7, supervisor.NOT_BOOTED)
    log.error("Shutting down: %s", "Master")
    log.error("Reason: %s", "Worker failed to boot.")
    assert capsys.readouterr() == ("", "")
    log.error("Worker (pid:%s) was sent %s!", 7, "SIGKILL")
    log.warning("100% sure")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("Exception in worker process")
    assert capsys.readouterr().err.splitlines() == [
        "jwtproxy: error: worker (pid:7) was sent SIGKILL!",
        "jwtproxy: error: 100% sure",
        "jwtproxy: error: exception in worker process: ValueError('why')",
    ]


def _arbiter(monkeypatch: pytest.MonkeyPatch, outcomes: list[int | OSError]) -> Any:
    """One whose attempts to start a worker end like this."""

    def spawn(self: Any) -> int:
        self.worker_age += 1
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(Arbiter, "spawn_worker", spawn)
    return supervisor._Arbiter(supervisor._Application(_work, [], 2, 1), lambda asked: None)


def test_a_worker_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And told of once, until it succeeds."""
    lacking = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    arbiter = _arbiter(monkeypatch, [7, lacking, lacking, 8, lacking])
    assert [arbiter.spawn_worker() for _ in range(5)] == [7, None, None, 8, None]
    line = "jwtproxy: error: cannot start a worker: resource temporarily unavailable; trying again"
    assert capsys.readouterr().err.splitlines() == [line, line]


def test_if_the_first_cannot_be_started_the_start_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arbiter = _arbiter(monkeypatch, [OSError(errno.ENOMEM, "Cannot allocate memory")])
    with pytest.raises(HaltServer) as end:
        arbiter.spawn_worker()
    assert end.value.exit_status == supervisor.NOT_BOOTED
    said = capsys.readouterr().err
    assert said.startswith("jwtproxy: error: cannot start a worker: cannot allocate memory\njwtproxy: hint: ")


def _worker(monkeypatch: pytest.MonkeyPatch, work: Callable[..., int], *, age: int) -> Any:
    """One of two that the service begins with, or one in place of another."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(supervisor, "_PAUSE", 0)
    application = supervisor._Application(work, [], 2, 1)
    return supervisor._Worker(age, os.getpid(), [], application, 5, application.cfg, supervisor._Log(application.cfg))


@pytest.mark.parametrize(("age", "status"), [(2, supervisor.NOT_BOOTED), (3, 1)])
def test_only_who_the_service_begins_with_can_end_it(monkeypatch: pytest.MonkeyPatch, age: int, status: int) -> None:
    """What a replacement lacks may be there a second later: the others go on."""
    worker = _worker(monkeypatch, lambda *_: supervisor.NOT_BOOTED, age=age)
    assert worker._work() == status
    worker.tmp.close()


@pytest.mark.parametrize("status", [0, 1])
def test_another_status_stays(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    worker = _worker(monkeypatch, lambda *_: status, age=3)
    assert worker._work() == status
    worker.tmp.close()


@pytest.mark.parametrize(("served", "status"), [(False, supervisor.NOT_BOOTED), (True, 1)])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files\n"),
        (MemoryError(), "not enough memory\n"),
        (KeyError("a secret"), "KeyError\nTraceback (most recent call last):\n"),
    ],
    ids=["descriptors", "memory", "unforeseen"],
)
def test_who_has_served_and_ends_by_an_error_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
    served: bool,
    status: int,
) -> None:
    def work(*_: object) -> int:
        worker.booted = served
        raise error

    worker = _worker(monkeypatch, work, age=1)
    assert worker._work() == status
    worker.tmp.close()
    said = capsys.readouterr().err
    assert said.startswith(f"jwtproxy: error: a worker ended: {told}")
    assert "a secret" not in said
