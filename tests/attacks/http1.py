"""Attacks by HTTP/1.1, on memory and on fair turns."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl

from .stage import MIB, Stage

_PIECE = b"x" * 65536
_ODD = "Expect: 100-continue\r\n"
"""What has a request go by mitmproxy's layers."""


def _head(method: str, port: int, *lines: str) -> bytes:
    host = f"127.0.0.1:{port}"
    return "\r\n".join([f"{method} http://{host}/ HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that takes connections and does nothing with them."""
    await asyncio.sleep(600)


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that reads, and says nothing."""
    while await reader.read(1 << 18):
        pass


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that answers whatever comes, shortly."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()


async def _endless_answer(stage: Stage, start: bytes, piece: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        await stage.pour(writer, piece)

    port = await stage.upstream(serve)
    reader, writer = await stage.connect()
    writer.write(_head("GET", port))
    await stage.hear(reader)
    await stage.wait()


async def endless_answer_head(stage: Stage) -> None:
    """The upstream sends a header line without an end."""
    await _endless_answer(stage, b"HTTP/1.1 200 OK\r\nA: ", _PIECE)


async def endless_answer_fields(stage: Stage) -> None:
    """The upstream sends header lines without an end."""
    await _endless_answer(stage, b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 10000)


async def endless_answer_chunk_extension(stage: Stage) -> None:
    """The upstream sends a chunk's extension without an end."""
    await _endless_answer(stage, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=", _PIECE)


async def endless_answer_trailers(stage: Stage) -> None:
    """The upstream sends trailers without an end."""
    await _endless_answer(stage, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 10000)


async def endless_interims(stage: Stage) -> None:
    """The upstream sends interim answers without an end."""
    await _endless_answer(stage, b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 1000)


async def unread_answer(stage: Stage) -> None:
    """The client reads nothing of an answer without an end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await stage.pour(writer, _PIECE)

    port = await stage.upstream(serve)
    _, writer = await stage.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(_head("GET", port))
    await stage.wait()


async def _pour_request(stage: Stage, start: bytes, piece: bytes) -> None:
    reader, writer = await stage.connect()
    writer.write(start)
    heard = asyncio.create_task(stage.hear(reader))
    await stage.pour(writer, piece)
    await stage.wait()
    await heard


async def endless_head(stage: Stage) -> None:
    """The client sends a header line without an end."""
    await _pour_request(stage, b"GET http://127.0.0.1:9/ HTTP/1.1\r\nA: ", _PIECE)


async def endless_fields(stage: Stage) -> None:
    """The client sends header lines without an end."""
    await _pour_request(stage, b"GET http://127.0.0.1:9/ HTTP/1.1\r\n", b"A: b\r\n" * 10000)


async def behind_a_request(stage: Stage) -> None:
    """The client sends without an end behind a request that gets no answer."""
    port = await stage.upstream(_silence)
    await _pour_request(stage, _head("GET", port), _head("GET", port) * 500)


async def behind_an_odd_request(stage: Stage) -> None:
    """The same where mitmproxy's layers carry it."""
    port = await stage.upstream(_silence)
    await _pour_request(stage, _head("GET", port, "A: b", "A: b"), _head("GET", port) * 500)


async def unread_upload(stage: Stage) -> None:
    """The client sends a body that the upstream does not read."""
    port = await stage.upstream(_silence)
    await _pour_request(stage, _head("POST", port, "Content-Length: 99999999999"), _PIECE)


async def unread_odd_upload(stage: Stage) -> None:
    """The same where mitmproxy's layers carry it."""
    port = await stage.upstream(_silence)
    await _pour_request(stage, _head("POST", port, "A: b", "A: b", "Content-Length: 99999999999"), _PIECE)


async def endless_chunk_extension(stage: Stage) -> None:
    """The client sends a chunk's extension without an end."""
    port = await stage.upstream(_swallow)
    await _pour_request(stage, _head("POST", port, "Transfer-Encoding: chunked") + b"5;a=", _PIECE)


async def endless_trailers(stage: Stage) -> None:
    """The client sends trailers without an end."""
    port = await stage.upstream(_swallow)
    await _pour_request(stage, _head("POST", port, "Transfer-Encoding: chunked") + b"0\r\n", b"A: b\r\n" * 10000)


async def bodies_just_too_short_to_stream(stage: Stage) -> None:
    """200 clients send all but the end of a body of nearly 1 MiB."""
    port = await stage.upstream(_swallow)
    for _ in range(200):
        _, writer = await stage.connect()
        writer.write(_head("POST", port, "A: b", "A: b", f"Content-Length: {MIB - 1}") + b"x" * (MIB - 2))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(writer.drain(), 1)
    await stage.wait()


async def uploads_in_a_row(stage: Stage) -> None:
    """Many short connections with an upload of 1 MiB each."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(MIB)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    port = await stage.upstream(serve)
    while not stage.over:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(_head("POST", port, "A: b", "A: b", f"Content-Length: {MIB}") + b"x" * MIB)
        await stage.hear(reader)
        writer.close()


async def deflate_bomb(stage: Stage) -> None:
    """The upstream answers with what is a thousand times as long when it is inflated."""
    bomb = gzip.compress(b"\0" * (200 * MIB))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)

    port = await stage.upstream(serve)
    reader, writer = await stage.connect()
    writer.write(_head("GET", port))
    await stage.hear(reader)
    await stage.wait()


async def chunks_of_a_byte(stage: Stage) -> None:
    """Eight clients send chunks of one byte."""
    port = await stage.upstream(_swallow)
    start = _head("POST", port, "Transfer-Encoding: chunked")
    await asyncio.gather(*(_pour_request(stage, start, b"1\r\nx\r\n" * 10000) for _ in range(8)))


async def answer_chunks_of_a_byte(stage: Stage) -> None:
    """Eight upstreams send chunks of one byte."""
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def read(reader: asyncio.StreamReader) -> None:
        while not stage.over and await reader.read(1 << 18):
            pass

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        await stage.pour(writer, b"1\r\nx\r\n" * 10000)

    port = await stage.upstream(serve)
    readers = []
    for _ in range(8):
        reader, writer = await stage.connect()
        writer.write(_head("GET", port))
        readers.append(read(reader))
    await asyncio.gather(*readers)


async def _pipelined(stage: Stage, *lines: str) -> None:
    port = await stage.upstream(_answers)

    async def one() -> None:
        while not stage.over:
            reader, writer = await stage.connect()
            writer.write(_head("GET", port, *lines) * 3000)
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                for _ in range(3000):
                    await asyncio.wait_for(reader.readuntil(b"ok"), stage.left)
            writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(2)))


async def pipelined_requests(stage: Stage) -> None:
    """Two clients send 3,000 requests at once, again and again."""
    await _pipelined(stage)


async def odd_pipelined_requests(stage: Stage) -> None:
    """The same where mitmproxy's layers carry them."""
    await _pipelined(stage, "A: b", "A: b")


async def pipelined_pages(stage: Stage) -> None:
    """Two clients ask for the status page 3,000 times at once, again and again."""

    async def one() -> None:
        while not stage.over:
            reader, writer = await stage.connect()
            writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                for _ in range(3000):
                    await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200 "), stage.left)
            writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(2)))


async def websocket_of_small_messages(stage: Stage) -> None:
    """A client sends WebSocket messages of ten bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        await _swallow(reader, writer)

    port = await stage.upstream(serve)
    start = _head(
        "GET",
        port,
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    reader, writer = await stage.connect()
    writer.write(start)
    await stage.hear(reader)
    await stage.pour(writer, b"\x81\x8a\0\0\0\0helloworld" * 4000)


async def many_connections(stage: Stage) -> None:
    """Connections that say nothing, as many as can be."""
    with contextlib.suppress(OSError):
        for _ in range(900):
            await stage.connect()
    await stage.wait()


async def behind_a_hung_handshake(stage: Stage) -> None:
    """The client sends a body while the upstream's TLS hangs."""
    port = await stage.upstream(_silence)
    reader, writer = await stage.connect()
    writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await writer.start_tls(context, server_hostname="localhost")
    writer.write(f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 99999999999\r\n\r\n".encode())
    await stage.pour(writer, _PIECE)
    await stage.wait()
