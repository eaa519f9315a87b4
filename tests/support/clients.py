"""Clients for the end-to-end tests that say exactly what they are told: raw HTTP/1, raw HTTP/2, and curl."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events

Fields = list[tuple[bytes, bytes]]


@dataclass
class Reply:
    """One answer as it arrived."""

    status: int
    fields: Fields
    body: bytes = b""
    head: bytes = b""
    trailers: Fields = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """All values of a field, whatever its case."""
        return [value.decode("latin-1") for key, value in self.fields if key.decode("latin-1").lower() == name.lower()]


class Raw:
    """A blocking HTTP/1 connection; every wait is bounded by `timeout` seconds; a context manager."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 10.0) -> None:
        self.socket: socket.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def dribble(self, data: bytes, pause: float = 0.005) -> None:
        """Send one byte at a time."""
        for byte in data:
            self.socket.sendall(bytes([byte]))
            time.sleep(pause)

    def request(self, data: bytes, method: str = "GET") -> Reply:
        """Send a whole request and read its answer."""
        self.send(data)
        return self.reply(method)

    def reply(self, method: str = "GET") -> Reply:
        """Read one whole answer to a request of this method."""
        reply = self.head()
        if method == "HEAD" or reply.status in (204, 304) or reply.status < 200 or method == "CONNECT":
            return reply
        if reply.values("transfer-encoding"):
            while size := int(self.line().split(b";")[0], 16):
                reply.body += self.exactly(size)
                self.line()
            while line := self.line():
                reply.trailers.append(_parse_field(line))
        elif length := reply.values("content-length"):
            reply.body = self.exactly(int(length[0]))
        else:
            reply.body = self.rest()
        return reply

    def head(self) -> Reply:
        """Read one head, which may be an interim one."""
        head = self.until(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        return Reply(int(first.split()[1]), [_parse_field(line) for line in lines], head=head)

    def line(self) -> bytes:
        """Read one line, without its end."""
        return self.until(b"\r\n")[:-2]

    def until(self, end: bytes) -> bytes:
        """Read up to and with `end`."""
        while (found := self._buffer.find(end)) < 0:
            self._fill()
        return self._cut(found + len(end))

    def exactly(self, size: int) -> bytes:
        """Read `size` bytes."""
        while len(self._buffer) < size:
            self._fill()
        return self._cut(size)

    def rest(self) -> bytes:
        """Read to the end of the connection (a reset ends it too)."""
        try:
            while True:
                self._fill()
        except (EOFError, ConnectionResetError):
            return self._cut(len(self._buffer))

    def tunnel(self, authority: str) -> Reply:
        """Open a CONNECT tunnel; fails when the proxy refuses."""
        reply = self.request(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode(), "CONNECT")
        assert reply.status == 200, reply
        return reply

    def secure_tunnel(self, authority: str, cafile: Path, *alpn: str) -> ssl.SSLSocket:
        """Open a CONNECT tunnel and speak TLS in it, trusting one CA and offering `alpn`."""
        self.tunnel(authority)
        return self.start_tls(client_context(cafile, *alpn))

    def start_tls(self, context: ssl.SSLContext, hostname: str = "127.0.0.1") -> ssl.SSLSocket:
        """Speak TLS from here on."""
        wrapped = context.wrap_socket(self.socket, server_hostname=hostname)
        self.socket = wrapped
        return wrapped

    def _fill(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError(f"the connection ended after {bytes(self._buffer)!r}")
        self._buffer += data

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


class Http2:
    """The client side of an HTTP/2 connection over a socket that already negotiated `h2`."""

    def __init__(self, sock: socket.socket) -> None:
        config = h2.config.H2Configuration(header_encoding=None, validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self._socket = sock
        self._replies: dict[int, Reply] = {}
        self._ended: set[int] = set()
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what the protocol has to send."""
        self._socket.sendall(self.h2.data_to_send())

    def send(
        self,
        fields: Iterable[tuple[str, str]],
        body: bytes = b"",
        trailers: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Send a whole request (a body of one frame at most); its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, list(fields), end_stream=not body and not trailers)
        if body:
            self.h2.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(stream, list(trailers), end_stream=True)
        self.flush()
        return stream

    def reply(self, stream: int) -> Reply:
        """Read until the answer on this stream is whole."""
        while stream not in self._ended:
            self._read()
        return self._replies[stream]

    def pour(self, sizes: dict[int, int], *, patience: float = 5.0) -> dict[int, int]:
        """Send so much on each stream, as windows allow, and end it; what is left after nothing moved for so long."""
        left, timeout = dict(sizes), self._socket.gettimeout()
        self._socket.settimeout(patience)
        try:
            while left:
                sent = [self._pour(stream, left) for stream in list(left)]
                if not any(sent):
                    self._read()
        except TimeoutError:
            pass
        self._socket.settimeout(timeout)
        return left

    def _pour(self, stream: int, left: dict[int, int]) -> bool:
        """Send a frame, if there is room; whether there was."""
        size = min(left[stream], self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
        if size <= 0:
            return False
        left[stream] -= size
        self.h2.send_data(stream, bytes(size), end_stream=not left[stream])
        if not left[stream]:
            del left[stream]
        self.flush()
        return True

    def _read(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise EOFError(f"the connection ended; there were {self._replies}")
        for event in self.h2.receive_data(data):
            self._on(event)
        self.flush()

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(stream), headers=list(headers)):
                fields = [(bytes(name), bytes(value)) for name, value in headers]
                status = int(dict(fields)[b":status"])
                self._replies[stream] = Reply(status, [pair for pair in fields if not pair[0].startswith(b":")])
            case h2.events.DataReceived(stream_id=int(stream), data=bytes(data), flow_controlled_length=int(size)):
                self._replies[stream].body += data
                self.h2.acknowledge_received_data(size, stream)
            case h2.events.StreamEnded(stream_id=int(stream)):
                self._ended.add(stream)
            case h2.events.StreamReset(stream_id=int(stream), error_code=code):
                raise ConnectionResetError(f"stream {stream} was reset: {code}")
            case h2.events.ConnectionTerminated(error_code=code):
                raise ConnectionResetError(f"the connection was ended: {code}")


def curl(
    *args: str,
    proxy: str | None = None,
    timeout: float = 30.0,
    stdin: int | None = subprocess.DEVNULL,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a real curl, quietly and with nothing from the environment; fails when curl does."""
    via = () if proxy is None else ("--proxy", proxy)
    command = ["curl", "-q", "-sS", "--max-time", str(timeout), *via, *args]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdin=stdin,
        capture_output=True,
        timeout=timeout + 5,
        cwd=cwd,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
    return done


def client_context(cafile: Path, *alpn: str) -> ssl.SSLContext:
    """A TLS context that trusts this CA alone and offers `alpn`."""
    context = ssl.create_default_context(cafile=str(cafile))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def pseudo(method: str, authority: str, path: str) -> list[tuple[str, str]]:
    """The pseudo-fields of an HTTP/2 request."""
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]


def message(method: str, target: str, *lines: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """A whole HTTP/1 request, byte for byte; nothing is added to the given field lines."""
    head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/{version}", *lines, ""))
    return head.encode("latin-1") + body


def _parse_field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip()
