"""The upstream: nginx where it is installed, else processes of our own. It sends the token back as x-seen-jwt.

/small answers a few bytes, /mib answers 1 MiB, /upload reads the whole request first.
"""

from __future__ import annotations

import asyncio
import contextlib
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

from tests.support.harness import Process, clean_env
from tests.support.upstreams import Authority

MIB = 1 << 20
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
    trust: Path
    ports: dict[str, int]
    """By protocol, as in `load.Spec`; one that is not served is not there."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Upstream]:
    """Start the upstream, stop it at the end."""
    authority = Authority(folder)
    (folder / "key.pem").write_bytes(authority.key_pem)
    (folder / "chain.pem").write_bytes(authority.chain_pem)
    plain, tls, h2 = free_ports(3)
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx:
        (folder / "mib").write_bytes(b"x" * MIB)
        config = _NGINX.format(folder=folder, processes=_PROCESSES, plain=plain, tls=tls, h2=h2)
        (folder / "nginx.conf").write_text(config)
        folder.chmod(0o755)  # its workers may be another user
        argv = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        ports = {"http": plain, "https/1.1": tls, "https/2": h2}
    else:
        argv = [sys.executable, "-m", __name__, str(folder), str(plain), str(tls)]
        ports = {"http": plain, "https/1.1": tls}
    repo = Path(__file__).resolve().parents[2]
    with Process(argv, env=clean_env(folder), cwd=folder if nginx else repo, ready=None) as process:
        for port in ports.values():
            wait_until_listening(process, port)
        yield Upstream("nginx" if nginx else "asyncio", authority.pem, ports)


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
    _TOKEN = re.compile(rb"\r\nx-my-jwt: *([^\r]*)", re.IGNORECASE)
    _BODIES = {b"/mib": b"x" * MIB}  # noqa: RUF012  # read only

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
            token = self._TOKEN.search(head)
            body = self._BODIES.get(head.split(b" ", 2)[1], b"ok\n")
            fields = len(body), token[1] if token else b""
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
    folder, *ports = sys.argv[1:]
    sockets = [socket.create_server(("127.0.0.1", int(port)), backlog=4096) for port in ports]
    child = os.fork()

    def stop(number: int, frame: FrameType | None) -> None:
        if child:
            os.kill(child, number)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    asyncio.run(_serve_own(Path(folder), *sockets))


if __name__ == "__main__":
    main()
