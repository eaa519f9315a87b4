"""What flows by a WebSocket: as it came, or, where a script watches, taken apart by mitmproxy without harm."""

from __future__ import annotations

import asyncio
import contextlib

from tests.support import servers
from tests.support.clients import message

from .stage import Stage
from .target import Target, changed

PATIENCE = 8.0
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + 22 * "A" + "==",
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"
)

_MASKED = [
    b"\x81\x85\0\0\0\0hello",
    b"\x01\x81\0\0\0\0a" + b"\x89\x81\0\0\0\0p" + b"\x00\x80\0\0\0\0" + b"\x80\x81\0\0\0\0b",
    b"\x82\xfe\x00\x80abcd" + bytes(128),
    b"\x82\xff" + bytes(7) + b"\x10abcd" + bytes(16),
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"\x8a\x80\0\0\0\0\xc1\x80\0\0\0\0",
]
_BARE = [
    b"\x81\x05hello",
    b"\x01\x01a\x89\x00\x80\x01b",
    b"\x82\x7e\x00\x80" + bytes(128),
    b"\x88\x02\x03\xe8",
    b"\x8a\0",
]
_SEEDS = [bytes([len(sent)]) + sent + answered for sent in _MASKED for answered in _BARE]
_PIECES = [*_MASKED, *_BARE, b"\xff\xff", b"\x82\xff" + 8 * b"\xff", b"\x81\x81\0\0\0\0\xff", b"\x88\x81\0\0\0\0a"]


def targets(stage: Stage) -> list[Target]:
    """All of them."""

    def check(value: bytes) -> str:
        return stage.run(_check(stage, value)) or stage.shaken()

    return [Target("websockets", changed(_SEEDS, _PIECES), check)]


async def _check(stage: Stage, value: bytes) -> str:
    """The first byte tells how many of the others the client sends; the upstream sends the rest."""
    size = value[0] if value else 0
    sent, answered = value[1 : 1 + size], value[1 + size :]
    plain, _ = await asyncio.gather(*(_hold(stage.proxy(name).port, sent, answered) for name in ("fast", "watched")))
    return "" if plain == [answered, sent] else f"to the client {plain[0]!r}, to the upstream {plain[1]!r}"


async def _hold(port: int, sent: bytes, answered: bytes) -> list[bytes]:
    """What the client and the upstream have got when both have closed their sides. Raises TimeoutError."""
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            tasks.add(task)
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SWITCH + answered)
            writer.write_eof()
        data = await _read(reader)
        if not arrived.done():  # by who has waited long enough
            arrived.set_result(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    authority = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(message("GET", f"http://{authority}/", f"Host: {authority}", *UPGRADE))
            await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(OSError):
                writer.write(sent)
                writer.write_eof()
            return [await _read(reader), await arrived]
    finally:
        writer.transport.abort()
        await servers.end(server)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> bytes:
    data = b""
    with contextlib.suppress(OSError):
        while new := await reader.read(1 << 16):
            data += new
    return data
