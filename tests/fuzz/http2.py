"""Frames of HTTP/2, from a client and from an upstream: the proxy answers, or ends the connection, and lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from hypothesis import strategies as st

from tests.support import servers
from tests.support.corpus import Case, Expect
from tests.support.corpus_runs import Upstream
from tests.support.frame_cases import CASES, Asks
from tests.support.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    block,
    frame,
    settings,
    window_update,
)

from .stage import Stage, unsigned
from .target import Target, changed

PATIENCE = 8.0
"""Seconds for an answer, of which the proxy waits two for the upstream."""
LAST = 1001
"""The stream of the sound request that follows."""

_AUTHORITY = b"127.0.0.1:00000"
"""Stands for the address of the upstream, which is as long: a field block counts its bytes."""
_LONGEST = 3000
_WHOLE = END_HEADERS | END_STREAM
_OK = block((":status", "200"))

_ANSWERS = [
    frame(HEADERS, _OK, 1, END_HEADERS) + frame(DATA, b"ok", 1, END_STREAM),
    frame(HEADERS, block((":status", "103")), 1, END_HEADERS) + frame(HEADERS, _OK, 1, _WHOLE),
    frame(HEADERS, block((":status", "200"), ("content-length", "3"), ("a", "b")), 1, END_HEADERS)
    + frame(DATA, b"abc", 1)
    + frame(HEADERS, block(("x", "y")), 1, _WHOLE),
    frame(HEADERS, _OK[:1], 1) + frame(CONTINUATION, _OK[1:], 1, END_HEADERS) + frame(DATA, b"", 1, END_STREAM),
    frame(RST_STREAM, bytes(4), 1) + frame(GOAWAY, bytes(8)) + window_update(0, 5),
    frame(GOAWAY, bytes(3) + b"\1" + bytes(4)) + frame(HEADERS, _OK, 1, _WHOLE),
    frame(PUSH_PROMISE, b"\0\0\0\2" + block((":method", "GET")), 1, END_HEADERS) + frame(HEADERS, _OK, 1, _WHOLE),
    settings((4, 0), (3, 0), (5, 1 << 14)) + frame(HEADERS, _OK, 1, _WHOLE) + frame(SETTINGS, flags=ACK),
]


def targets(stage: Stage) -> list[Target]:
    """All of them."""

    def checked(work: Callable[[Stage, bytes], Coroutine[Any, Any, str]]) -> Callable[[bytes], str]:
        return lambda value: stage.run(work(stage, value)) or stage.shaken()

    return [
        Target("http2", _frames(_asked()), checked(_from_client)),
        Target("http2_upstream", _frames(_ANSWERS), checked(_from_upstream)),
    ]


def _asked() -> list[bytes]:
    """What clients send in the cases of frames, where it is not long."""
    found = []
    for name, case in CASES.items():
        asks = Asks(_AUTHORITY.decode(), str(len(name)), {3: 100, 4: 65535, 5: 1 << 14, 6: 1 << 16})
        sent = b"".join(step for step in case.steps(asks) if isinstance(step, bytes))
        found += [sent] if case.opened and 0 < len(sent) <= _LONGEST else []
    head = Asks(_AUTHORITY.decode(), "token", {}).fields("sound", ("x-my-jwt", "a.b.c"), method="POST")
    for trailer in ("x-my-jwt", "x_my_jwt", "x-other"):
        body = frame(DATA, b"abc", 1) + frame(HEADERS, block((trailer, "a.b.c")), 1, _WHOLE)
        found.append(frame(HEADERS, block(*head), 1, END_HEADERS) + body)
    return found


@st.composite
def _frames(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Frames of one or two of these, changed each by itself; mostly their lengths are right."""
    frames = [*split(draw(st.sampled_from(seeds))), *split(draw(st.sampled_from(seeds)))[: draw(st.integers(0, 3))]]
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(frames)))
        chosen = frames[at : at + 1] or [frame(draw(st.integers(0, 10)), draw(st.binary(max_size=12)), draw(_STREAMS))]
        match draw(st.integers(0, 5)):
            case 0:
                frames[at : at + 1] = []
            case 1:
                frames.insert(draw(st.integers(0, len(frames))), chosen[0])
            case 2:
                frames[at : at + 1] = [_with(chosen[0], kind=draw(st.integers(0, 10)))]
            case 3:
                frames[at : at + 1] = [_with(chosen[0], flags=draw(st.integers(0, 255)))]
            case 4:
                frames[at : at + 1] = [_with(chosen[0], stream=draw(_STREAMS))]
            case 5:
                frames[at : at + 1] = [_with(chosen[0], payload=draw(changed([chosen[0][9:]], most=3)))]
    whole = b"".join(frames)
    return draw(changed([whole], most=2)) if draw(st.integers(0, 9)) == 0 else whole


