"""Starts proxies as forks of itself, when it has imported all they need: that is most of a start.

Run as `python fork_server.py SOCKET KIND`; `forks.py` is its client. From the console script's first line on, a fork
runs the same code as a process of its own, with arguments, environment, folder and outputs of its own.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import select
import socket
import sys
from typing import Any, NamedTuple

MODULES = {
    "launcher": """jwtproxy.launcher.cli jwtproxy.launcher.commands.serve jwtproxy.launcher.commands.explain
        jwtproxy.launcher.commands.keys jwtproxy.launcher.processes.supervisor mitmproxy.tools.dump""",
    "mitmdump": "mitmproxy.tools.main mitmproxy.tools.dump jwt",  # nothing of ours: a script brings that itself
}


def trust_keys() -> None:
    """Have mitmproxy not test the primes of a CA's key, which it reads four times in a start and which the tests made.

    That is a quarter of a second: half of what remains of a start. Other errors of a key are found all the same.
    """
    certs: Any = importlib.import_module("mitmproxy.certs")
    whole = certs.serialization

    class Serialization:
        load_pem_private_key = staticmethod(
            functools.partial(whole.load_pem_private_key, unsafe_skip_rsa_key_validation=True)
        )

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

    certs.serialization = Serialization()


class Child(NamedTuple):
    """A fork, and where to report its end."""

    pid: int
    report: int


def serve(requests: socket.socket) -> None:
    """Fork for each request; returns in the fork. Reports first the pid, and later how it ended, as ten characters."""
    children: dict[int, Child] = {}
    while True:
        for ready in select.select([requests.fileno(), *children], (), ())[0]:
            if ready != requests.fileno():
                child = children.pop(ready)
                os.close(ready)
                _report(child.report, os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
                os.close(child.report)
                continue
            data, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
            if not data:  # whoever asked us has ended
                raise SystemExit
            stdout, stderr, report = descriptors
            if (pid := os.fork()) == 0:
                others = [*children, *(child.report for child in children.values()), report, requests.detach()]
                _become(json.loads(data), stdout, stderr, others)
                return
            os.close(stdout)
            os.close(stderr)
            children[os.pidfd_open(pid)] = Child(pid, report)
            _report(report, pid)


def _report(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        os.write(descriptor, f"{number:10}".encode())


def _become(start: dict[str, object], stdout: int, stderr: int, others: list[int]) -> None:
    for descriptor in others:
        os.close(descriptor)
    for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), stdout, stderr]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # What Python opened for itself was /dev/null, where one can seek.
    lines = 1 if getattr(sys.stdout, "write_through", False) else -1  # as with `python -u`
    sys.stdout, sys.stderr = os.fdopen(1, "w", lines, closefd=False), os.fdopen(2, "w", 1, closefd=False)
    os.environ.clear()
    os.environ.update(start["env"])  # type: ignore[call-overload]
    os.chdir(str(start["cwd"]))
    sys.argv = list(start["argv"])  # type: ignore[call-overload]


if __name__ == "__main__":
    kind = sys.argv[2]
    for module in MODULES[kind].split():
        importlib.import_module(module)
    trust_keys()
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
    if kind == "launcher":
        from jwtproxy.launcher.cli import main

        main()
    else:
        from mitmproxy.tools.main import mitmdump

        sys.exit(mitmdump())
