"""Proxies whose names a DNS server is to tell that never answers; the hosts file tells some.

The proxy has a mount namespace of its own, in which the files that say how names are looked up are ours. All else is
as elsewhere: the C library asks whom it always asks, and nothing leaves loopback.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.harness import SECRET, Process, Proxy, clean_env, launcher

_SCRIPT = """
folder=$1; shift
for name in resolv.conf hosts nsswitch.conf; do mount --bind "$folder/$name" "/etc/$name" || exit; done
exec "$@"
"""


@functools.cache
def unable() -> str:
    """Why such proxies cannot be had here; empty if they can."""
    if sys.platform != "linux":
        return "mount namespaces are Linux's"
    try:
        with _mute():
            pass
    except OSError as error:
        return f"no DNS server can listen here: {error}"
    tried = subprocess.run([*_unshare("/etc"), "true"], capture_output=True, text=True, check=False)
    return f"no mount namespace: {tried.stderr.strip()}" if tried.returncode else ""


@contextlib.contextmanager
def lost(
    *args: str, cwd: Path, confdir: Path, hosts: Mapping[str, str], env: Mapping[str, str | None] | None = None
) -> Iterator[Process]:
    """A proxy to which only the names in `hosts` mean something; others hang for half a minute."""
    with _mute() as address:
        (cwd / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:30 attempts:1\n")
        (cwd / "hosts").write_text("".join(f"{ip} {name}\n" for name, ip in hosts.items()))
        (cwd / "nsswitch.conf").write_text("hosts: files dns\n")
        own = {
            "JWT_SHARED_SECRET": SECRET,
            "HTTP_PORT": "0",
            "JWT_FAST_LANE": os.environ.get("JWTPROXY_TEST_FAST_LANE"),
        }
        proxy = Process(
            [*_unshare(str(cwd)), *launcher(), "--set", f"confdir={confdir}", *args],
            env=clean_env(cwd, {**own, **(env or {})}),
            cwd=cwd,
            ready=Proxy.READY,
        )
        with proxy:
            yield proxy


def _unshare(folder: str) -> list[str]:
    """Run what follows where this folder's files are in /etc."""
    root = () if os.geteuid() == 0 else ("--map-root-user",)
    return ["unshare", *root, "--mount", "sh", "-c", _SCRIPT, "sh", folder]


@contextlib.contextmanager
def _mute() -> Iterator[str]:
    """The address of a DNS server that says nothing, on one of the many of loopback."""
    address = "127.{}.{}.{}".format(*(1 + secrets.randbelow(250) for _ in range(3)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        yield address
