"""The upstream: nginx where it is installed, else processes of our own. It sends the token back as x-seen-jwt.

/small answers a few bytes, /64k and /mib as many as their names say, /upload reads the whole request first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import ClassVar

from tests.support.harness import Process, clean_env
from tests.support.upstreams import Authority

KIB, MIB = 1 << 10, 1 << 20
BODIES = {"/small": b"ok\n", "/64k": b"x" * (64 * KIB), "/mib": b"x" * MIB, "/upload": b"ok\n"}
"""What it answers, by path."""
_REPO = Path(__file__).resolve().parents[2]
_PROCESSES = 2
_PATIENCE = 10.0  # seconds until a server must listen

_NGINX = """\
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes {processes};
worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 900s; client_max_body_size 2m;
    client_body_buffer_size 2m; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    server {{
        listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl; listen 127.0.0.1:{h2} ssl http2;
        add_header x-seen-jwt $http_x_my_jwt always;
        location = /small {{ return 200 "ok\\n"; }}
        location = /64k {{ root {folder}; }}
        location = /mib {{ root {folder}; }}
        location = /upload {{
            proxy_pass http://127.0.0.1:{plain}/small; proxy_pass_request_body off;
            proxy_set_header Content-Length ""; proxy_set_header x-my-jwt ""; proxy_hide_header x-seen-jwt;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Upstream:
    """Where it listens."""

    name: str
    folder: Path
    authority: Authority
    ports: dict[str, int]
    """By protocol, as in `load.Spec`; one that is not served is not there."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Upstream]:
    """Start the upstream, stop it at the end."""
    authority = Authority(folder)
    (folder / "key.pem").write_bytes(authority.key_pem)
    (folder / "chain.pem").write_bytes(authority.chain_pem)
    if nginx := find_nginx():
        with _serve_nginx(nginx, folder) as ports:
            yield Upstream("nginx", folder, authority, ports)
    else:
        with serve_own(folder) as ports:
            yield Upstream("asyncio", folder, authority, ports)


@contextlib.contextmanager
def _serve_nginx(nginx: str, folder: Path) -> Iterator[dict[str, int]]:
    for path in ("/64k", "/mib"):
        (folder / path[1:]).write_bytes(BODIES[path])
    plain, tls, h2 = free_ports(3)
    config = _NGINX.format(folder=folder, processes=_PROCESSES, plain=plain, tls=tls, h2=h2)
    (folder / "nginx.conf").write_text(config)
    folder.chmod(0o755)  # its workers may be another user
    argv = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with _listening(argv, folder, folder, {"http": plain, "https/1.1": tls, "https/2": h2}) as ports:
        yield ports


@contextlib.contextmanager
def serve_own(folder: Path, kept: Path | None = None) -> Iterator[dict[str, int]]:
    """Processes of our own, with the certificate in the folder; `kept` gets a line for each request: tokens in JSON."""
    plain, tls = free_ports(2)
    argv = [sys.executable, "-m", __name__, str(folder), str(plain), str(tls), *([str(kept)] if kept else [])]
    with _listening(argv, folder, _REPO, {"http": plain, "https/1.1": tls}) as ports:
        yield ports


@contextlib.contextmanager
def _listening(argv: list[str], home: Path, cwd: Path, ports: dict[str, int]) -> Iterator[dict[str, int]]:
    with Process(argv, env=clean_env(home), cwd=cwd, ready=None) as process:
        for port in ports.values():
            wait_until_listening(process, port)
        yield ports


def find_nginx() -> str | None:
    """nginx, if it is installed: many systems have it where only root's PATH leads."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def wait_until_listening(process: Process, port: int) -> None:
    """Return as soon as the port accepts connections. Raises RuntimeError when it does not."""
    for _ in range(int(_PATIENCE / 0.05)):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if not process.running:
            break
        with contextlib.suppress(AssertionError):
            process.wait_for_output("(?!)", 0.05)
    raise RuntimeError(f"{process.argv[0]} does not listen on {port}\n{process.output}")


class _Server(asyncio.Protocol):
    """Just enough HTTP/1.1: heads that are not split over reads often, bodies with a length."""

    _LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
    _TOKEN = re.compile(rb"\r\nx[-_]my[-_]jwt[ \t]*:[ \t]*([^\r]*)", re.IGNORECASE)
    kept: ClassVar[int | None] = None
    """The file to write the tokens to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[: end + 2]
            length = self._LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            self.buffer = self.buffer[whole:]
            tokens = self._TOKEN.findall(head)
            if self.kept is not None:
                os.write(self.kept, f"{json.dumps([token.decode('latin-1') for token in tokens])}\n".encode())
            body = BODIES.get(head.split(b" ", 2)[1].decode("latin-1"), b"ok\n")
            fields = len(body), tokens[0] if tokens else b""
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nx-seen-jwt: %b\r\n\r\n" % fields
            self.transport.write(head + body)  # one piece: Nagle's algorithm is on here


async def _serve_own(folder: Path, plain: socket.socket, tls: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    loop = asyncio.get_running_loop()
    servers = await loop.create_server(_Server, sock=plain), await loop.create_server(_Server, sock=tls, ssl=context)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Serve from two processes until SIGTERM."""
    folder, plain, tls, *kept = sys.argv[1:]
    sockets = [socket.create_server(("127.0.0.1", int(port)), backlog=4096) for port in (plain, tls)]
    for path in kept:
        _Server.kept = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # appended to by both
    child = os.fork()

    def stop(number: int, frame: FrameType | None) -> None:
        if child:
            os.kill(child, number)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    asyncio.run(_serve_own(Path(folder), *sockets))


if __name__ == "__main__":
    main()
