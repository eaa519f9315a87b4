"""The console script: what happens before the command it was told."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from mitmproxy.proxy.layers.http import HttpStream

from jwtproxy.launcher import cli
from jwtproxy.launcher.commands import COMMANDS, ca, check, explain, help, keys, serve, status, token, version  # noqa: A004  # it is a command
from jwtproxy.mitm import patches

pytestmark = pytest.mark.usefixtures("pristine")


class Left(BaseException):
    """The end of the process."""


def _leaves(name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What this function of os, which does not return, is called with."""
    calls = []

    def leave(*arguments: object) -> NoReturn:
        calls.append(arguments)
        raise Left

    monkeypatch.setattr(os, name, leave)
    return calls


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The exit status of the script with these arguments, in a Python that is optimised or not."""

    def run(*arguments: str, optimised: bool = True) -> int:
        flags = SimpleNamespace(optimize=int(optimised))
        ours = SimpleNamespace(argv=["", *arguments], executable=sys.executable, flags=flags)
        monkeypatch.setattr(cli, "sys", ours)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return run


Run = Callable[..., int]


def test_nothing_is_collected_once_it_is_over() -> None:
    """What is there then is all that was ever loaded; looking at each object of it once more is a wait."""
    seen = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count(), len(gc.get_objects())))"
    script = f"{seen}; from jwtproxy.launcher.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-O", "-c", script, "keys", "--help"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0
    frozen, others = map(int, done.stdout.splitlines()[-1].split())
    assert frozen > 100 * others


@pytest.mark.parametrize("arguments", [["--check"], ["keys", "list"], ["explain", "GET", "http://x/"]])
def test_a_mitmproxy_that_is_not_suitable_is_one_error_with_its_way_out(
    run: Run, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(HttpStream, "flow_done")
    assert run(*arguments) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors.splitlines() == [
        "jwtproxy: error: this mitmproxy is not suitable: it lacks HttpStream.flow_done",
        f"jwtproxy: hint: install a suitable one: pip install '{patches.SUITABLE}'",
    ]


@pytest.mark.parametrize(
    ("arguments", "module", "rest"),
    [
        ([], serve, []),
        (["--check"], serve, ["--check"]),
        (["--port", "9", "keys"], serve, ["--port", "9", "keys"]),
        (["serve", "--port", "9"], serve, ["--port", "9"]),
        (["token", "x"], token, ["x"]),
        (["check"], check, []),
        (["status", "--json"], status, ["--json"]),
        (["ca", "trust"], ca, ["trust"]),
        (["version"], version, []),
        (["keys"], keys, []),
        (["keys", "new", "--alg", "ES256"], keys, ["new", "--alg", "ES256"]),
        (["explain", "keys", "x"], explain, ["keys", "x"]),
        (["help", "keys"], help, ["keys"]),
    ],
)
def test_the_first_word_says_what_to_do(
    run: Run, arguments: list[str], module: object, rest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []

    def command(given: list[str]) -> int:
        told.append(given)
        return 7

    monkeypatch.setattr(module, "run", command)
    assert run(*arguments) == 7
    assert told == [rest]


def test_every_command_has_a_module_and_help_of_its_own(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert run(command, "--help") == 0
        printed, errors = capsys.readouterr()
        assert errors == ""
        assert printed.startswith(f"usage: jwtproxy-run {'[COMMAND]' if command == 'serve' else command}")


def test_a_first_word_that_is_no_command_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("srve") == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors == "jwtproxy: error: unknown command 'srve'\njwtproxy: hint: did you mean serve?\n"


def test_python_is_started_anew_without_asserts(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a signal on the way waits for the handlers of the new one."""
    calls = _leaves("execv", monkeypatch)
    with pytest.raises(Left):
        run("--port", "9", optimised=False)
    command = [sys.executable, "-OP", "-m", "jwtproxy.launcher", "--port", "9"]
    assert calls == [(sys.executable, command)]
    assert {signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(("arguments", "optimised"), [(["--check"], True), (["-s", "mine.py"], False)])
def test_where_that_is_done_or_a_script_may_assert_it_goes_on(
    run: Run, arguments: list[str], optimised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _leaves("execv", monkeypatch)
    monkeypatch.setattr(serve, "run", lambda given: 0)
    assert run(*arguments, optimised=optimised) == 0
    assert calls == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_it_at_once(run: Run, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where whoever started us had blocked it; a SIGHUP waits."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    calls = _leaves("_exit", monkeypatch)

    def start(arguments: list[str]) -> NoReturn:
        assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.raise_signal(number)
        raise AssertionError("it went on")

    monkeypatch.setattr(serve, "run", start)
    with pytest.raises(Left):
        run()
    assert calls == [(0,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_at_once_and_undone(run: Run, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _leaves("_exit", monkeypatch)
    monkeypatch.setattr(status, "run", lambda arguments: signal.raise_signal(number))
    with pytest.raises(Left):
        run("status")
    assert calls == [(128 + number,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_so_does_one_that_came_before(run: Run, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the interpreter was started anew: who is told 0 takes it for done."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    signal.raise_signal(number)
    calls = _leaves("_exit", monkeypatch)
    with pytest.raises(Left):
        run("exec", "--", "true")
    assert calls == [(128 + number,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("optimised", [True, False])
def test_a_signal_that_we_were_told_to_ignore_stays_so(
    run: Run, number: int, optimised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as Ctrl-C, by a shell for what it runs in the background: what exec runs is to ignore it, too."""
    signal.signal(number, signal.SIG_IGN)
    _leaves("execv", monkeypatch)

    def goes_on(arguments: list[str]) -> int:
        signal.raise_signal(number)
        return 7

    monkeypatch.setattr(status, "run", goes_on)
    if optimised:
        assert run("status") == 7
    else:
        with pytest.raises(Left):
            run("status", optimised=False)
    assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.parametrize(
    "arguments",
    ["-s mine.py", "-smine.py", "-ns mine.py", "--scripts mine.py", "--sc mine.py", "--set scripts=mine.py"],
)
def test_a_flag_may_bring_a_script(arguments: str) -> None:
    assert cli.may_run_scripts(arguments.split())


@pytest.mark.parametrize("arguments", ["", "-p 1", "--set jwt_user=s", "--check -n", "--server x", "-k --port 9"])
def test_no_other_does(arguments: str) -> None:
    assert not cli.may_run_scripts(arguments.split())


@pytest.mark.parametrize("name", ["config.yaml", "config.yml"])
def test_a_config_may_bring_a_script_too(tmp_path: Path, name: str) -> None:
    for folder, flags in ((".mitmproxy", []), ("other", ["--set", f"confdir={tmp_path}/other"])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("jwt_user: x")
        assert not cli.may_run_scripts(flags)
        (tmp_path / folder / name).write_text("scripts: [mine.py]")
        assert cli.may_run_scripts(flags)
    assert not cli.may_run_scripts(["--set", "confdir=a", "--set", "confdir=b"]), "the last one counts"
    assert cli.may_run_scripts(["--set", "confdir=a", "--set", f"confdir={tmp_path}/other"])


def test_without_a_home_there_is_no_config(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: Path) -> NoReturn:
        raise RuntimeError("could not determine home directory")

    monkeypatch.setattr(Path, "expanduser", none)
    assert not cli.may_run_scripts([])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory", "lib"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
    ids=["Python", "its imports", "the loader"],
)
def test_a_lack_of_memory_is_one_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_do", fail)
    assert cli._run([]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "jwtproxy: error: there is not enough memory",
        "jwtproxy: hint: allow 128 MiB, and 64 MiB more for each further worker",
    ]


@pytest.mark.parametrize("error", [ImportError("No module named 'h11'"), PermissionError(errno.EACCES, "no")])
def test_other_errors_are_not_taken_for_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_do", fail)
    with pytest.raises(type(error)):
        cli._run([])
