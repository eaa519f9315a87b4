"""HTTP/2 frame by frame: any bytes go out, sound or not, and what comes back is noted, not judged (RFC 9113 §4)."""

from __future__ import annotations

import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Self

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    """A frame, whatever its parts (RFC 9113 §4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame: identifiers and values, in this order."""
    return frame(SETTINGS, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def data(stream: int, payload: bytes = b"", flags: int = END_STREAM) -> bytes:
    """A DATA frame, the stream's last unless said otherwise."""
    return frame(DATA, payload, stream, flags)


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, struct.pack(">I", increment), stream)


def block(*fields: tuple[str, str]) -> bytes:
    """A field block that depends on none before it (not in the Huffman code, which takes long to make)."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    return hpack.Encoder().encode(encoded, huffman=False)


class Peer:
    """A client's HTTP/2 connection over a socket that already negotiated `h2`; a context manager.

    What arrived: `settings` of the server, how often it acknowledged ours (`acks`), `pongs`, and by stream `statuses`,
    `bodies`, `resets` and which have `ended`. `goaway` is the code of the first GOAWAY, `closed` the end of it all.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.settings: dict[int, int] = {}
        self.acks = 0
        self.pongs: list[bytes] = []
        self.statuses: dict[int, int] = {}
        self.bodies: defaultdict[int, bytes] = defaultdict(bytes)
        self.resets: dict[int, int] = {}
        self.ended: set[int] = set()
        self.goaway: int | None = None
        self.closed = False
        self._socket = sock
        self._buffer = b""
        self._decoder = hpack.Decoder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send bytes as they are, in one go; a server that no longer listens shows when one reads."""
        try:
            self._socket.sendall(b"".join(pieces))
        except OSError:
            self._socket.settimeout(0.2)  # what it said before may still be there

    def open(self, *pairs: tuple[int, int]) -> None:
        """Send the preface with these settings, and read and acknowledge the server's (RFC 9113 §3.4)."""
        self.send(PREFACE, settings(*pairs))
        self.until(lambda: bool(self.settings))
        self.send(frame(SETTINGS, flags=ACK))

    def until(self, condition: Callable[[], bool], timeout: float = 2.0) -> bool:
        """Read until the condition holds; whether it does, when the connection ends or `timeout` seconds are over."""
        deadline = time.monotonic() + timeout
        while not condition() and not self.closed and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            self._read()
        return condition()

    def _read(self) -> None:
        try:
            received = self._socket.recv(1 << 16)
        except TimeoutError:
            return
        except OSError:
            received = b""
        self.closed = not received
        self._buffer += received
        while len(self._buffer) >= 9:
            new, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                return
            new.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            self._on(new)

    def _on(self, new: Frame) -> None:
        match new:
            case HeadersFrame(data=fields):
                self._on_head(new.stream_id, int(dict(self._decoder.decode(fields, raw=True)).get(b":status", b"0")))
            case DataFrame(data=piece):
                self.bodies[new.stream_id] += piece
            case RstStreamFrame(error_code=code):
                self.resets.setdefault(new.stream_id, code)
            case GoAwayFrame(error_code=code) if self.goaway is None:
                self.goaway = code
            case SettingsFrame(settings=pairs):
                self.settings.update(pairs)
                self.acks += "ACK" in new.flags
            case PingFrame(opaque_data=opaque) if "ACK" in new.flags:
                self.pongs.append(opaque)
        if "END_STREAM" in new.flags:
            self.ended.add(new.stream_id)

    def _on_head(self, stream: int, status: int) -> None:
        if status >= 200:  # neither an interim head nor trailers
            self.statuses[stream] = status
