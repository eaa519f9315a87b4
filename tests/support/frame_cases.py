"""What RFC 9113 says MUST be done with a client's frames, as a table of cases.

Of what MAY be done about a fault the table names all that we accept:

- An error of the stream is RST_STREAM or an answer 4xx (501 to CONNECT); the connection goes on.
- An error of the connection is GOAWAY and then its end, or just its end (§5.4.1: GOAWAY is a SHOULD).
- `either` is an error of the stream that may be treated as one of the connection (§5.4.1). The malformed requests of §8
  are errors of the stream and no more, as other requests share the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import hpack
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack.hpack import encode_integer

from tests.support.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    block,
    data,
    frame,
    settings,
    window_update,
)

LAST = 1001
"""The stream of the sound request that follows the frames of a case."""

WHOLE = END_HEADERS | END_STREAM
SMALLEST, LARGEST = 1 << 14, (1 << 24) - 1
WINDOW = (1 << 31) - 1
UNKNOWN = 0xFA
PROTOCOL, CLOSED, SIZE = ErrorCodes.PROTOCOL_ERROR, ErrorCodes.STREAM_CLOSED, ErrorCodes.FRAME_SIZE_ERROR
FLOW, COMPRESSION, REFUSED = ErrorCodes.FLOW_CONTROL_ERROR, ErrorCodes.COMPRESSION_ERROR, ErrorCodes.REFUSED_STREAM
CALM = ErrorCodes.ENHANCE_YOUR_CALM
ENABLE_PUSH, CONCURRENT = SettingCodes.ENABLE_PUSH, SettingCodes.MAX_CONCURRENT_STREAMS
INITIAL_WINDOW, FRAME_SIZE = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.MAX_FRAME_SIZE


@dataclass(frozen=True)
class Must:
    """What may follow a case's frames; each None or False is not allowed. Codes are those of RST_STREAM and GOAWAY."""

    stream: tuple[int, ...] | None = None
    connection: tuple[int, ...] | None = None
    goes_on: bool = False


def of_stream(*codes: int) -> Must:
    """An error of the stream, and of nothing else."""
    return Must(stream=codes)


def of_connection(*codes: int) -> Must:
    """An error of the connection."""
    return Must(connection=codes)


def either(*codes: int) -> Must:
    """An error of the stream, which may be treated as one of the connection."""
    return Must(stream=codes, connection=codes)


GOES_ON = Must(goes_on=True)
MALFORMED = of_stream(PROTOCOL)