_STREAMS = st.sampled_from([0, 1, 2, 3, 5, 7, 999, 1001, (1 << 31) - 1, 1 << 31])


def split(data: bytes) -> list[bytes]:
    """The frames that these bytes are; what is none is the last."""
    found = []
    while data:
        size = 9 + int.from_bytes(data[:3])
        found.append(data[:size])
        data = data[size:]
    return found


def _with(one: bytes, kind: int = -1, flags: int = -1, stream: int = -1, payload: bytes | None = None) -> bytes:
    """This frame with something else in it."""
    head = one[:9].ljust(9, b"\0")
    return frame(
        head[3] if kind < 0 else kind,
        one[9:] if payload is None else payload,
        int.from_bytes(head[5:9]) if stream < 0 else stream,
        head[4] if flags < 0 else flags,
    )


def is_whole(data: bytes) -> bool:
    """Whether these bytes are frames, and nothing is left over: what follows is understood."""
    return all(len(one) >= 9 and len(one) == 9 + int.from_bytes(one[:3]) for one in split(data))


# --- a client


async def _from_client(stage: Stage, value: bytes) -> str:
    """What is wrong after a client has sent these frames, and a sound request after them."""
    upstream = Upstream(stage.authority.server_context(["h2"]))
    await upstream.start()
    upstream.begin(Case("", "", "h2-tunnel", (), Expect()))
    try:
        said = value.replace(_AUTHORITY, upstream.authority.encode())
        async with _tunnel(stage, upstream.port) as (reader, writer):
            fields = {":method": "GET", ":scheme": "https", ":authority": upstream.authority, ":path": "/"}
            sound = frame(HEADERS, block(*fields.items()), LAST, _WHOLE)
            writer.write(PREFACE + settings((4, 1 << 20)) + said + sound)
            wrong = await _hear(reader, writer, LAST, patience=PATIENCE if is_whole(value) else 0.2)
        wrong = wrong if is_whole(value) else ""
        return "; ".join([*filter(None, [wrong]), *unsigned(link.received for link in upstream.links)])
    finally:
        await upstream.stop()


async def _hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: int, patience: float) -> str:
    """Wait until this stream has an answer or is reset, or the connection is over; empty if so."""
    data = b""
    try:
        async with asyncio.timeout(patience):
            while new := await reader.read(1 << 16):
                frames = split(data + new)
                data = b"" if is_whole(frames[-1]) else frames.pop()
                if any(_ends(one, stream) for one in frames):
                    return ""
                for one in frames:
                    if one[3] == SETTINGS and not one[4] & ACK:
                        writer.write(frame(SETTINGS, flags=ACK))
    except OSError as error:
        return f"neither an answer nor an end within {patience:g} s" if isinstance(error, TimeoutError) else ""
    return ""


def _ends(one: bytes, stream: int) -> bool:
    """Whether a frame is the last of this stream, or of the connection."""
    kind, flags, number = one[3], one[4], int.from_bytes(one[5:9])
    answered = kind == RST_STREAM or (kind in (DATA, HEADERS) and bool(flags & END_STREAM))
    return kind == GOAWAY or (number == stream and answered)


@contextlib.asynccontextmanager
async def _tunnel(stage: Stage, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A tunnel in which HTTP/2 is agreed upon."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.proxy("fast").port)
    try:
        authority = f"127.0.0.1:{port}"
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(stage.trust("h2"), server_hostname="127.0.0.1")
        yield reader, writer
    finally:
        writer.transport.abort()
        await servers.turns()


# --- an upstream


async def _from_upstream(stage: Stage, value: bytes) -> str:
    """What is wrong after an upstream has answered with these frames, and closed."""

    tasks = set[asyncio.Task[None]]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            tasks.add(task)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                writer.write(settings())
                await reader.readexactly(len(PREFACE))
                while (await reader.readexactly(9))[3] != HEADERS:
                    pass  # no other frame of ours is long
            writer.write(value)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.transport.abort()

    context = stage.authority.server_context(["h2"])
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        async with _tunnel(stage, port) as (reader, writer):
            fields = {":method": "GET", ":scheme": "https", ":authority": f"127.0.0.1:{port}", ":path": "/"}
            writer.write(PREFACE + settings() + frame(HEADERS, block(*fields.items()), 1, _WHOLE))
            return await _hear(reader, writer, 1, PATIENCE)
    finally:
        await servers.end(server)
        await asyncio.gather(*tasks, return_exceptions=True)
