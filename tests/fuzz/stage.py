"""The proxies that are fuzzed, each started when it is first needed, and what must be true of them afterwards."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mitmproxy.certs import CertStore

from tests.support.clients import Raw, client_context, message
from tests.support.corpus import judge_arrived
from tests.support.harness import Proxy, verify
from tests.support.readers import STRICT
from tests.support.upstreams import Authority

RULES = "rules:\n  - {name: refused, match: ~u /refused, block: true}\n"
SETTINGS = ("jwt_response_timeout=2", "jwt_idle_timeout=3", "jwt_connect_timeout=2", "jwt_rules=rules.yaml")
_UNTIL_HEARD = 0.005
"""Seconds that what a proxy prints takes to get here: it is to be told with the value that has caused it."""
WATCH = "def websocket_message(flow): flow.websocket.messages[-1].content\n"


class Stage:
    """Proxies by what they are for: `fast`, `slow`, `watched`; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        CertStore.create_store(folder, "mitmproxy", 2048)
        self.authority = Authority(folder)
        (folder / "rules.yaml").write_text(RULES)
        (folder / "watch.py").write_text(WATCH)
        self._stack = ExitStack()
        self._proxies: dict[str, Proxy] = {}
        self._read: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()
        self.loop.close()

    def proxy(self, name: str) -> Proxy:
        """One of the proxies."""
        if name not in self._proxies:
            options = (*SETTINGS, f"ssl_verify_upstream_trusted_ca={self.authority.pem}")
            args = [part for option in options for part in ("--set", option)]
            args += ["-s", "watch.py"] if name == "watched" else []
            env = {"JWT_FAST_LANE": "off" if name == "slow" else "on"}
            self._proxies[name] = self._stack.enter_context(Proxy(*args, cwd=self.folder, confdir=self.folder, env=env))
        return self._proxies[name]

    def trust(self, *alpn: str) -> ssl.SSLContext:
        """What clients of the proxies trust."""
        return client_context(self.folder / "mitmproxy-ca-cert.pem", *alpn)

    def run(self, work: Coroutine[Any, Any, str]) -> str:
        """Do this in the loop."""
        return self.loop.run_until_complete(work)

    def shaken(self) -> str:
        """What a proxy has said since that it should not; or that one is gone."""
        time.sleep(_UNTIL_HEARD)
        for name, proxy in self._proxies.items():
            said = proxy.output[self._read.get(name, 0) :]
            self._read[name] = len(proxy.output)
            if not proxy.running or "Traceback" in said or "Error" in said:
                return f"the {name} proxy: {said or 'is gone'}"
        return ""

    def deaf(self) -> str:
        """Which proxy does not serve any more."""
        for name, proxy in self._proxies.items():
            with Raw(proxy.port) as client:
                if client.request(message("GET", "/status", "Host: localhost")).status != 200:
                    return f"the {name} proxy has no status"
        return self.shaken()


def unsigned(connections: Iterable[bytes]) -> list[str]:
    """What is wrong with what reached an upstream: read differently by different servers, or without a valid token."""
    found: list[str] = []
    for data in connections:
        reading = STRICT.requests(data)
        found += judge_arrived(data.removesuffix(reading.rest) if reading.rest else data)
        for request in reading.messages:
            if request.start[0] != b"CONNECT":
                verify((request.values("x-my-jwt") or [""])[0])
    return found
