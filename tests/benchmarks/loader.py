"""One loader process (`python -m tests.benchmarks.loader`): what to send comes on standard input, what came on output.

As light as Python allows, since it shares the machine with what it measures: sockets and a selector. A loader in
asyncio took as many processor's caches and cycles as the fast proxies it was to measure, so that they looked dearer.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
import ssl
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events

from .load import SLACK, Spec

SAMPLE = 50  # tokens, for each loader
STREAMS = 4  # on each HTTP/2 connection
_CHUNK = 1 << 18
_FIELD = re.compile(rb"\r\n(content-length|x-seen-jwt):[ \t]*([^\r]*)", re.IGNORECASE)
_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass
class Notes:
    """What a loader has seen."""

    deadline: float = 0.0
    """When no request is begun any more, by time.perf_counter; 0 before what is measured begins."""
    latencies: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    errors: int = 0
    unsigned: int = 0
    under_way: int = 0
    """Requests without an answer yet."""

    def note(self, status: int, token: str, latency: float) -> None:
        """Note an answer."""
        self.under_way -= 1
        if not self.deadline:
            return
        if status != 200:
            self.errors += 1
            return
        self.latencies.append(latency)
        if not token:
            self.unsigned += 1
        elif len(self.latencies) % 31 == 1:
            self.tokens.append(token)


def connect(spec: Spec, context: ssl.SSLContext) -> socket.socket:
    """A connection to the upstream, through the proxy if there is one. Raises OSError."""
    connection = socket.create_connection(("127.0.0.1", spec.proxy or spec.upstream), timeout=SLACK)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if spec.protocol != "http":
        if spec.proxy:
            connection.sendall(f"CONNECT {spec.authority} HTTP/1.1\r\nHost: {spec.authority}\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := connection.recv(1)):
                    raise ConnectionError("the connection ended")
                head += byte
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise ConnectionError(head.decode("latin-1"))
        connection = context.wrap_socket(connection, server_hostname=spec.host)
    connection.setblocking(False)
    return connection


class Connection:
    """One connection: what is to be sent, and what is made of bytes that come."""

    def __init__(self, spec: Spec, context: ssl.SSLContext, selector: selectors.BaseSelector, notes: Notes) -> None:
        self._spec, self._context, self._selector, self.notes = spec, context, selector, notes
        self._unsent = b""
        self.open()

    def open(self) -> None:
        """Connect."""
        self.socket = connect(self._spec, self._context)
        self._selector.register(self.socket, selectors.EVENT_READ, self)
        self._is_open = True

    def close(self) -> None:
        """End the connection, if that has not been done."""
        if self._is_open:
            self._selector.unregister(self.socket)
            self.socket.close()
        self._is_open = False
        self._unsent = b""

    def send(self, data: bytes) -> None:
        """Send now or, what does not fit, as there is room."""
        self._unsent += data
        self._flush()
        if self._unsent:
            self._selector.modify(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def on_ready(self) -> None:
        """Take what has come. Raises OSError, EOFError."""
        if self._unsent:
            self._flush()
            if not self._unsent:
                self._selector.modify(self.socket, selectors.EVENT_READ, self)
        with contextlib.suppress(*_WAIT):
            while data := self.socket.recv(_CHUNK):
                self.on_data(data)
                # TLS may hold more of a record than the selector knows of.
                if not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()):
                    return
            raise EOFError("the connection ended")

    def _flush(self) -> None:
        with contextlib.suppress(*_WAIT):
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def on_data(self, data: bytes) -> None:
        """Read answers."""
        raise NotImplementedError

    def begin(self) -> None:
        """Send a request."""
        raise NotImplementedError


class Http1(Connection):
    """One request at a time; a connection that ends is an error, and is followed by another."""

    def __init__(self, spec: Spec, *rest: Any) -> None:
        self._request = spec.head() + b"x" * spec.body
        self._head: list[bytes] = []
        self._missing = -1
        super().__init__(spec, *rest)

    def begin(self) -> None:
        """Send the request; over a connection of its own, if so wished."""
        self.notes.under_way += 1
        self._begun = time.perf_counter()
        if not self._is_open:
            self.open()
        self.send(self._request)

    def on_ready(self) -> None:
        """Take what has come. Raises OSError and EOFError before what is measured begins."""
        try:
            super().on_ready()
        except (OSError, EOFError):
            if not self.notes.deadline:
                raise
            self.notes.errors += 1
            self.notes.under_way -= 1
            self._head, self._missing = [], -1
            self.close()
            self.open()
            if time.perf_counter() < self.notes.deadline:
                self.begin()

    def on_data(self, data: bytes) -> None:
        """Read a head, then count the body."""
        if self._missing < 0:
            self._head.append(data)
            head, end, data = b"".join(self._head).partition(b"\r\n\r\n")
            if not end:
                return
            self._fields = {name.lower(): value for name, value in _FIELD.findall(head)}
            self._status, self._missing = int(head[9:12]), int(self._fields[b"content-length"])
        self._missing -= len(data)
        if self._missing <= 0:
            now = time.perf_counter()
            self.notes.note(self._status, self._fields.get(b"x-seen-jwt", b"").decode("latin-1"), now - self._begun)
            self._head, self._missing = [], -1
            if self._spec.close:
                self.close()
            if now < self.notes.deadline:
                self.begin()


class Http2(Connection):
    """Several requests under way."""

    def __init__(self, spec: Spec, *rest: Any) -> None:
        self._fields = [(":method", "GET"), (":scheme", "https"), (":authority", spec.authority), (":path", spec.path)]
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self._h2.initiate_connection()
        self._begun: dict[int, float] = {}
        self._heads: dict[int, dict[str, str]] = {}
        super().__init__(spec, *rest)

    def begin(self) -> None:
        """Send one request; as many as may be under way, once what is measured has begun."""
        for _ in range(STREAMS if self.notes.deadline else 1):
            self._begin()
        self.send(self._h2.data_to_send())

    def on_data(self, data: bytes) -> None:
        """Read frames; an answer makes the next request, until time is up."""
        for event in self._h2.receive_data(data):
            self._on(event)
        if out := self._h2.data_to_send():
            self.send(out)

    def _begin(self) -> None:
        self.notes.under_way += 1
        stream = self._h2.get_next_available_stream_id()
        self._begun[stream] = time.perf_counter()
        self._h2.send_headers(stream, self._fields, end_stream=True)

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(stream), headers=list(headers)):
                self._heads[stream] = {str(name): str(value) for name, value in headers}
            case h2.events.DataReceived(stream_id=int(stream), flow_controlled_length=int(size)):
                self._h2.acknowledge_received_data(size, stream)
            case h2.events.StreamEnded(stream_id=int(stream)):
                head, now = self._heads.pop(stream), time.perf_counter()
                self.notes.note(int(head[":status"]), head.get("x-seen-jwt", ""), now - self._begun.pop(stream))
                if now < self.notes.deadline:
                    self._begin()
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                raise ConnectionError(repr(event))


def load(spec: Spec) -> dict[str, Any]:
    """Get ready, wait for the word, send until the time is up. Raises OSError, EOFError, TimeoutError."""
    http2 = spec.protocol == "https/2"
    count = max(1, spec.connections // STREAMS) if http2 else spec.connections
    notes, context = Notes(), _context(spec)
    with selectors.DefaultSelector() as selector:
        everyone = [(Http2 if http2 else Http1)(spec, context, selector, notes) for _ in range(count)]
        for connection in everyone:
            connection.begin()
        _serve(selector, notes, time.perf_counter() + SLACK)
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.perf_counter()
        notes.deadline = begun + spec.seconds
        for connection in everyone:
            connection.begin()
        _serve(selector, notes, notes.deadline + SLACK)
        ended = time.perf_counter()
        for connection in everyone:
            connection.close()
    return {
        "requests": len(notes.latencies),
        "seconds": ended - begun,
        "errors": notes.errors,
        "unsigned": notes.unsigned,
        "latencies": notes.latencies,
        "tokens": notes.tokens[:SAMPLE],
    }


def _serve(selector: selectors.BaseSelector, notes: Notes, deadline: float) -> None:
    while notes.under_way:
        for key, _ in selector.select(1):
            key.data.on_ready()
        if time.perf_counter() > deadline:
            raise TimeoutError("no answer")


def _context(spec: Spec) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # from Python 3.13 on; proxy.py's have no key identifiers
    for pem in spec.trust:
        context.load_verify_locations(pem)
    context.set_alpn_protocols(["h2"] if spec.protocol == "https/2" else ["http/1.1"])
    return context


def main() -> None:
    """Run one loader process."""
    given = json.loads(sys.stdin.readline())
    try:
        print(json.dumps(load(Spec(**{**given, "trust": tuple(given["trust"])}))), flush=True)
    except (OSError, EOFError) as error:
        print(f"failed: {error!r}", flush=True)


if __name__ == "__main__":
    main()
