"""Proxies whose names a DNS server is to tell that never answers; the hosts file tells some.

They run in a mount namespace (see `namespace.py`), and nothing leaves loopback.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import namespace
from tests.support.harness import SECRET, Process, Proxy, clean_env, launcher


@functools.cache
def unable() -> str:
    """Why such proxies cannot be had here; empty if they can."""
    if reason := namespace.unable():
        return reason
    try:
        with _mute():
            return ""
    except OSError as error:
        return f"no DNS server can listen here: {error}"


@contextlib.contextmanager
def lost(
    *args: str,
    cwd: Path,
    confdir: Path,
    hosts: Mapping[str, str],
    env: Mapping[str, str | None] | None = None,
    hang: int = 30,
) -> Iterator[Process]:
    """A proxy to which only the names in `hosts` mean something; others hang for so many seconds."""
    with _mute() as address:
        namespace.write_files(cwd, nameserver=address, hosts=hosts, options=f"timeout:{hang} attempts:1")
        own = {
            "JWT_SHARED_SECRET": SECRET,
            "HTTP_PORT": "0",
            "JWT_FAST_LANE": os.environ.get("JWTPROXY_TEST_FAST_LANE"),
        }
        proxy = Process(
            [*namespace.with_files(cwd), *launcher(), "--set", f"confdir={confdir}", *args],
            env=clean_env(cwd, {**own, **(env or {})}),
            cwd=cwd,
            ready=Proxy.READY,
        )
        with proxy:
            yield proxy


@contextlib.contextmanager
def _mute() -> Iterator[str]:
    """The address of a DNS server that says nothing, on one of the many of loopback."""
    address = "127.{}.{}.{}".format(*(1 + secrets.randbelow(250) for _ in range(3)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        yield address
