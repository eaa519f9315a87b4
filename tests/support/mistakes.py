"""Starts that must be refused: how a mistake is described, made, and told of."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .harness import REPO, SECRET, clean_env

# One error line and one hint; an error starts in lower case, unless with the name of a variable.
REFUSAL = re.compile(r"jwtproxy: error: (?:[a-z'\-.]|[A-Z]+_|WORKERS)[^\n]*\njwtproxy: hint: [^\n]+\n")

_KEY_VARIABLES = re.compile(r"JWT_(SHARED_SECRET|KEY)\w*")
_KEY_MATERIAL = re.compile(r"(?<![A-Za-z0-9+/_-])(?!ssl_verify_)[A-Za-z0-9+/_-]{32,}")  # not the name of an option
_SHOWN = 12
"""How many characters of key material in a row must not be shown."""


@dataclass(frozen=True)
class Mistake:
    """A start that must be refused. `files` go into the working directory; `says` must be on the error line."""

    says: str
    args: Sequence[str] = ()
    env: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    secret: str | None = SECRET
    hint: str = ""
    """Must be in the hint."""

    def make(self, folder: Path) -> None:
        """Write the files."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def not_shown_in(self, output: str) -> None:
        """Nothing of what looks like a key, wherever it was put, is in the output."""
        texts = [content for content in self.files.values() if isinstance(content, str)]
        texts += [value for name, value in self.env.items() if value and _KEY_VARIABLES.fullmatch(name)]
        for word in _KEY_MATERIAL.findall("\n".join((*texts, *self.args, self.secret or ""))):
            for start in range(len(word) - _SHOWN + 1):
                assert word[start : start + _SHOWN] not in output, f"key material was shown:\n{output}"


def refused(done: subprocess.CompletedProcess[str], says: str, secret: str | None = SECRET) -> None:
    """The start ended as a mistake must: status 2, an error and a hint on stderr, nothing else, and no secret."""
    assert done.returncode == 2, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == ""
    assert REFUSAL.fullmatch(done.stderr), done.stderr
    assert says in done.stderr.splitlines()[0], done.stderr
    assert "Traceback" not in done.stderr
    for word in (secret or "").split():
        assert len(word) < 8 or word not in done.stderr, "the secret was shown"


class Start(subprocess.CompletedProcess[str]):
    """A start that has ended."""

    bound = False
    """Whether it tried to get a port."""


class RunLauncher[Done: subprocess.CompletedProcess[str]](Protocol):
    """The type of what `forked_starts` gives, and of the harness's `run_launcher`."""

    def __call__(
        self, *args: str, cwd: Path, env: Mapping[str, str | None] | None = ..., secret: str | None = ...
    ) -> Done:
        """Run jwtproxy-run to its end."""


def check[Done: subprocess.CompletedProcess[str]](run: RunLauncher[Done], mistake: Mistake, folder: Path) -> Done:
    """Start with the mistake, and see it refused with the right words, which hold nothing of a key."""
    mistake.make(folder)
    done = run(*mistake.args, cwd=folder, env=mistake.env, secret=mistake.secret)
    refused(done, mistake.says, mistake.secret)
    assert mistake.hint in done.stderr.splitlines()[1], done.stderr
    mistake.not_shown_in(done.stderr)
    return done


# Most of a start is the import of mitmproxy. Here it is done once, and each start is a fork of that process: the same
# code from the console script's first line on, with arguments, environment, folder and outputs of its own.
_FORKED_STARTS = """
import gc, json, os, signal, sys
from jwtproxy.launcher import cli
from jwtproxy.launcher.commands import explain, keys, serve
from tests.support.fork_server import trust_keys

trust_keys()
gc.freeze()
for line in sys.stdin:
    start = json.loads(line)
    stdout, stderr, bound = outputs = [os.memfd_create("output") for _ in range(3)]
    if (pid := os.fork()) == 0:
        signal.alarm(15)
        for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), stdout, stderr]):
            os.dup2(descriptor, number)
        os.environ.clear()
        os.environ.update(start["env"])
        os.chdir(start["cwd"])
        sys.argv[1:] = start["args"]
        sys.addaudithook(lambda event, _: os.write(bound, b"1") if event == "socket.bind" else None)
        cli.main()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    texts = [os.pread(descriptor, 1 << 20, 0).decode() for descriptor in outputs]
    print(json.dumps([status, *texts]), flush=True)
    for descriptor in outputs:
        os.close(descriptor)
"""


@contextlib.contextmanager
def forked_starts(home: Path, before: Callable[[], None] | None = None) -> Iterator[RunLauncher[Start]]:
    """What `run_launcher` does, many times faster. before: what the process to fork does before it begins."""
    command = [sys.executable, "-O", "-c", _FORKED_STARTS]  # -O: as the launcher restarts itself
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=clean_env(home), cwd=REPO, stdin=pipe, stdout=pipe, text=True, preexec_fn=before
    ) as forks:
        assert forks.stdin
        assert forks.stdout
        requests, answers = forks.stdin, forks.stdout

        def start(
            *args: str, cwd: Path, env: Mapping[str, str | None] | None = None, secret: str | None = SECRET
        ) -> Start:
            own = clean_env(cwd, {"JWT_SHARED_SECRET": secret, "HTTP_PORT": "0", **(env or {})})
            print(json.dumps({"args": args, "cwd": str(cwd), "env": own}), file=requests, flush=True)
            status, stdout, stderr, bound = json.loads(answers.readline())
            done = Start([*args], status, stdout, stderr)
            done.bound = bool(bound)
            return done

        yield start
