"""Attacks by HTTP/2, in tunnels."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.support import frames
from tests.support.frames import frame

from .stage import MIB, Stage

_PIECE = b"x" * 16384
Events = Callable[[h2.connection.H2Connection, h2.events.Event], None]


def _server_context(stage: Stage) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stage.authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    return context


async def _upstream(stage: Stage, on_event: Events, at_once: int = 100) -> int:
    """A server that does this with each event, and takes so many requests at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        connection.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: at_once})
        writer.write(connection.data_to_send())
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it has said goodbye
            while data := await reader.read(1 << 16):
                for event in connection.receive_data(data):
                    on_event(connection, event)
                writer.write(connection.data_to_send())
                await writer.drain()

    return await stage.upstream(serve, _server_context(stage))


def _answer(connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
    """Answer each request, read all that comes."""
    if isinstance(event, h2.events.DataReceived):
        connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
    elif isinstance(event, h2.events.RequestReceived) and event.stream_id:
        with contextlib.suppress(h2.exceptions.StreamClosedError):  # it was reset in the same piece
            connection.send_headers(event.stream_id, [(":status", "200"), ("content-length", "0")], end_stream=True)


def _swallow(connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
    """Read nothing that has to be acknowledged, answer nothing."""


def _download(connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
    """Send as much as the windows allow, whenever anything comes."""
    if isinstance(event, h2.events.RequestReceived) and event.stream_id:
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it has been told to go away since
            connection.send_headers(event.stream_id, [(":status", "200")])
    for stream in list(connection.streams):
        with contextlib.suppress(Exception):
            sent = 0
            while connection.local_flow_control_window(stream) >= len(_PIECE) and sent < 64 * MIB:
                connection.send_data(stream, _PIECE)
                sent += len(_PIECE)


async def _tunnel(stage: Stage, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that speaks HTTP/2 with the proxy, after its preface."""
    reader, writer = await stage.connect()
    writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head:
        raise ConnectionError(head)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    await writer.start_tls(context, server_hostname="localhost")
    if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        raise ConnectionError("no HTTP/2")
    writer.write(frames.PREFACE + frames.settings())
    return reader, writer


def _head(stream: int, port: int, method: str = "GET", flags: int = frames.END_STREAM) -> bytes:
    fields = ((":method", method), (":scheme", "https"), (":authority", f"localhost:{port}"), (":path", "/"))
    return frame(frames.HEADERS, frames.block(*fields), stream, flags | frames.END_HEADERS)


async def handshakes(stage: Stage) -> None:
    """Eight clients make TLS handshakes, and nothing else."""
    port = await _upstream(stage, _answer)
    made = 0

    async def one() -> None:
        nonlocal made
        while not stage.over:
            with contextlib.suppress(OSError, EOFError):
                _, writer = await asyncio.wait_for(_tunnel(stage, port), stage.left)
                writer.transport.abort()
                made += 1

    with contextlib.suppress(TimeoutError):
        await asyncio.gather(*(one() for _ in range(8)))
    stage.said.append(f"{made} made")


async def unread_answers(stage: Stage) -> None:
    """The client opens no windows for ten answers without an end."""
    port = await _upstream(stage, _download)
    reader, writer = await _tunnel(stage, port)
    for number in range(10):
        writer.write(_head(2 * number + 1, port))
    await _read(stage, reader)


async def _read(stage: Stage, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError, TimeoutError, EOFError):
        while data := await asyncio.wait_for(reader.read(1 << 16), stage.left):
            del data
    await stage.wait()


async def unread_bodies(stage: Stage) -> None:
    """The client sends ten bodies without an end, of which the upstream reads nothing."""
    await _upload(stage, await _upstream(stage, _swallow), 10)


async def bodies_that_wait(stage: Stage) -> None:
    """The client sends fifty bodies without an end to an upstream that takes one request, and never answers it."""
    arrived = asyncio.Event()
    port = await _upstream(stage, lambda *_: arrived.set(), at_once=1)
    await _upload(stage, port, 50, arrived)


async def _upload(stage: Stage, port: int, bodies: int, arrived: asyncio.Event | None = None) -> None:
    """Send so many bodies, as much as the windows allow; all but the first when that has arrived."""
    reader, writer = await _tunnel(stage, port)
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    writer.write(connection.data_to_send()[len(frames.PREFACE) :])
    fields = ((":method", "POST"), (":scheme", "https"), (":authority", f"localhost:{port}"), (":path", "/"))
    connection.send_headers(1, fields)
    writer.write(connection.data_to_send())
    if arrived:
        await asyncio.wait_for(arrived.wait(), stage.left)
        await asyncio.sleep(0.2)  # till the proxy has heard how many the upstream takes
    for number in range(1, bodies):
        connection.send_headers(2 * number + 1, fields)
    sent = 0
    with contextlib.suppress(OSError, TimeoutError, EOFError):
        while not stage.over:
            for stream in list(connection.streams):
                while connection.local_flow_control_window(stream) >= len(_PIECE) and sent < 256 * MIB:
                    connection.send_data(stream, _PIECE)
                    sent += len(_PIECE)
                    if sent % MIB == 0:
                        break
            writer.write(connection.data_to_send())
            await asyncio.wait_for(writer.drain(), 1)
            with contextlib.suppress(TimeoutError):
                connection.receive_data(await asyncio.wait_for(reader.read(1 << 16), 0.2))
    stage.said.append(f"sent {sent / MIB:.0f} MiB")
    await stage.wait()


async def upstreams_that_close(stage: Stage) -> None:
    """One connection of the client asks an upstream that closes its own after each answer, again and again."""

    def answer(connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
        _answer(connection, event)
        if isinstance(event, h2.events.RequestReceived):
            connection.close_connection()

    port = await _upstream(stage, answer)
    reader, writer = await _tunnel(stage, port)
    asked = 0
    with contextlib.suppress(OSError, TimeoutError, EOFError):
        while not stage.over:
            writer.write(_head(2 * asked + 1, port))
            asked += 1
            await asyncio.wait_for(_until(reader, frames.HEADERS), stage.left)
    stage.said.append(f"asked {asked} times")


async def _until(reader: asyncio.StreamReader, kind: int) -> None:
    """Read up to a frame of this kind."""
    head = b""
    while not head or head[3] != kind:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3]))


async def _flood(stage: Stage, piece: bytes, *, open_streams: int = 1) -> None:
    port = await _upstream(stage, _answer)
    reader, writer = await _tunnel(stage, port)
    for number in range(open_streams):
        writer.write(_head(2 * number + 1, port, "POST", 0))
    heard = asyncio.create_task(_end_of(stage, reader))
    await stage.pour(writer, piece * 1000, 64 * MIB)
    await stage.wait()
    await heard


async def _end_of(stage: Stage, reader: asyncio.StreamReader) -> None:
    """Note the code of a GOAWAY."""
    buffer = b""
    with contextlib.suppress(OSError, TimeoutError, EOFError):
        while not stage.over:
            data = await asyncio.wait_for(reader.read(1 << 16), stage.left)
            if not data:
                break
            buffer += data
            while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3]):
                size = 9 + int.from_bytes(buffer[:3])
                if buffer[3] == frames.GOAWAY:
                    stage.said.append(f"GOAWAY {int.from_bytes(buffer[13:17])}")
                buffer = buffer[size:]


async def empty_data(stage: Stage) -> None:
    """DATA frames without data."""
    await _flood(stage, frames.data(1, b"", 0))


async def pings(stage: Stage) -> None:
    """PING frames."""
    await _flood(stage, frame(frames.PING, b"12345678"))


async def settings(stage: Stage) -> None:
    """SETTINGS frames."""
    await _flood(stage, frames.settings())


async def priorities(stage: Stage) -> None:
    """PRIORITY frames."""
    await _flood(stage, frame(frames.PRIORITY, b"\0\0\0\0\x10", 1))


async def window_updates(stage: Stage) -> None:
    """WINDOW_UPDATE frames."""
    await _flood(stage, frames.window_update(1, 1))


async def unknown_frames(stage: Stage) -> None:
    """Frames of no known type."""
    await _flood(stage, frame(0xBB, b"x"))


async def resets(stage: Stage) -> None:
    """Requests that are reset at once (CVE-2023-44487)."""
    port = await _upstream(stage, _answer)
    reader, writer = await _tunnel(stage, port)
    heard = asyncio.create_task(_end_of(stage, reader))
    stream = 1
    with contextlib.suppress(OSError, TimeoutError):
        while not (stage.over or writer.is_closing()):
            batch = b""
            for _ in range(200):
                batch += _head(stream, port) + frame(frames.RST_STREAM, b"\0\0\0\x08", stream)
                stream += 2
            writer.write(batch)
            await stage.drain(writer)
    await stage.wait()
    await heard
    stage.said.append(f"{stream // 2} streams")


async def continuations(stage: Stage) -> None:
    """A head of CONTINUATION frames without an end (CVE-2024-27316)."""
    port = await _upstream(stage, _answer)
    reader, writer = await _tunnel(stage, port)
    heard = asyncio.create_task(_end_of(stage, reader))
    writer.write(frame(frames.HEADERS, frames.block((":method", "GET")), 1, 0))
    await stage.pour(writer, frame(frames.CONTINUATION, frames.block(("a", "b" * 1000)), 1, 0) * 10, 64 * MIB)
    await stage.wait()
    await heard