@dataclass
class Asks:
    """The frames of a case's requests; which of them are sound, and so must be answered, is noted.

    Their paths tell the recorder what to make of them: /<place>/sound, /<place>/cut (a body that must not become whole)
    and /<place>/refused.
    """

    authority: str
    place: str
    settings: dict[int, int]
    stream: int = 1
    sound: set[int] = field(default_factory=set)

    @property
    def path(self) -> str:
        """The path of a request that must not arrive."""
        return f"/{self.place}/refused"

    def fields(self, kind: str, /, *more: tuple[str, str], **pseudo: str | None) -> list[tuple[str, str]]:
        """The fields of a request; `pseudo` changes its pseudo-fields, None removes one."""
        usual = {"method": "GET", "scheme": "https", "authority": self.authority, "path": f"/{self.place}/{kind}"}
        return [*((f":{name}", value) for name, value in (usual | pseudo).items() if value is not None), *more]

    def get(
        self, stream: int = 1, *more: tuple[str, str], flags: int = WHOLE, around: bytes = b"|", **pseudo: str | None
    ) -> bytes:
        """A sound request, without a body unless said otherwise; the bytes to put before and after its field block."""
        self.sound.add(stream)
        before, after = around.split(b"|")
        return frame(HEADERS, before + block(*self.fields("sound", *more, **pseudo)) + after, stream, flags)

    def post(self, stream: int = 1, *more: tuple[str, str]) -> bytes:
        """The head of a sound request, whose body (of `o` only) has to follow."""
        return self.get(stream, *more, method="POST", flags=END_HEADERS)

    def cut(self, *more: tuple[str, str]) -> bytes:
        """The head of a request that must not become whole."""
        return frame(HEADERS, block(*self.fields("cut", *more, method="POST")), 1, END_HEADERS)

    def bad(self, *more: tuple[str, str], stream: int = 1, flags: int = WHOLE, **pseudo: str | None) -> bytes:
        """A request that must not arrive."""
        return frame(HEADERS, block(*self.fields("refused", *more, **pseudo)), stream, flags)

    def bad_post(self, length: str, *pieces: bytes) -> bytes:
        """A request that must not arrive, with this `content-length` and a body in so many frames."""
        head = self.bad(("content-length", length), method="POST", flags=END_HEADERS)
        return head + b"".join(data(1, piece, 0) for piece in pieces[:-1]) + data(1, pieces[-1])

    def bad_trailers(self, *trailers: tuple[str, str], length: str = "2", flags: int = WHOLE) -> bytes:
        """A request that must not arrive, with a body of 2 bytes and trailers."""
        head = self.bad(("content-length", length), method="POST", flags=END_HEADERS)
        return head + data(1, b"oo", 0) + frame(HEADERS, block(*trailers), 1, flags)

    def padded(self, padding: int) -> bytes:
        """A head that says it has so much padding, and has 8 bytes."""
        fields = block(*self.fields("refused"))
        return frame(HEADERS, bytes([padding]) + fields + bytes(8), 1, WHOLE | PADDED)

    def begun(self) -> bytes:
        """A header block whose end is missing."""
        return frame(HEADERS, block(*self.fields("refused")), 1, END_STREAM)

    def continued(self) -> bytes:
        """A sound request in a HEADERS and three CONTINUATION frames, of which one is empty."""
        self.sound.add(1)
        fields = block(*self.fields("sound"))
        head = frame(HEADERS, fields[:1], 1, END_STREAM) + frame(CONTINUATION, fields[1:4], 1)
        return head + frame(CONTINUATION, b"", 1) + frame(CONTINUATION, fields[4:], 1, END_HEADERS)

    def indexed(self) -> bytes:
        """A refused request, then a sound one whose fields are those that the refused one put into the table."""
        self.sound.add(3)
        encoder = hpack.Encoder()
        refused = encoder.encode(self.fields("refused", ("x-kept", "1"), ("X-Upper", "1")))
        sound = encoder.encode(self.fields("sound", ("x-kept", "1")))
        return frame(HEADERS, refused, 1, WHOLE) + frame(HEADERS, sound, 3, WHOLE)

    def large(self, size: int) -> bytes:
        """A refused request with a head of so many bytes, in frames that are not too long."""
        fields = block(*self.fields("refused"), *((f"x-{number}", "\x7e" * 4000) for number in range(size // 4000)))
        pieces = [fields[at : at + SMALLEST] for at in range(0, len(fields), SMALLEST)]
        middle = [frame(CONTINUATION, piece, 1) for piece in pieces[1:-1]]
        last = frame(CONTINUATION, pieces[-1], 1, END_HEADERS)
        return b"".join([frame(HEADERS, pieces[0], 1, END_STREAM), *middle, last])


Step = bytes | int
"""What to send, or a stream whose answer to wait for."""


@dataclass(frozen=True)
class Case:
    """Where the RFC says it, the frames (or frames and waits between them), what must follow.

    All are about the stream of their Asks. opened=False: the preface is among the frames. then: what else must be true.
    """

    section: str
    frames: Callable[[Asks], bytes | list[Step]]
    must: Must
    opened: bool = True
    then: Callable[[Peer], bool] = lambda peer: True

    def steps(self, ask: Asks) -> list[Step]:
        """What to do, one after the other."""
        frames = self.frames(ask)
        return [frames] if isinstance(frames, bytes) else frames


def unfit(payload: bytes) -> Callable[[Asks], bytes]:
    """A request whose field block is this."""
    return lambda ask: frame(HEADERS, payload, 1, WHOLE)


def among(*more: tuple[str, str], **pseudo: str | None) -> Callable[[Asks], bytes]:
    """A request that is refused for these fields."""
    return lambda ask: frame(HEADERS, block(*ask.fields("refused", *more, **pseudo)), ask.stream, WHOLE)


OPENING = {
    "no preface but HTTP/1.1": Case(
        "3.4", lambda ask: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", of_connection(PROTOCOL), opened=False
    ),
    "a preface of other bytes": Case(
        "3.4", lambda ask: PREFACE.replace(b"SM", b"SN") + settings(), of_connection(PROTOCOL), opened=False
    ),
    "a preface without SETTINGS": Case(
        "3.4", lambda ask: PREFACE + frame(PING, bytes(8)), of_connection(PROTOCOL), opened=False
    ),
    "a request before SETTINGS": Case("3.4", lambda ask: PREFACE + ask.bad(), of_connection(PROTOCOL), opened=False),
    "a preface in pieces": Case(
        "3.4", lambda ask: [PREFACE[:1], PREFACE[1:20], PREFACE[20:] + settings()], GOES_ON, opened=False
    ),
}

FRAMES = {
    "DATA longer than the limit": Case(
        "4.2", lambda ask: ask.cut() + data(1, bytes(ask.settings.get(FRAME_SIZE, SMALLEST) + 1)), either(SIZE)
    ),
    "HEADERS longer than the limit": Case(
        "4.2",
        lambda ask: frame(HEADERS, bytes(ask.settings.get(FRAME_SIZE, SMALLEST) + 1), 1, WHOLE),
        of_connection(SIZE),
    ),
    "SETTINGS longer than the limit": Case(
        "4.2",
        lambda ask: frame(SETTINGS, bytes(ask.settings.get(FRAME_SIZE, SMALLEST) // 6 * 6 + 6)),
        of_connection(SIZE),
    ),
    "an unknown frame longer than the limit": Case(
        "4.2", lambda ask: frame(UNKNOWN, bytes(ask.settings.get(FRAME_SIZE, SMALLEST) + 1)), of_connection(SIZE)
    ),
    "DATA of the least limit": Case("4.2", lambda ask: ask.post() + data(1, b"o" * SMALLEST), GOES_ON),
    "an unknown frame": Case("5.5", lambda ask: frame(UNKNOWN, b"what"), GOES_ON),
    "an unknown frame on an idle stream": Case("5.5", lambda ask: frame(UNKNOWN, b"what", 9), GOES_ON),
    "an unknown frame in a request": Case(
        "4.1", lambda ask: ask.post() + frame(UNKNOWN, b"what", 1, 0xFF) + data(1, b"oo"), GOES_ON
    ),
    "an unknown frame in a header block": Case(
        "5.5",
        lambda ask: ask.begun() + frame(UNKNOWN, b"", 1) + frame(CONTINUATION, b"", 1, END_HEADERS),
        of_connection(PROTOCOL),
    ),
    "flags that PING has not": Case(
        "4.1", lambda ask: frame(PING, b"12345678", flags=0xFE), GOES_ON, then=lambda peer: peer.pongs == [b"12345678"]
    ),
    "flags that DATA has not": Case("4.1", lambda ask: ask.post() + data(1, b"oo", END_STREAM | 0xF6), GOES_ON),
    "the reserved bit of a stream": Case("4.1", lambda ask: ask.post() + data(1 | 1 << 31, b"oo"), GOES_ON),
    "ORIGIN from a client": Case("5.5", lambda ask: frame(0xC, b"\0\0"), GOES_ON),
    "ALTSVC from a client": Case("5.5", lambda ask: frame(0xA, b'\0\0h3=":1"'), GOES_ON),
}

COMPRESSED = {
    "an index beyond the table": Case("4.3", unfit(b"\xbe"), of_connection(COMPRESSION)),
    "an index far beyond the table": Case("4.3", unfit(b"\xff\xff\xff\x07"), of_connection(COMPRESSION)),
    "the index 0": Case("4.3", unfit(b"\x80"), of_connection(COMPRESSION)),
    "a name of an index beyond the table": Case("4.3", unfit(b"\x7e\x01v"), of_connection(COMPRESSION)),
    "an integer without its end": Case("4.3", unfit(b"\x82\xff"), of_connection(COMPRESSION)),
    "an integer without any end": Case("4.3", unfit(b"\x82\xff" + b"\xff" * 40), of_connection(COMPRESSION)),
    "a string without its end": Case("4.3", unfit(b"\x82\x00\x01a\x05ab"), of_connection(COMPRESSION)),
    "a name without a value": Case("4.3", unfit(b"\x82\x00\x01a"), of_connection(COMPRESSION)),
    "a Huffman code with the end of string": Case(
        "4.3", unfit(b"\x82\x00\x01a\x84\xff\xff\xff\xff"), of_connection(COMPRESSION)
    ),
    "a Huffman code with long padding": Case("4.3", unfit(b"\x82\x00\x01a\x82\x1f\xff"), of_connection(COMPRESSION)),
    "a Huffman code with padding of zeros": Case("4.3", unfit(b"\x82\x00\x01a\x81\x18"), of_connection(COMPRESSION)),
    "a table larger than allowed": Case(
        "4.3.1",
        lambda ask: frame(
            HEADERS, _table_size(ask.settings.get(1, 4096) + 1) + block(*ask.fields("refused")), 1, WHOLE
        ),
        of_connection(COMPRESSION),
    ),
    "a change of the table after a field": Case(
        "4.3.1",
        lambda ask: frame(HEADERS, block(*ask.fields("refused")) + b"\x20", 1, WHOLE),
        of_connection(COMPRESSION),
    ),
    "a smaller table": Case("4.3.1", lambda ask: ask.get(around=b"\x20|"), GOES_ON),
    "fields that a refused request has put into the table": Case("4.3", Asks.indexed, MALFORMED),
    "a refused block on a closed stream": Case(
        "4.3", lambda ask: [ask.get(), 1, frame(HEADERS, b"\xbe", 1, WHOLE)], of_connection(COMPRESSION, CLOSED)
    ),
}


def _table_size(size: int) -> bytes:
    update = encode_integer(size, 5)
    update[0] |= 0x20
    return bytes(update)


HEADS = {
    "HEADERS on stream 0": Case("6.2", lambda ask: ask.bad(stream=0), of_connection(PROTOCOL)),
    "HEADERS, then PING": Case("6.2", lambda ask: ask.begun() + frame(PING, bytes(8)), of_connection(PROTOCOL)),
    "HEADERS, then HEADERS of another": Case(
        "6.2", lambda ask: ask.begun() + ask.bad(stream=3), of_connection(PROTOCOL)
    ),
    "HEADERS, then HEADERS of the same": Case("6.2", lambda ask: ask.begun() + ask.bad(), of_connection(PROTOCOL)),
    "HEADERS, then DATA": Case("6.2", lambda ask: ask.begun() + data(1, b"oo"), of_connection(PROTOCOL)),
    "HEADERS, then CONTINUATION of another": Case(
        "6.10", lambda ask: ask.begun() + frame(CONTINUATION, b"", 3, END_HEADERS), of_connection(PROTOCOL)
    ),
    "CONTINUATION, then PRIORITY": Case(
        "6.10",
        lambda ask: ask.begun() + frame(CONTINUATION, b"", 1) + frame(PRIORITY, bytes(5), 1),
        of_connection(PROTOCOL),
    ),
    "CONTINUATION without HEADERS": Case(
        "6.10", lambda ask: frame(CONTINUATION, block(*ask.fields("refused")), 1, END_HEADERS), of_connection(PROTOCOL)
    ),
    "CONTINUATION after the end of HEADERS": Case(
        "6.10", lambda ask: ask.cut() + frame(CONTINUATION, b"", 1, END_HEADERS), of_connection(PROTOCOL)
    ),
    "CONTINUATION after the last": Case(
        "6.10",
        lambda ask: ask.begun() + frame(CONTINUATION, b"", 1, END_HEADERS) + frame(CONTINUATION, b"", 1, END_HEADERS),
        of_connection(PROTOCOL),
    ),
    "CONTINUATION after DATA": Case(
        "6.10",
        lambda ask: ask.cut() + data(1, b"oo", 0) + frame(CONTINUATION, b"", 1, END_HEADERS),
        of_connection(PROTOCOL),
    ),
    "CONTINUATION on stream 0": Case(
        "6.10", lambda ask: ask.begun() + frame(CONTINUATION, b"", 0, END_HEADERS), of_connection(PROTOCOL)
    ),
    "a field block cut anywhere": Case("6.10", Asks.continued, GOES_ON),
    "HEADERS with more padding than there is": Case("6.2", lambda ask: ask.padded(250), of_connection(PROTOCOL)),
    "HEADERS that are padding alone": Case(
        "6.2", lambda ask: frame(HEADERS, b"\x08" + bytes(7), 1, WHOLE | PADDED), of_connection(PROTOCOL)
    ),
    "HEADERS with padding": Case(
        "6.2",
        lambda ask: ask.get(around=b"\x08|" + bytes(8), flags=WHOLE | PADDED),
        GOES_ON,
    ),
    "HEADERS with a priority": Case(
        "6.2",
        lambda ask: ask.get(around=bytes(5) + b"|", flags=WHOLE | PRIORITISED),
        GOES_ON,
    ),
    "HEADERS too short for their priority": Case(
        "6.2", lambda ask: frame(HEADERS, bytes(4), 1, WHOLE | PRIORITISED), of_connection(SIZE, PROTOCOL)
    ),
    "a head of 300 KiB": Case("10.5.1", lambda ask: ask.large(300 << 10), of_stream(CALM)),
    "a head of 1.1 MiB": Case("10.5.1", lambda ask: ask.large(1100 << 10), either(CALM, PROTOCOL, COMPRESSION)),
    "CONTINUATION without end": Case(
        "10.5", lambda ask: ask.begun() + frame(CONTINUATION, b"", 1) * 10_000, of_connection(CALM, PROTOCOL)
    ),
}

STREAMS = {
    "an even stream": Case("5.1.1", lambda ask: ask.bad(stream=2), of_connection(PROTOCOL)),
    "a stream lower than the last": Case(
        "5.1.1", lambda ask: ask.get(5) + ask.bad(stream=3), of_connection(PROTOCOL, CLOSED)
    ),
    "DATA on stream 0": Case("6.1", lambda ask: data(0, b"oo"), of_connection(PROTOCOL)),
    "DATA on an idle stream": Case("5.1", lambda ask: data(1, b"oo"), of_connection(PROTOCOL)),
    "RST_STREAM on an idle stream": Case("6.4", lambda ask: frame(RST_STREAM, bytes(4), 1), of_connection(PROTOCOL)),
    "WINDOW_UPDATE on an idle stream": Case("5.1", lambda ask: window_update(1, 1), of_connection(PROTOCOL)),
    "PRIORITY on an idle stream": Case("5.1", lambda ask: frame(PRIORITY, bytes(4) + b"\1", 5), GOES_ON),
    "DATA on a half-closed stream": Case("5.1", lambda ask: ask.get() + data(1, b"oo"), either(CLOSED)),
    "HEADERS on a half-closed stream": Case("5.1", lambda ask: ask.get() + ask.bad(), either(CLOSED)),
    "CONTINUATION on a half-closed stream": Case(
        "6.10", lambda ask: ask.get() + frame(CONTINUATION, b"", 1, END_HEADERS), either(PROTOCOL, CLOSED)
    ),
    "WINDOW_UPDATE on a half-closed stream": Case("5.1", lambda ask: ask.get() + window_update(1, 1), GOES_ON),
    "PRIORITY on a half-closed stream": Case("5.1", lambda ask: ask.get() + frame(PRIORITY, bytes(5), 1), GOES_ON),
    "DATA on a closed stream": Case("5.1", lambda ask: [ask.get(), 1, data(1, b"oo")], either(CLOSED)),
    "HEADERS on a closed stream": Case("5.1", lambda ask: [ask.get(), 1, ask.bad()], either(CLOSED)),
    "WINDOW_UPDATE on a closed stream": Case("5.1", lambda ask: [ask.get(), 1, window_update(1, 1)], GOES_ON),
    "RST_STREAM on a closed stream": Case("5.1", lambda ask: [ask.get(), 1, frame(RST_STREAM, bytes(4), 1)], GOES_ON),
    "PRIORITY on a closed stream": Case("5.1", lambda ask: [ask.get(), 1, frame(PRIORITY, bytes(5), 1)], GOES_ON),
    "DATA after RST_STREAM": Case(
        "5.1", lambda ask: ask.cut() + frame(RST_STREAM, bytes(4), 1) + data(1, b"oo"), either(CLOSED)
    ),
    "HEADERS after RST_STREAM": Case(
        "5.1", lambda ask: ask.cut() + frame(RST_STREAM, bytes(4), 1) + ask.bad(), either(CLOSED)
    ),
    "PRIORITY after RST_STREAM": Case(
        "5.1", lambda ask: ask.cut() + frame(RST_STREAM, bytes(4), 1) + frame(PRIORITY, bytes(5), 1), GOES_ON
    ),
    "DATA with more padding than there is": Case(
        "6.1", lambda ask: ask.cut() + data(1, b"\x03oo", END_STREAM | PADDED), of_connection(PROTOCOL)
    ),
    "DATA with padding of its whole length": Case(
        "6.1", lambda ask: ask.cut() + data(1, b"\x04" + bytes(3), END_STREAM | PADDED), of_connection(PROTOCOL)
    ),
    "DATA without the length of its padding": Case(
        "6.1", lambda ask: ask.cut() + data(1, b"", END_STREAM | PADDED), of_connection(SIZE, PROTOCOL)
    ),
    "DATA with padding": Case(
        "6.1", lambda ask: ask.post() + data(1, b"\x03oo" + bytes(3), END_STREAM | PADDED), GOES_ON
    ),
    "DATA that is padding alone": Case(
        "6.1", lambda ask: ask.post() + data(1, b"\x03" + bytes(3), PADDED) + data(1, b"oo"), GOES_ON
    ),
    "DATA that is empty, and more": Case(
        "6.1", lambda ask: ask.post() + data(1, b"o", 0) + data(1, b"", 0) + data(1, b"o"), GOES_ON
    ),
    "DATA in many small frames": Case("6.1", lambda ask: ask.post() + data(1, b"o", 0) * 50 + data(1), GOES_ON),
}

OTHERS = {
    "PRIORITY on stream 0": Case("6.3", lambda ask: frame(PRIORITY, bytes(5)), of_connection(PROTOCOL)),
    "PRIORITY too short": Case("6.3", lambda ask: ask.cut() + frame(PRIORITY, bytes(4), 1), either(SIZE)),
    "PRIORITY too long": Case("6.3", lambda ask: ask.cut() + frame(PRIORITY, bytes(6), 1), either(SIZE)),
    "a stream that depends on itself": Case(  # an error in RFC 7540 §5.3.1, of which RFC 9113 §5.3.2 wants nothing kept
        "5.3.2",
        lambda ask: frame(PRIORITY, struct.pack(">IB", 1, 16), 1),
        Must(stream=(PROTOCOL,), connection=(PROTOCOL,), goes_on=True),
    ),
    "RST_STREAM on stream 0": Case("6.4", lambda ask: frame(RST_STREAM, bytes(4)), of_connection(PROTOCOL)),
    "RST_STREAM too short": Case("6.4", lambda ask: ask.cut() + frame(RST_STREAM, bytes(3), 1), of_connection(SIZE)),
    "RST_STREAM too long": Case("6.4", lambda ask: ask.cut() + frame(RST_STREAM, bytes(5), 1), of_connection(SIZE)),
    "RST_STREAM with an unknown code": Case("7", lambda ask: ask.cut() + frame(RST_STREAM, b"\xff" * 4, 1), GOES_ON),
    "SETTINGS acknowledged with a payload": Case(
        "6.5", lambda ask: frame(SETTINGS, bytes(6), flags=ACK), of_connection(SIZE)
    ),
    "SETTINGS on a stream": Case("6.5", lambda ask: ask.cut() + frame(SETTINGS, b"", 1), of_connection(PROTOCOL)),
    "SETTINGS of a bad length": Case("6.5", lambda ask: frame(SETTINGS, bytes(5)), of_connection(SIZE)),
    "ENABLE_PUSH of 2": Case("6.5.2", lambda ask: settings((ENABLE_PUSH, 2)), of_connection(PROTOCOL)),
    "ENABLE_PUSH of 1": Case("6.5.2", lambda ask: settings((ENABLE_PUSH, 1)), GOES_ON),
    "INITIAL_WINDOW_SIZE too large": Case(
        "6.5.2", lambda ask: settings((INITIAL_WINDOW, WINDOW + 1)), of_connection(FLOW)
    ),
    "INITIAL_WINDOW_SIZE of the largest": Case("6.5.2", lambda ask: settings((INITIAL_WINDOW, WINDOW)), GOES_ON),
    "MAX_FRAME_SIZE too small": Case(
        "6.5.2", lambda ask: settings((FRAME_SIZE, SMALLEST - 1)), of_connection(PROTOCOL)
    ),
    "MAX_FRAME_SIZE too large": Case("6.5.2", lambda ask: settings((FRAME_SIZE, LARGEST + 1)), of_connection(PROTOCOL)),
    "MAX_FRAME_SIZE of the largest": Case("6.5.2", lambda ask: settings((FRAME_SIZE, LARGEST)), GOES_ON),
    "unknown settings": Case("6.5.2", lambda ask: settings((0xFA, 1), (0, 0), (0xFFFF, WINDOW)), GOES_ON),
    "many settings, all acknowledged": Case(
        "6.5.3", lambda ask: settings((CONCURRENT, 0)) * 5, GOES_ON, then=lambda peer: peer.acks == 6
    ),
    "PUSH_PROMISE from a client": Case(
        "8.4",
        lambda ask: ask.cut() + frame(PUSH_PROMISE, bytes(3) + b"\2" + block(*ask.fields("refused")), 1, END_HEADERS),
        of_connection(PROTOCOL),
    ),
    "PING too short": Case("6.7", lambda ask: frame(PING, bytes(7)), of_connection(SIZE)),
    "PING too long": Case("6.7", lambda ask: frame(PING, bytes(9)), of_connection(SIZE)),
    "PING on a stream": Case("6.7", lambda ask: ask.cut() + frame(PING, bytes(8), 1), of_connection(PROTOCOL)),
    "PING": Case("6.7", lambda ask: frame(PING, b"abcdefgh"), GOES_ON, then=lambda peer: peer.pongs == [b"abcdefgh"]),
    "PING acknowledged": Case(
        "6.7", lambda ask: frame(PING, bytes(8), flags=ACK), GOES_ON, then=lambda peer: not peer.pongs
    ),
    "GOAWAY on a stream": Case("6.8", lambda ask: ask.cut() + frame(GOAWAY, bytes(8), 1), of_connection(PROTOCOL)),
    "GOAWAY too short": Case("6.8", lambda ask: frame(GOAWAY, bytes(7)), of_connection(SIZE)),
    "WINDOW_UPDATE of 0": Case("6.9", lambda ask: ask.cut() + window_update(1, 0), either(PROTOCOL)),
    "WINDOW_UPDATE of 0 on stream 0": Case("6.9", lambda ask: window_update(0, 0), of_connection(PROTOCOL)),
    "WINDOW_UPDATE too short": Case(
        "6.9", lambda ask: ask.cut() + frame(WINDOW_UPDATE, bytes(3), 1), of_connection(SIZE)
    ),
    "WINDOW_UPDATE too long": Case(
        "6.9", lambda ask: ask.cut() + frame(WINDOW_UPDATE, bytes(5), 1), of_connection(SIZE)
    ),
    "WINDOW_UPDATE with the reserved bit": Case("6.9", lambda ask: window_update(0, 1 | 1 << 31), GOES_ON),
    "a window beyond the largest": Case("6.9.1", lambda ask: ask.cut() + window_update(1, WINDOW), either(FLOW)),
    "a window of stream 0 beyond the largest": Case("6.9.1", lambda ask: window_update(0, WINDOW), of_connection(FLOW)),
    "a window made too large by SETTINGS": Case(
        "6.9.2",
        lambda ask: ask.cut() + window_update(1, WINDOW - 0xFFFF) + settings((INITIAL_WINDOW, 0x10000)),
        of_connection(FLOW),
    ),
}

REQUESTS = {
    "a trailer field section that ends nothing": Case(
        "8.1", lambda ask: ask.bad_trailers(("x-a", "b"), flags=END_HEADERS), either(PROTOCOL)
    ),
    "trailers": Case(
        "8.1", lambda ask: ask.post() + data(1, b"oo", 0) + frame(HEADERS, block(("x-a", "b")), 1, WHOLE), GOES_ON
    ),
    "trailers after trailers": Case(
        "8.1",
        lambda ask: ask.post() + data(1, b"oo", 0) + frame(HEADERS, block(("x-a", "b")), 1, WHOLE) + ask.bad(),
        either(CLOSED),
    ),
    "content-length above the body": Case("8.1.1", lambda ask: ask.bad_post("3", b"oo"), MALFORMED),
    "content-length below the body": Case("8.1.1", lambda ask: ask.bad_post("1", b"oo"), MALFORMED),
    "content-length above a body of two frames": Case("8.1.1", lambda ask: ask.bad_post("3", b"o", b"o"), MALFORMED),
    "content-length below a body of two frames": Case("8.1.1", lambda ask: ask.bad_post("1", b"o", b"o"), MALFORMED),
    "content-length above a body with trailers": Case(
        "8.1.1", lambda ask: ask.bad_trailers(("x-a", "b"), length="3"), MALFORMED
    ),
    "content-length above a streamed body with trailers": Case(
        "8.1.1",
        lambda ask: ask.cut(("content-length", "2000000")) + data(1, b"oo", 0) + frame(HEADERS, block(), 1, WHOLE),
        MALFORMED,
    ),
    "content-length above a streamed body": Case(
        "8.1.1", lambda ask: ask.cut(("content-length", "2000000")) + data(1, b"oo"), MALFORMED
    ),
    "content-length below a body with trailers": Case(
        "8.1.1", lambda ask: ask.bad_trailers(("x-a", "b"), length="1"), MALFORMED
    ),
    "a malformed head, then a body": Case(
        "8.1.1", lambda ask: ask.bad(("X-A", "b"), method="POST", flags=END_HEADERS) + data(1, b"oo"), MALFORMED
    ),
    "a malformed head, then a body and trailers": Case(
        "8.1.1", lambda ask: ask.bad_trailers(("x-a", "b"), length="x"), MALFORMED
    ),
    "a malformed head, then an answer, then a body and trailers": Case(
        "8.1.1",
        lambda ask: [
            ask.bad(("X-A", "b"), method="POST", flags=END_HEADERS),
            1,
            data(1, b"oo", 0) + frame(HEADERS, block(("x-a", "b")), 1, WHOLE),
        ],
        MALFORMED,
    ),
    "a malformed head, then RST_STREAM": Case(  # whoever is gone needs no answer
        "8.1.1",
        lambda ask: ask.bad(("X-A", "b"), method="POST", flags=END_HEADERS) + frame(RST_STREAM, bytes(4), 1),
        Must(stream=(PROTOCOL,), goes_on=True),
    ),
    "content-length 0 and a body": Case("8.1.1", lambda ask: ask.bad_post("0", b"oo"), MALFORMED),
    "content-length without a body": Case("8.1.1", among(("content-length", "2"), method="POST"), MALFORMED),
    "content-length without a body in DATA": Case("8.1.1", lambda ask: ask.bad_post("2", b""), MALFORMED),
    "content-length of a GET without a body": Case("8.1.1", among(("content-length", "2")), MALFORMED),
    "content-length with a sign": Case("8.1.1", lambda ask: ask.bad_post("+2", b"oo"), MALFORMED),
    "content-length in a list": Case("8.1.1", lambda ask: ask.bad_post("2, 2", b"oo"), MALFORMED),
    "content-length of two values": Case(
        "8.1.1", among(("content-length", "0"), ("content-length", "2"), method="POST"), MALFORMED
    ),
    "content-length 0 without a body": Case(
        "8.1.1",
        lambda ask: ask.get(1, ("content-length", "0"), method="POST"),
        GOES_ON,
    ),
    "content-length of the body": Case(
        "8.1.1", lambda ask: ask.post(1, ("content-length", "3")) + data(1, b"o", 0) + data(1, b"oo"), GOES_ON
    ),
    "cookies in crumbs": Case("8.2.3", lambda ask: ask.get(1, ("cookie", "a=1"), ("cookie", "b=2")), GOES_ON),
    "Host in place of :authority": Case(
        "8.3.1",
        lambda ask: ask.get(1, ("host", ask.authority), authority=None),
        GOES_ON,
    ),
    "Host beside an equal :authority": Case("8.3.1", lambda ask: ask.get(1, ("host", ask.authority)), GOES_ON),
    "te: trailers": Case("8.2.2", lambda ask: ask.get(1, ("te", "trailers")), GOES_ON),
    "a value of bytes above ASCII": Case("8.2.1", lambda ask: ask.get(1, ("x-a", "\x80\xff")), GOES_ON),
    "an empty value": Case("8.2.1", lambda ask: ask.get(1, ("x-a", "")), GOES_ON),
    "a trailer with an upper-case name": Case("8.2.1", lambda ask: ask.bad_trailers(("X-A", "b")), MALFORMED),
    "a trailer with LF": Case("8.2.1", lambda ask: ask.bad_trailers(("x-a", "b\nx-b: c")), MALFORMED),
    "a connection-specific trailer": Case("8.2.2", lambda ask: ask.bad_trailers(("connection", "close")), MALFORMED),
    "a pseudo-field in trailers": Case("8.1", lambda ask: ask.bad_trailers((":path", "/")), MALFORMED),
    "CONNECT with :path": Case("8.5", lambda ask: ask.bad(method="CONNECT"), MALFORMED),
    "CONNECT": Case("8.5", lambda ask: ask.bad(method="CONNECT", scheme=None, path=None), MALFORMED),
    "CONNECT without :authority": Case(
        "8.5", among(method="CONNECT", scheme=None, path=None, authority=None), MALFORMED
    ),
}

NAMES = ["X-Upper", "x-A", "", "x a", "x\ta", "x\0a", "x\ra", "x\na", "x:a", "x\x7fa", "x\x80a", "x(a"]
VALUES = ["a\0b", "a\rb", "a\nb", "a\r\nx-b: c", "a\x01b", "a\x7fb", " a", "a ", "\ta", "a\t", "\r\n", " "]
CONNECTION_FIELDS = [
    ("connection", "close"),
    ("connection", "x-my-jwt"),
    ("proxy-connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "h2c"),
    ("te", "gzip"),
    ("te", "trailers, gzip"),
    ("te", "chunked"),
    ("content_length", "2"),
    ("transfer_encoding", "chunked"),
]
PSEUDO: dict[str, tuple[list[tuple[str, str]], dict[str, str | None]]] = {
    "no :method": ([], {"method": None}),
    "no :scheme": ([], {"scheme": None}),
    "no :path": ([], {"path": None}),
    "no field at all": ([], dict.fromkeys(["method", "scheme", "authority", "path"])),
    "two of :method": ([(":method", "GET")], {}),
    "two of :scheme": ([(":scheme", "https")], {}),
    "two of :path": ([(":path", "/")], {}),
    "two of :authority": ([(":authority", "x")], {}),
    "an unknown pseudo-field": ([(":what", "x")], {}),
    "an empty pseudo-field": ([(":", "x")], {}),
    "a pseudo-field of answers": ([(":status", "200")], {}),
    ":protocol": ([(":protocol", "websocket")], {}),
    "an upper-case pseudo-field": ([(":Method", "GET")], {"method": None}),
    "a pseudo-field after a regular one": ([("x-a", "b"), (":method", "GET")], {"method": None}),
    "a repeated pseudo-field after a regular one": ([("x-a", "b"), (":path", "/")], {}),
    "an unknown pseudo-field after a regular one": ([("x-a", "b"), (":what", "x")], {}),
}
METHODS = ["", " ", "GE T", "GET\t", "GET /x HTTP/1.1\r\nx: y", "GET\0", "GET\x85", "GE:T", "GET\x7f", "(GET)"]
PATHS = ["", "x", "*", "{}#f", "{} x", "{}\tx", "{}\0", "{}\x0b", "{}\x7f", "{}\r\nx: y", "{} HTTP/1.1\r\nx: y"]
PATHS += ["{}\x80", "https://x{}"]
SCHEMES = ["", "ftp", "https ", "http\0", "https://x/", "https\r\nx: y"]
AUTHORITIES = ["u:p@{}", "u@x", "{} ", "{}\r\nx: y", "{}\0", "{}/x", "{}?", "{}#f", "{},x", "a b", "x/y", "x?y"]
AUTHORITIES += ["x#y", "x\\y", "x%zz", "<x>", '"x"', "x^y", "x\x80"]
AUTHORITIES += ["x:0", "x:65536", "x:-1", "x:1:2", ":1", "[::1", "[x]", "::1"]


def malformed() -> dict[str, Case]:
    """The requests that §8.2 and §8.3 call malformed."""
    cases = {f"the name {name!r}": Case("8.2.1", among((name, "v")), MALFORMED) for name in NAMES}
    cases |= {f"the value {value!r}": Case("8.2.1", among(("x-a", value)), MALFORMED) for value in VALUES}
    cases |= {": ".join(pair): Case("8.2.2", among(pair), MALFORMED) for pair in CONNECTION_FIELDS}
    cases |= {name: Case("8.3", among(*more, **pseudo), MALFORMED) for name, (more, pseudo) in PSEUDO.items()}
    cases |= {f":method {method!r}": Case("8.3.1", among(method=method), MALFORMED) for method in METHODS}
    cases |= {f":path {path!r}": Case("8.3.1", _formatted("path", path), MALFORMED) for path in PATHS}
    cases |= {f":scheme {scheme!r}": Case("8.3.1", among(scheme=scheme), MALFORMED) for scheme in SCHEMES}
    names = {f":authority {name!r}": Case("8.3.1", _formatted("authority", name), MALFORMED) for name in AUTHORITIES}
    return cases | names


def _formatted(name: str, value: str) -> Callable[[Asks], bytes]:
    return lambda ask: among(**{name: value.format(getattr(ask, name))})(ask)


ALONE = OPENING | FRAMES | COMPRESSED | HEADS | STREAMS | OTHERS | REQUESTS
TOGETHER = malformed()
"""Those that may share a connection, as each is on its Asks' stream and leaves the others alone."""

CASES = ALONE | TOGETHER
