"""`jwtproxy-run help` shows the manual: rendered and in a pager for people, as it is for programs."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from jwtproxy.launcher.commands import help as command

MANUAL = Path(__file__).parents[3] / "launcher/help"
SAMPLES = sorted(path.name for path in MANUAL.iterdir() if path.suffix != ".md")
NAMES = sorted(path.stem for path in MANUAL.glob("*.md"))
SCRIPT = [sys.executable, "-m", "jwtproxy.launcher", "help"]

pytestmark = pytest.mark.usefixtures("pristine")

Capture = pytest.CaptureFixture[str]


def shown(capsys: Capture, *arguments: str) -> str:
    """What it prints."""
    assert command.run(list(arguments)) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    return printed


def refused(capsys: Capture, *arguments: str) -> tuple[str, str]:
    """Error and hint."""
    assert command.run(list(arguments)) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    found = re.fullmatch(r"jwtproxy: error: (.+)\njwtproxy: hint: (.+)\n", errors)
    assert found, errors
    return found[1], found[2]


def on_terminal(*arguments: str, columns: int = 80, interrupt_at: bytes = b"", **variables: str) -> tuple[int, str]:
    """Exit status, and all that a terminal shows of it; Ctrl-C is pressed when something is shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if re.match("PATH$|HOME$|LANG$|LC_|COV", name)}
    env = kept | {"TERM": "xterm-256color"} | variables
    command_line = [*SCRIPT, *arguments]
    with subprocess.Popen(
        command_line, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    ) as process:
        os.close(theirs)
        output = b""
        while data := _read(ours):
            output += data
            if interrupt_at and interrupt_at in output:
                os.killpg(process.pid, signal.SIGINT)
                interrupt_at = b""
    os.close(ours)
    return process.returncode, output.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal ends on Linux
        return b""


# --- what there is


def test_without_a_topic_all_are_listed_with_what_they_are_about(capsys: Capture) -> None:
    printed = shown(capsys)
    assert printed.startswith("usage: jwtproxy-run help [TOPIC]\n")
    assert re.findall(r"^  (\w+) +[A-Z].+\.$", printed, re.MULTILINE) == NAMES
    assert "  stopping      What each signal does, how long" in printed


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("keys", "-h")])
def test_the_usage_can_be_asked_for(capsys: Capture, arguments: tuple[str, ...]) -> None:
    printed = shown(capsys, *arguments)
    assert printed.startswith("usage: jwtproxy-run help [TOPIC]\n")
    assert "stopping" not in printed


# --- plain


@pytest.mark.parametrize("name", NAMES)
def test_a_topic_is_its_file_where_nobody_looks(capsys: Capture, name: str) -> None:
    assert shown(capsys, name) == (MANUAL / f"{name}.md").read_text()


@pytest.mark.parametrize("name", ["Keys", "keys.md", "KEYS.MD"])
def test_a_topic_may_be_spelled_as_its_title_or_file(capsys: Capture, name: str) -> None:
    assert shown(capsys, name).startswith("# Keys\n")


def test_a_reader_that_goes_away_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*SCRIPT, "verifying"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_locale_cannot_say_is_replaced() -> None:
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*SCRIPT, "speed"], env=env, capture_output=True, text=True, check=True)
    assert "less than 10 ?s with a shared secret" in done.stdout


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("kyes",), "unknown topic 'kyes'", "did you mean keys?"),
        (("Setings",), "unknown topic 'Setings'", "did you mean settings?"),
        (("JWT_TTL",), "unknown topic 'JWT_TTL'", "it is mentioned in: claims, security, settings, verifying"),
        (("xyzzy",), "unknown topic 'xyzzy'", f"the topics are: {', '.join(NAMES)}"),
        (("keys", "rules"), "unknown topic 'keys rules'", "did you mean rules?"),
        (("../keys",), "unknown topic '../keys'", "did you mean keys?"),
        (("",), "unknown topic ''", f"the topics are: {', '.join(NAMES)}"),
    ],
)
def test_a_mistake_is_named(capsys: Capture, arguments: tuple[str, ...], error: str, hint: str) -> None:
    assert refused(capsys, *arguments) == (error, hint)


# --- for people


def test_on_a_terminal_a_topic_is_rendered_in_the_users_pager() -> None:
    status, output = on_terminal("keys", PAGER="sed 's/^/> /' && echo \"LESS=$LESS\"")
    assert status == 0
    lines = output.splitlines()
    assert all(line.startswith("> ") for line in lines[:-1])
    assert lines[-1] == "LESS=-FRX"
    assert "\x1b[" in output
    text = re.sub(r"\x1b\[[\d;]*m", "", output)
    assert not re.search(r"^> (#|```)|\*\*|\]\(", text, re.MULTILINE)
    assert "Verifying a token (help verifying)" in text
    assert max(map(len, text.splitlines())) <= 82


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_are_as_long_as_the_terminal_is_wide_but_stay_readable(columns: int) -> None:
    _, output = on_terminal("alternatives", columns=columns, PAGER="cat", NO_COLOR="1")
    widths = [len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in output.splitlines()]
    assert max(widths) == min(columns, 120)


def test_the_users_own_options_for_less_stay() -> None:
    assert on_terminal("keys", PAGER='cat >/dev/null; echo "LESS=$LESS"', LESS="-S")[1] == "LESS=-S\r\n"


@pytest.mark.parametrize(("term", "pager"), [("xterm", ""), ("xterm", "no-such-pager"), ("dumb", "echo no")])
def test_where_there_is_no_pager_a_topic_is_printed(term: str, pager: str) -> None:
    status, output = on_terminal("stopping", TERM=term, PAGER=pager)
    assert status == 0
    assert "SIGTERM" in output
    assert "# Stopping" not in output


def test_ctrl_c_is_the_pagers_business() -> None:
    pager = "trap 'echo told; kill $!' INT; cat >/dev/null; sleep 60 >/dev/null 2>&1 & echo ready; wait; exit 0"
    assert on_terminal("keys", PAGER=pager, interrupt_at=b"ready") == (0, "ready\r\ntold\r\n")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_that_comes_with_it_is_printed_as_it_is(capsys: Capture, name: str) -> None:
    assert shown(capsys, name) == (MANUAL / name).read_text()
    assert name in shown(capsys).splitlines()[-1]
