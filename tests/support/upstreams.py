"""Upstreams for the end-to-end tests: a recorder of what arrives, and httpbin.

`Recorder` is a server for HTTP/1.1 and (with TLS and ALPN) HTTP/2 that keeps each request as it arrived, byte for byte,
and answers by a table of paths: `recorder.route("/path", respond(204))`. It runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trustme

from . import servers

Fields = list[tuple[bytes, bytes]]
BLOCK = 1 << 18


class Authority:
    """A certificate authority of the tests; `pem` is the file a client (or the proxy) has to trust."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._leaf = self._ca.issue_cert("127.0.0.1", "localhost", "::1")
        self.pem = folder / "tests-ca.pem"
        self._ca.cert_pem.write_to_path(str(self.pem))
        self.key_pem = self._leaf.private_key_pem.bytes()
        self.chain_pem = b"".join(blob.bytes() for blob in self._leaf.cert_chain_pems)

    def issue(self, name: str, not_after: datetime | None = None) -> trustme.LeafCert:
        """Another certificate of this CA."""
        return self._ca.issue_cert(name, not_after=not_after)

    def server_context(self, alpn: Sequence[str] = (), leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """A server context that offers `alpn`, for 127.0.0.1, ::1 and localhost unless another certificate is given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (leaf or self._leaf).configure_cert(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


@dataclass
class Seen:
    """One request as it arrived. `head` is HTTP/1 only: request line and fields, byte for byte, with the empty line.

    `body` holds the first MiB; `size` and `sha256` speak of all of it.
    """

    version: str
    method: str
    target: str
    fields: Fields
    connection: int
    head: bytes = b""
    body: bytes = b""
    size: int = 0
    trailers: Fields = field(default_factory=list)
    complete: bool = False
    at: float = field(default_factory=time.time)
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path if self.target.startswith("/") else self.target

    @property
    def sha256(self) -> str:
        """Digest of the body that arrived so far."""
        return str(self._digest.hexdigest())

    @property
    def token(self) -> str:
        """The one token; fails when there is not exactly one."""
        tokens = self.values("x-my-jwt")
        assert len(tokens) == 1, f"{len(tokens)} tokens in {self.fields}"
        return tokens[0]

    def values(self, name: str) -> list[str]:
        """All values of a field, whatever its case."""
        return [value.decode("latin-1") for key, value in self.fields if key.decode("latin-1").lower() == name.lower()]

    def without_token(self) -> Fields:
        """The fields in order and case, but for ours."""
        return [(name, value) for name, value in self.fields if name.lower() != b"x-my-jwt"]

    def take(self, data: bytes) -> None:
        """Add a piece of body."""
        self._digest.update(data)
        self.size += len(data)
        if len(self.body) < 1 << 20:
            self.body += data[: (1 << 20) - len(self.body)]


class Exchange:
    """A request being answered: `start`, any number of `write`, `end`; the same for HTTP/1 and HTTP/2."""

    def __init__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.seen = seen
        self.writer = writer
        self.reusable = True

    async def start(self, status: int, fields: Iterable[tuple[str, str]] = (), *, framing: str = "chunked") -> None:
        """Send the head; `framing` (HTTP/1): sized (the caller's content-length), chunked, close, none."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        """Send a piece of body."""
        raise NotImplementedError

    async def end(self) -> None:
        """End the answer."""
        raise NotImplementedError

    async def give_up(self, code: int) -> None:
        """Reset the stream with this error code; HTTP/2 only."""
        raise NotImplementedError


Answer = Callable[[Exchange], Awaitable[None]]


def respond(status: int = 200, *fields: tuple[str, str], body: bytes = b"") -> Answer:
    """An answer of known length (none at all with 204 and 304; a HEAD gets the head)."""

    async def answer(exchange: Exchange) -> None:
        if status in (204, 304):
            await exchange.start(status, fields, framing="none")
        else:
            await exchange.start(status, [*fields, ("content-length", str(len(body)))], framing="sized")
            if exchange.seen.method != "HEAD":
                await exchange.write(body)
        await exchange.end()

    return answer


def chunked(*pieces: bytes, fields: Iterable[tuple[str, str]] = ()) -> Answer:
    """A chunked answer, one chunk a piece."""

    async def answer(exchange: Exchange) -> None:
        await exchange.start(200, fields)
        for piece in pieces:
            await exchange.write(piece)
        await exchange.end()

    return answer


def until_close(body: bytes) -> Answer:
    """An answer without any length: it ends when the connection does."""

    async def answer(exchange: Exchange) -> None:
        await exchange.start(200, framing="close")
        await exchange.write(body)
        exchange.reusable = False

    return answer


def download(size: int, *, sized: bool = True) -> Answer:
    """`size` bytes of zeros made on the fly, with a length or chunked."""

    async def answer(exchange: Exchange) -> None:
        fields = [("content-length", str(size))] if sized else []
        await exchange.start(200, fields, framing="sized" if sized else "chunked")
        block = bytes(BLOCK)
        for _ in range(size // BLOCK):
            await exchange.write(block)
        if size % BLOCK:
            await exchange.write(bytes(size % BLOCK))
        await exchange.end()

    return answer


def raw(data: bytes) -> Answer:
    """Bytes as they are (HTTP/1), then the end of the connection."""

    async def answer(exchange: Exchange) -> None:
        exchange.writer.write(data)
        await exchange.writer.drain()
        exchange.reusable = False

    return answer


def reset(after: bytes = b"") -> Answer:
    """Send `after`, if anything, then reset the connection."""

    async def answer(exchange: Exchange) -> None:
        exchange.writer.write(after)
        await exchange.writer.drain()
        _reset(exchange.writer)
        exchange.reusable = False

    return answer


def silent() -> Answer:
    """Never answer; the connection stays open until the client goes or the recorder stops."""

    async def answer(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    return answer


class Feed:
    """An answer whose body the test sends piece by piece: `push` a piece when the last has arrived, then `close`."""

    def __init__(self, content_type: str) -> None:
        self._type = content_type
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()

    def push(self, piece: bytes, timeout: float = 5.0) -> None:
        """Send a piece now (waits until the request has arrived)."""
        self._put(piece, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """End the answer."""
        self._put(None, timeout)

    async def __call__(self, exchange: Exchange) -> None:
        """Answer a request with what is pushed."""
        self._loop = asyncio.get_running_loop()
        await exchange.start(200, [("content-type", self._type)])
        self._started.set()
        while (piece := await self._pieces.get()) is not None:
            await exchange.write(piece)
        await exchange.end()

    def _put(self, piece: bytes | None, timeout: float) -> None:
        assert self._started.wait(timeout), "the request has not arrived"
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)


Script = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@contextmanager
def scripted(serve: Script, heads: list[bytes] | None = None) -> Iterator[int]:
    """A server that does this with each connection once a head is there, which is kept; its port."""

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1 << 16) or b"\r\n\r\n"
            if heads is not None:
                heads.append(head)
            serve(connection)
            while connection.recv(1 << 16):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


class Recorder:
    """A server on a loopback port that records requests and answers by path; a context manager.

    authority: speak TLS with its certificate, or with `leaf`; alpn: offer these (`h2` is served). context: speak TLS by
    this instead. port: 0 for one that is free. `requests` grows as heads arrive, `wait` gives complete ones;
    `connections` and `bytes_received` count everything (inside TLS, where there is TLS); `garbage` is what stood where
    an HTTP/1.1 request should. While `paused` is true nothing is read.
    """

    def __init__(
        self,
        *,
        authority: Authority | None = None,
        alpn: Sequence[str] = (),
        leaf: trustme.LeafCert | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Seen] = []
        self.garbage: list[bytes] = []
        self.connections = 0
        self.bytes_received = 0
        self.paused = False
        self.default: Answer = respond(200, ("content-type", "text/plain"), body=b"ok")
        self._routes: dict[str, tuple[Answer, bool]] = {}
        self._changed = threading.Condition()
        self._context = authority.server_context(alpn, leaf) if authority else context
        self._socket = socket.create_server(
            (host, port), backlog=512, family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.port: int = self._socket.getsockname()[1]
        self.host = f"[{host}]" if ":" in host else host
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._context else 'http'}://{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """Host and port, as in a Host field."""
        return f"{self.host}:{self.port}"

    def route(self, path: str, answer: Answer, *, before_body: bool = False) -> None:
        """Answer requests for `path` so; with `before_body` when the head is there (the body is read meanwhile)."""
        self._routes[path] = (answer, before_body)

    def wait(self, count: int = 1, timeout: float = 5.0) -> list[Seen]:
        """Wait until `count` requests have arrived whole; all of those."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(done := [seen for seen in self.requests if seen.complete]) < count:
                assert time.monotonic() < deadline, (
                    f"{len(done)} of {count} requests within {timeout} s: {self.requests}"
                )
                self._changed.wait(0.1)
        return done

    def wait_head(self, count: int = 1, timeout: float = 5.0) -> list[Seen]:
        """Wait until `count` request heads have arrived; all requests, whole or not."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(self.requests) < count:
                assert time.monotonic() < deadline, f"{len(self.requests)} of {count} heads within {timeout} s"
                self._changed.wait(0.1)
        return list(self.requests)

    def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until something that only this server can bring about is true."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s: {self.requests}"
            time.sleep(0.005)

    def only(self) -> Seen:
        """The one request that arrived; fails when there is not exactly one."""
        self.wait(1)
        assert len(self.requests) == 1, self.requests
        return self.requests[0]

    def stop(self) -> None:
        """Stop serving and cut what is open."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._socket, ssl=self._context, limit=4 * BLOCK)
        await self._stopping.wait()
        await servers.end(server)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self, reader, writer, self.connections)
        tls = writer.get_extra_info("ssl_object")
        two = tls is not None and tls.selected_alpn_protocol() == "h2"
        try:
            await (_Http2(link).run() if two else _http1(link))
        except (OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
            pass  # the other side went away, or the recorder stops: neither is news to a test
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), 0 if self._stopping.is_set() else 1)
            writer.transport.abort()  # what nobody wants to read must not keep it open

    def _arrived(self, seen: Seen) -> tuple[Answer, bool]:
        with self._changed:
            self.requests.append(seen)
            self._changed.notify_all()
        return self._routes.get(seen.path, (self.default, False))

    def _completed(self, seen: Seen) -> None:
        with self._changed:
            seen.complete = True
            self._changed.notify_all()


class _Link:
    """One accepted connection: buffered reads that count."""

    def __init__(
        self, recorder: Recorder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.recorder = recorder
        self.writer = writer
        self.number = number
        self._reader = reader
        self._buffer = bytearray()

    async def some(self) -> bytes:
        """What is there, at least one byte; EOFError at the end."""
        if not self._buffer:
            await self._fill()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        start = 0
        while (found := self._buffer.find(end, start)) < 0:
            start = max(0, len(self._buffer) - len(end))
            await self._fill()
        return self._cut(found + len(end))

    async def upto(self, size: int) -> bytes:
        """At least one byte and no more than `size`."""
        if not self._buffer:
            await self._fill()
        return self._cut(min(size, len(self._buffer)))

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _fill(self) -> None:
        while self.recorder.paused:
            await asyncio.sleep(0.01)
        data = await self._reader.read(BLOCK)
        if not data:
            raise EOFError
        self.recorder.bytes_received += len(data)
        self._buffer += data


class _Http1Exchange(Exchange):
    _framing = "none"

    async def start(self, status: int, fields: Iterable[tuple[str, str]] = (), *, framing: str = "chunked") -> None:
        self._framing = framing
        extra = [("transfer-encoding", "chunked")] if framing == "chunked" else []
        lines = [f"HTTP/1.1 {status} Said\r\n", *(f"{name}: {value}\r\n" for name, value in [*fields, *extra]), "\r\n"]
        self.writer.write("".join(lines).encode("latin-1"))
        await self.writer.drain()

    async def write(self, data: bytes) -> None:
        if data and self._framing == "chunked":
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif data:
            self.writer.write(data)
        await self.writer.drain()

    async def end(self) -> None:
        if self._framing == "chunked":
            self.writer.write(b"0\r\n\r\n")
        self.reusable = self._framing != "close"
        await self.writer.drain()


async def _http1(link: _Link) -> None:
    while True:
        head = await link.until(b"\r\n\r\n")
        try:
            seen = _parse_head(head, link.number)
        except ValueError:
            link.recorder.garbage.append(head)
            return
        answer, before_body = link.recorder._arrived(seen)
        exchange = _Http1Exchange(seen, link.writer)
        body = asyncio.ensure_future(_read_body(link, seen))
        try:
            if not before_body:
                await body
            await _while_open(answer(exchange), link, body)
            if not exchange.reusable:
                return
            await body
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)


async def _while_open(answer: Awaitable[None], link: _Link, body: asyncio.Future[None]) -> None:
    """Run the answer, but give it up when the client has gone (otherwise `silent` would keep the connection)."""
    running = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_gone(link, body))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
    finally:
        running.cancel()
        gone.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)


async def _gone(link: _Link, body: asyncio.Future[None]) -> None:
    await asyncio.wait({body})
    while not link._reader.at_eof():
        await asyncio.sleep(0.02)


async def _read_body(link: _Link, seen: Seen) -> None:
    if seen.values("transfer-encoding"):
        while size := int((await link.until(b"\r\n")).split(b";")[0], 16):
            await _read_sized(link, seen, size)
            await link.until(b"\r\n")
        while (line := await link.until(b"\r\n")) != b"\r\n":
            seen.trailers.append(_parse_field(line))
    else:
        await _read_sized(link, seen, int((seen.values("content-length") or ["0"])[0]))
    link.recorder._completed(seen)


async def _read_sized(link: _Link, seen: Seen, size: int) -> None:
    while size:
        data = await link.upto(size)
        size -= len(data)
        seen.take(data)


def _parse_head(head: bytes, connection: int) -> Seen:
    first, *lines = head[:-4].split(b"\r\n")
    method, target, version = first.decode("latin-1").split(" ", 2)
    return Seen(version.removeprefix("HTTP/"), method, target, [_parse_field(line) for line in lines], connection, head)


def _parse_field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip()


class _Http2:
    """The server side of one HTTP/2 connection."""

    def __init__(self, link: _Link) -> None:
        self.link = link
        config = h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.window = asyncio.Event()
        self._streams: dict[int, tuple[Seen, Answer, bool]] = {}
        self._answers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the connection ends."""
        self.h2.initiate_connection()
        try:
            while True:
                await self.flush()
                for event in self.h2.receive_data(await self.link.some()):
                    self._on(event)
        except h2.exceptions.ProtocolError:
            await self.flush()
        finally:
            for task in self._answers:
                task.cancel()
            await asyncio.gather(*self._answers, return_exceptions=True)

    async def flush(self) -> None:
        """Send what the protocol has to send."""
        self.link.writer.write(self.h2.data_to_send())
        await self.link.writer.drain()

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream), headers=list(headers)):
                self._begin(stream, [(bytes(name), bytes(value)) for name, value in headers])
            case h2.events.DataReceived(stream_id=int(stream), data=bytes(data), flow_controlled_length=int(size)):
                self._streams[stream][0].take(data)
                self.h2.acknowledge_received_data(size, stream)
            case h2.events.TrailersReceived(stream_id=int(stream), headers=list(headers)):
                self._streams[stream][0].trailers += [(bytes(name), bytes(value)) for name, value in headers]
            case h2.events.StreamEnded(stream_id=int(stream)):
                seen, answer, before_body = self._streams[stream]
                self.link.recorder._completed(seen)
                if not before_body:
                    self._answer(stream, seen, answer)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged() | h2.events.StreamReset():
                self.window.set()

    def _begin(self, stream: int, fields: Fields) -> None:
        pseudo = {name: value.decode("latin-1") for name, value in fields if name.startswith(b":")}
        plain = [(name, value) for name, value in fields if not name.startswith(b":")]
        seen = Seen("2", pseudo.get(b":method", ""), pseudo.get(b":path", ""), plain, self.link.number)
        answer, before_body = self.link.recorder._arrived(seen)
        self._streams[stream] = (seen, answer, before_body)
        if before_body:
            self._answer(stream, seen, answer)

    def _answer(self, stream: int, seen: Seen, answer: Answer) -> None:
        task = asyncio.ensure_future(_run(answer(_Http2Exchange(self, stream, seen))))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)


