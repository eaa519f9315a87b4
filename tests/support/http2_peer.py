"""One side of an HTTP/2 connection that sends whatever header lists and data it is told, and serialises what it hears.

It needs no flow control: it opens its own windows at once, and sends less than the first window of its peer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW, _FRAME = (1 << 31) - 1, 1 << 14

Headers = list[tuple[bytes, bytes]]


@dataclass
class Incoming:
    """What arrived on one stream: header lists (interim answers, head, trailers) and data."""

    lists: list[Headers] = field(default_factory=list)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended or self.reset is not None

    def has_status(self, status: int) -> bool:
        """Whether an answer, or an interim one, has this status code."""
        return any((b":status", b"%d" % status) in headers for headers in self.lists)


class Peer:
    """One side of a connection. What is to be sent gathers in `out`."""

    def __init__(self, *, is_client: bool) -> None:
        self.streams: dict[int, Incoming] = {}
        self.going_away = False
        self._buffer, self._skip = b"", 0 if is_client else len(PREFACE)
        self._encoder, self._decoder = Encoder(), Decoder(max_header_list_size=1 << 24)
        self._encoder.header_table_size = 0  # what one case says must not show in another
        self._block, self._flags = b"", set[str]()
        self._next = 1
        settings = {SettingsFrame.INITIAL_WINDOW_SIZE: _WINDOW, SettingsFrame.ENABLE_PUSH: 0}
        if not is_client:
            del settings[SettingsFrame.ENABLE_PUSH]
        opening = SettingsFrame(settings=settings).serialize()
        opening += WindowUpdateFrame(0, window_increment=_WINDOW - 65535).serialize()
        self.out = PREFACE + opening if is_client else opening

    def open(self) -> int:
        """The id of a new stream."""
        stream, self._next = self._next, self._next + 2
        self.streams[stream] = Incoming()
        return stream

    def send_headers(self, stream: int, headers: Sequence[Sequence[str]], *, end: bool) -> None:
        """Send a header list, in as many frames as it takes."""
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        block = self._encoder.encode(pairs, huffman=False)  # which takes hpack seconds for a long value
        pieces = [block[place : place + _FRAME] for place in range(0, len(block), _FRAME)] or [b""]
        for number, piece in enumerate(pieces):
            frame = ContinuationFrame(stream, piece) if number else HeadersFrame(stream, piece)
            if end and not number:
                frame.flags.add("END_STREAM")
            if number == len(pieces) - 1:
                frame.flags.add("END_HEADERS")
            self.out += frame.serialize()

    def send_data(self, stream: int, data: bytes, *, end: bool) -> None:
        """Send a piece of body."""
        self.out += DataFrame(stream, data, flags=["END_STREAM"] if end else []).serialize()

    def reset(self, stream: int) -> None:
        """Give up a stream."""
        self.out += RstStreamFrame(stream, 8).serialize()

    def feed(self, data: bytes) -> None:
        """Take what the peer has sent."""
        self._buffer += data
        if len(self._buffer) < self._skip:
            return
        self._buffer, self._skip = self._buffer[self._skip :], 0
        for frame in self._frames():
            self._take(frame)

    def _frames(self) -> Iterator[Frame]:
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                return
            frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            yield frame

    def _take(self, frame: Frame) -> None:
        stream = self.streams.setdefault(frame.stream_id, Incoming()) if frame.stream_id else Incoming()
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                self.out += SettingsFrame(flags=["ACK"]).serialize()
            case PingFrame() if "ACK" not in frame.flags:
                self.out += PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]).serialize()
            case HeadersFrame() | ContinuationFrame():
                self._take_headers(frame, stream)
            case DataFrame():
                stream.data += frame.data
                stream.ended |= "END_STREAM" in frame.flags
            case RstStreamFrame():
                stream.reset = frame.error_code
            case GoAwayFrame():
                self.going_away = True

    def _take_headers(self, frame: HeadersFrame | ContinuationFrame, stream: Incoming) -> None:
        self._block += frame.data
        self._flags |= set(frame.flags)
        if "END_HEADERS" in frame.flags:
            stream.lists.append([(bytes(n), bytes(v)) for n, v in self._decoder.decode(self._block, raw=True)])
            stream.ended |= "END_STREAM" in self._flags
            self._block, self._flags = b"", set()


def as_request(stream: Incoming) -> bytes:
    """What a gateway to HTTP/1.1 makes of a request that does nothing for its safety; nothing of an unfinished one."""
    if not stream.ended or not stream.lists:
        return b""
    pseudo, lines = _split(stream.lists[0])
    line = b"%s %s HTTP/1.1\r\n" % (pseudo.get(b":method", b""), pseudo.get(b":path", pseudo.get(b":authority", b"")))
    return line + lines + _framed(stream, lines)


def as_answers(stream: Incoming) -> bytes:
    """The same for an answer and the interim ones before it."""
    answers = b""
    for headers in stream.lists:
        pseudo, lines = _split(headers)
        if b":status" in pseudo:
            answers += b"HTTP/1.1 %s -\r\n%s" % (pseudo[b":status"], lines)
            interim = len(pseudo[b":status"]) == 3 and pseudo[b":status"].startswith(b"1")
            answers += b"\r\n" if interim else _framed(stream, lines)
    return answers


def _split(headers: Headers) -> tuple[dict[bytes, bytes], bytes]:
    pseudo = {name: value for name, value in headers if name.startswith(b":")}
    return pseudo, b"".join(b"%s: %s\r\n" % pair for pair in headers if not pair[0].startswith(b":"))


def _framed(stream: Incoming, lines: bytes) -> bytes:
    """The end of the head, the body, the trailers."""
    last = stream.lists[-1]
    if len(stream.lists) > 1 and not any(name.startswith(b":") for name, _ in last):
        chunk = b"%x\r\n%s\r\n" % (len(stream.data), stream.data) if stream.data else b""
        return b"transfer-encoding: chunked\r\n\r\n" + chunk + b"0\r\n" + _split(last)[1] + b"\r\n"
    if b"content-length:" in lines or not stream.data:
        return b"\r\n" + stream.data
    return b"content-length: %d\r\n\r\n%s" % (len(stream.data), stream.data)
