"""A real browser, without a window: Chromium, told what to do by its DevTools protocol.

That takes a WebSocket and a few lines. Playwright would bring a driver of 40 MB, made for browsers of its own. It is
Debian's `chromium`, skipped where it is absent.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.sync.client import ClientConnection, connect

from .harness import Process, clean_env
from .verifiers import need

PATIENCE = 20.0
"""Seconds for whatever the browser is asked to do."""

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --no-default-browser-check "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions "
    "--disable-domain-reliability --disable-dev-shm-usage --hide-scrollbars --remote-debugging-port=0"
).split()
_READY = re.compile(r"DevTools listening on ws://127\.0\.0\.1:(\d+)")


def chromium() -> str:
    """Chromium."""
    return need(shutil.which("chromium"), "chromium is not installed")


def certutil() -> str:
    """What keeps the certificates that Chromium trusts."""
    return need(shutil.which("certutil"), "certutil, of libnss3-tools, is not installed")


def trust_by_nss(home: Path, ca: Path) -> None:
    """Have browsers of this home trust a CA, as their users do on Linux."""
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    for arguments in (("-N", "--empty-password"), ("-A", "-t", "C,,", "-n", "jwtproxy", "-i", str(ca))):
        subprocess.run([certutil(), "-d", f"sql:{database}", *arguments], check=True, capture_output=True, timeout=20)


def trust_by_key(ca: Path) -> str:
    """The flag that has a browser take what has the key of this CA, as all that mitmproxy makes has."""
    key = x509.load_pem_x509_certificate(ca.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"


class Chromium(Process):
    """The browser, with a new profile in `home`, going by this proxy; a context manager."""

    def __init__(self, home: Path, proxy: str, *flags: str) -> None:
        profile = f"--user-data-dir={home / 'profile'}"
        super().__init__(
            [chromium(), *_FLAGS, profile, f"--proxy-server={proxy}", *flags, "about:blank"],
            env=clean_env(home, {"XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}),
            cwd=home,
            ready=_READY,
        )

    def tab(self) -> Tab:
        """A new tab; a context manager."""
        asked = urllib.request.Request(f"{self.url}/json/new?about:blank", method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(asked, timeout=PATIENCE) as reply:
            return Tab(json.load(reply)["webSocketDebuggerUrl"])


class Tab:
    """One page."""

    def __init__(self, address: str) -> None:
        self._open = contextlib.ExitStack()
        self._connection = connect(address, proxy=None, max_size=None, open_timeout=PATIENCE)
        self._socket: ClientConnection
        self._numbers = itertools.count(1)
        self._loaded = False
        self.errors: list[str] = []
        """What the console shows in red."""
        self.requests: list[str] = []
        """The URLs of all that is asked for."""

    def __enter__(self) -> Self:
        self._socket = self._open.enter_context(self._connection)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Have something done; what comes of it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        deadline = time.monotonic() + PATIENCE
        while (said := self._hear(deadline)).get("id") != number:
            pass
        assert "error" not in said, (method, said["error"])
        return dict(said["result"])

    def open(self, url: str) -> None:
        """Go there, and wait till all of it is loaded."""
        self._loaded = False
        gone = self.ask("Page.navigate", url=url)
        assert not gone.get("errorText"), (url, gone["errorText"])
        deadline = time.monotonic() + PATIENCE
        while not self._loaded:
            self._hear(deadline)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        done = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def look(self, *, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Have a screen of this size, in CSS pixels."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def screenshot(self, path: Path) -> None:
        """Keep how the whole page looks."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _hear(self, deadline: float) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._socket.recv(timeout=max(0.1, deadline - time.monotonic())))
        params = said.get("params", {})
        match said.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url')}")
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                self.errors.append(json.dumps(params["args"]))
        return said
