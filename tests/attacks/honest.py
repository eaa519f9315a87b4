"""An honest client in a process of its own (`python -m tests.attacks.honest PORT`): up to 50 requests a second."""

from __future__ import annotations

import http.server
import json
import select
import socket
import statistics
import sys
import threading
import time

PAUSE = 0.02


class _Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if self.headers.get("x-my-jwt") else 500)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        """Be silent."""


def ask(port: int, target: str) -> bool:
    """Make one request by a connection of its own; whether it was signed and answered."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode())
        return client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def main() -> None:
    """Ask until there is a line to read, then tell."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port, target = int(sys.argv[1]), f"127.0.0.1:{server.server_port}"
    for _ in range(20):
        ask(port, target)
    print("ready", flush=True)
    took: list[float] = []
    failed = 0
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        began = time.monotonic()
        try:
            failed += not ask(port, target)
        except OSError:
            failed += 1
        took.append((time.monotonic() - began) * 1000)
    # the exclusive method goes beyond the longest of fewer than a hundred
    p99 = statistics.quantiles(took, n=100, method="inclusive")[-1] if len(took) > 1 else 0.0
    print(json.dumps({"p99_ms": round(p99, 1), "answered": len(took) - failed, "failed": failed}), flush=True)


if __name__ == "__main__":
    main()