class _Http2Exchange(Exchange):
    def __init__(self, connection: _Http2, stream: int, seen: Seen) -> None:
        super().__init__(seen, connection.link.writer)
        self._connection = connection
        self._stream = stream

    async def start(self, status: int, fields: Iterable[tuple[str, str]] = (), *, framing: str = "chunked") -> None:
        self._connection.h2.send_headers(self._stream, [(":status", str(status)), *fields])
        await self._connection.flush()

    async def write(self, data: bytes) -> None:
        protocol = self._connection.h2
        while data:
            room = min(protocol.local_flow_control_window(self._stream), protocol.max_outbound_frame_size)
            if room <= 0:
                self._connection.window.clear()
                await self._connection.window.wait()
                continue
            protocol.send_data(self._stream, data[:room])
            data = data[room:]
            await self._connection.flush()

    async def end(self) -> None:
        self._connection.h2.end_stream(self._stream)
        await self._connection.flush()

    async def give_up(self, code: int) -> None:
        self._connection.h2.reset_stream(self._stream, code)
        await self._connection.flush()


async def _run(answer: Awaitable[None]) -> None:
    with contextlib.suppress(h2.exceptions.ProtocolError, OSError):
        await answer


def _reset(writer: asyncio.StreamWriter) -> None:
    # Zero linger makes the close a reset, at once, whatever is still unsent.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Httpbin:
    """The httpbin application on a free loopback port, in threads; a context manager."""

    def __init__(self) -> None:
        import httpbin
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, *args: object) -> None:
                """Say nothing."""

        self._server = make_server("127.0.0.1", 0, httpbin.app, threaded=True, request_handler=Quiet)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


@contextmanager
def deaf_authority() -> Iterator[str]:
    """Where no connection comes about: the listener's queue is full, and the kernel drops what comes."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"
