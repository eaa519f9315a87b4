"""Processes in namespaces of their own: what they read in /etc is ours, and nothing they send leaves the machine.

With a mount namespace, the files that say how names are looked up are the test's; all else is as elsewhere, and the C
library asks whom it always asks. With a network namespace there is nothing but a loopback interface: it has whatever
addresses a test wants it to have, those of clouds' metadata services among them, and no way out.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .harness import REPO, clean_env

_FILES = """
folder=$1; shift
for name in resolv.conf hosts nsswitch.conf; do mount --bind "$folder/$name" "/etc/$name" || exit; done
"""
_ADDRESSES = 'ip -batch "$folder/addresses" || exit\n'
_RUN = 'exec "$@"\n'


def write_files(folder: Path, *, nameserver: str, hosts: Mapping[str, str], options: str = "attempts:1") -> None:
    """Have names be looked up in these hosts, which give addresses by name, and then by asking this server."""
    (folder / "resolv.conf").write_text(f"nameserver {nameserver}\noptions {options}\n")
    (folder / "hosts").write_text("".join(f"{ip} {name}\n" for name, ip in hosts.items()))
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")


def with_files(folder: Path | str) -> list[str]:
    """What runs the command that follows with those files of this folder in /etc."""
    return _unshare(folder, _FILES + _RUN)


def alone(folder: Path | str, addresses: Iterable[str] = ()) -> list[str]:
    """The same with no network but a loopback interface, which has these addresses, too.

    Processes that the command leaves behind end with it.
    """
    lines = ["link set lo up"]
    lines += [f"addr add {address} dev lo{' nodad' if ':' in address else ''}" for address in addresses]
    Path(folder, "addresses").write_text("".join(f"{line}\n" for line in lines))
    return _unshare(folder, _FILES + _ADDRESSES + _RUN, "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def with_copies(folder: Path, names: Iterable[str]) -> list[str]:
    """What runs the command that follows with copies of these folders in their place: it may change them."""
    lines = []
    for name in names:
        copy = folder / name.strip("/").replace("/", "-")
        shutil.copytree(name, copy, symlinks=True)
        lines.append(f"mount --bind {shlex.quote(str(copy))} {shlex.quote(name)} || exit\n")
    return _unshare(folder, "shift\n" + "".join(lines) + _RUN)


def run(module: str, folder: Path, prefix: Sequence[str], plan: object, timeout: float) -> Any:
    """What a module tells, as JSON, that is run in a namespace with a folder, and with a plan on standard input."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", module, str(folder)],
        input=json.dumps(plan),
        env=clean_env(folder),
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@functools.cache
def unable(*, network: bool = False) -> str:
    """Why such processes cannot be had here; empty if they can. network: in a network of their own."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), nameserver="127.0.0.1", hosts={})
        prefix = alone(folder, ["169.254.1.1", "fd00::1"]) if network else with_files(folder)
        try:
            tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False, timeout=30)
        except OSError as error:
            return f"no namespace: {error}"
    return f"no namespace: {tried.stderr.strip()}" if tried.returncode else ""


def _unshare(folder: Path | str, script: str, *kinds: str) -> list[str]:
    root = () if os.geteuid() == 0 else ("--map-root-user",)
    return ["unshare", *root, "--mount", *kinds, "sh", "-c", script, "sh", str(folder)]
