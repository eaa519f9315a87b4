"""What clients ask, by TLS: a web server with a git repository and three package indexes, a WebSocket server, and gRPC.

Everything is below a path that begins with the key of the client that asks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.support.upstreams import Authority, Exchange, Recorder, Seen, respond

_VERSION = "1.0.0"


@dataclass(frozen=True)
class Arrival:
    """A request as it arrived: its path, the version of HTTP, and its tokens."""

    path: str
    version: str
    tokens: tuple[str, ...]

    @property
    def client(self) -> str:
        """The key of the client that asked."""
        return self.path.split("/")[1]


class Upstream:
    """web., ws. and grpc. of one name, on port 443 of an address each, below `net`; a context manager."""

    def __init__(self, name: str, net: str, authority: Authority, folder: Path) -> None:
        self.name, self.hosts = name, hosts(name, net)
        self._authority, self._leaf = authority, authority.issue(f"*.{name}")
        self._repositories = folder / "repositories"
        self._web: Recorder
        self._others: list[Arrival] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Upstream:
        web, ws, rpc = self.hosts.values()
        alpn = ["h2", "http/1.1"]
        with contextlib.ExitStack() as stack:
            self._web = stack.enter_context(
                Recorder(authority=self._authority, alpn=alpn, leaf=self._leaf, host=web, port=443)
            )
            self._web.default = self._answer
            stack.enter_context(self._websocket(ws))
            stack.enter_context(_grpc(rpc, self._leaf, self._others))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *ended: object) -> None:
        self._stack.close()

    def arrivals(self, client: str) -> list[Arrival]:
        """What a client has asked for."""
        web = [Arrival(seen.path, seen.version, tuple(seen.values("x-my-jwt"))) for seen in list(self._web.requests)]
        return [one for one in (*web, *self._others) if one.client == client]

    @contextlib.contextmanager
    def _websocket(self, address: str) -> Iterator[None]:
        def greet(socket: ServerConnection) -> None:
            assert socket.request is not None
            tokens = tuple(socket.request.headers.get_all("x-my-jwt"))
            self._others.append(Arrival(socket.request.path, "1.1", tokens))
            with contextlib.suppress(ConnectionClosed):
                socket.send("welcome")
                socket.recv()

        with serve(greet, address, 443, ssl=self._authority.server_context(leaf=self._leaf)) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield
            server.shutdown()
            thread.join()

    async def _answer(self, exchange: Exchange) -> None:
        seen = exchange.seen
        _, client, *rest = seen.path.split("/")
        place = "/".join(rest)
        if place.startswith("repository.git"):
            status, fields, body = await asyncio.to_thread(self._git, client, place, seen)
        else:
            base = f"https://web.{self.name}/{client}"
            status, body = 200, index(place, base)
            fields = [("content-type", _content_type(body))]
        await respond(status, *fields, body=body)(exchange)

    def _git(self, client: str, place: str, seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        """As git's own server does it; each client has a repository of its own."""
        home = self._repositories / client
        if not home.exists():
            _make_repository(home)
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(home),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": "".join(seen.values("git-protocol")),
            "PATH_INFO": f"/{place}",
            "REQUEST_METHOD": seen.method,
            "QUERY_STRING": seen.target.partition("?")[2],
            "CONTENT_TYPE": "".join(seen.values("content-type")),
            "CONTENT_LENGTH": str(seen.size),
            "HTTP_CONTENT_ENCODING": "".join(seen.values("content-encoding")),
        }
        done = subprocess.run(["git", "http-backend"], env=variables, input=seen.body, capture_output=True, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200").split()[0])
        return status, [(name.lower(), value) for name, value in fields.items()], body


def hosts(name: str, net: str) -> dict[str, str]:
    """The addresses of an upstream's hosts."""
    return {f"{kind}.{name}": f"{net}.{number}" for number, kind in enumerate(("web", "ws", "grpc"), 1)}


def index(place: str, base: str) -> bytes:
    """What a package index has at a place, XML elsewhere. Its package is `tiny`, for pip, npm and cargo alike."""
    made = _INDEX.get(place)
    return made(base) if made else b"<nothing/>"


def _content_type(body: bytes) -> str:
    kinds = {b"<!DOCTYPE": "text/html", b"<nothing/>": "application/xml", b"{": "application/json"}
    return next((kind for start, kind in kinds.items() if body.startswith(start)), "application/octet-stream")


def _page(base: str) -> bytes:
    name = f"tiny-{_VERSION}-py3-none-any.whl"
    digest = hashlib.sha256(_wheel()).hexdigest()
    return f'<!DOCTYPE html><a href="{base}/simple/{name}#sha256={digest}">{name}</a>'.encode()


def _package(base: str) -> bytes:
    digest = base64.b64encode(hashlib.sha512(_npm()).digest()).decode()
    distribution = {"tarball": f"{base}/npm/tiny.tgz", "integrity": f"sha512-{digest}"}
    versions = {_VERSION: {"name": "tiny", "version": _VERSION, "dist": distribution}}
    return json.dumps({"name": "tiny", "dist-tags": {"latest": _VERSION}, "versions": versions}).encode()


def _crate_line(_: str) -> bytes:
    told = {"name": "tiny", "vers": _VERSION, "deps": [], "features": {}, "yanked": False}
    return json.dumps({**told, "cksum": hashlib.sha256(_crate()).hexdigest()}).encode()


def _wheel() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in {
            "tiny.py": "",
            f"tiny-{_VERSION}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {_VERSION}\n",
            f"tiny-{_VERSION}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"tiny-{_VERSION}.dist-info/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return packed.getvalue()


def _npm() -> bytes:
    return _tar({"package/package.json": json.dumps({"name": "tiny", "version": _VERSION})})


def _crate() -> bytes:
    manifest = f'[package]\nname = "tiny"\nversion = "{_VERSION}"\n'
    return _tar({f"tiny-{_VERSION}/Cargo.toml": manifest, f"tiny-{_VERSION}/src/lib.rs": ""})


def _tar(files: dict[str, str]) -> bytes:
    """The same bytes each time, lest digests change."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(plain.getvalue(), mtime=0)


_INDEX: dict[str, Callable[[str], bytes]] = {
    "simple/tiny/": _page,
    f"simple/tiny-{_VERSION}-py3-none-any.whl": lambda _: _wheel(),
    "npm/tiny": _package,
    "npm/tiny.tgz": lambda _: _npm(),
    "cargo/config.json": lambda base: json.dumps({"dl": f"{base}/cargo/{{crate}}.crate"}).encode(),
    "cargo/ti/ny/tiny": _crate_line,
    "cargo/tiny.crate": lambda _: _crate(),
}
"""What makes each page of an index, given where the client's own paths begin."""


def _make_repository(home: Path) -> None:
    git = ["git", "-c", "init.defaultBranch=main"]
    bare = home / "repository.git"
    tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # of no files
    who = {f"GIT_{role}_{what}": "a@b.test" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    variables = {"PATH": os.environ["PATH"], **who}

    def run(*args: str) -> str:
        done = subprocess.run([*git, *args], env=variables, check=True, capture_output=True, text=True, input="")
        return done.stdout.strip()

    run("init", "-q", "--bare", str(bare))
    run("-C", str(bare), "config", "http.receivepack", "true")
    run("-C", str(bare), "hash-object", "-w", "-t", "tree", "--stdin")
    run("-C", str(bare), "update-ref", "refs/heads/main", run("-C", str(bare), "commit-tree", tree, "-m", "none"))


@contextlib.contextmanager
def _grpc(address: str, leaf: trustme.LeafCert, arrivals: list[Arrival]) -> Iterator[None]:
    """Calls of any method are answered with nothing."""

    class Anything(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            tokens = tuple(value for name, value in details.invocation_metadata if name == "x-my-jwt")
            arrivals.append(Arrival(details.method, "2", tokens))
            return grpc.unary_unary_rpc_method_handler(lambda *_: b"")

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Anything(),))
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    server.add_secure_port(f"{address}:443", grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)]))
    server.start()
    yield
    server.stop(0).wait()
