"""h2 as we need it: what is wrong with one stream does not end the connection, and heads are judged by conduct alone.

h2 calls many faults connection errors that RFC 9113 calls stream errors; others would die with them.
"""

import time
from dataclasses import dataclass
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.stream
import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection, SendH2Data

from ..conduct.fair import Budget
from ..conduct.fields import Fields, normalise
from ..conduct.malformed import MalformedError
from . import limits
from .limits import Limits

STREAM_WINDOW, CONNECTION_WINDOW = 256 * 1024, 1024 * 1024
"""Bytes of messages that a peer may send before they are taken."""

_PIECE = 16 * 1024
"""Bytes of a frame that every peer takes (RFC 9113 §4.2)."""

_LARGEST = 4
"""Times what a head may be that are decoded before it is refused; one that is larger ends the connection."""


_UPDATES_FOR_DATA = 10
"""How many it may send for each frame of DATA that it gets."""

_PREFACE = 24
"""Bytes that a client begins with (RFC 9113 §3.4)."""
_FRAME_HEAD, _TYPE_AT = 9, 3
_OF_HEADS = (HeadersFrame.type, ContinuationFrame.type)

_LAST = 2**31 - 1
"""The stream after which there can be none."""


class _CompressionError(h2.exceptions.ProtocolError):
    error_code = h2.errors.ErrorCodes.COMPRESSION_ERROR


class _Decoder(hpack.Decoder):
    """hpack's, whose errors h2 takes for any other (RFC 9113 §4.3)."""

    def decode(self, data: bytes, raw: bool = False) -> Any:
        """The fields of a block."""
        try:
            return super().decode(data, raw)
        except hpack.OversizedHeaderListError as error:
            raise h2.exceptions.DenialOfServiceError(str(error)) from error
        except hpack.HPACKError as error:
            raise _CompressionError(str(error)) from error


class _Encoder(hpack.Encoder):
    """hpack's without Huffman's code: its own takes seconds for a value of 200 KB, in which all others wait."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """A block of these fields."""
        return super().encode(headers, huffman=False)


@dataclass
class Leaving(h2.events.Event):
    """The peer opens, or takes, no more streams. Not h2's event, at which mitmproxy drops what waits to be sent."""

    error_code: int
    last_stream_id: int


class Connection(BufferedH2Connection):
    """h2's, with mitmproxy's buffers."""

    def __init__(self, config: Any, allowed: Limits = limits.DEFAULT) -> None:
        config.validate_inbound_headers = False
        super().__init__(config)
        self.encoder = _Encoder()
        self.decoder = _Decoder()
        self.decoder.max_allowed_table_size = self.local_settings.header_table_size
        self.decoder.max_header_list_size = _LARGEST * allowed.max_head

        self.local_settings.initial_window_size = STREAM_WINDOW
        self.local_settings.acknowledge()  # as mitmproxy has it
        self._owed: dict[int, int] = {}
        """Bytes by stream whose sender is to wait before it sends more."""
        self.idle_frames = Budget(allowed.max_idle_frames, allowed.max_idle_frames / 10)

    def initiate_connection(self) -> None:
        """Begin. Windows bound what of a message waits here, which mitmproxy lets be 2 GiB."""
        h2.connection.H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def close_connection(self, *args: Any, **options: Any) -> None:
        """Say that this is the end, unless that has been said with another reason."""
        if self.state_machine.state is not h2.connection.ConnectionState.CLOSED:
            super().close_connection(*args, **options)

    @property
    def holds(self) -> bool:
        """Whether the peer may have to wait before it sends more of a message."""
        return any(map(self._is_open, self._owed))

    def hold(self, stream: int, *, held: bool) -> None:
        """Let the peer send no more on a stream than it may now, or as much again as it has sent since."""
        self._owed = {one: owed for one, owed in self._owed.items() if self._is_open(one)}
        if held and self._is_open(stream):
            self._owed.setdefault(stream, 0)
        elif owed := self._owed.pop(stream, 0):
            self._prepare_for_sending(self.streams[stream].acknowledge_received_data(owed))

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Let the peer send as much again; of a stream that is held, on others: they are not to wait for it.

        Were the connection's window kept closed while much waits in all, a few uploads that nobody takes would stop all
        others for as long: with 1 MiB, six did.
        """
        if stream_id not in self._owed or not self._is_open(stream_id):
            super().acknowledge_received_data(acknowledged_size, stream_id)
            return
        self._owed[stream_id] += acknowledged_size
        if increment := self._inbound_flow_control_window_manager.process_bytes(acknowledged_size):
            self._prepare_for_sending([WindowUpdateFrame(0, window_increment=increment)])

    def send_data(self, stream_id: int, data: Any, end_stream: bool = False, pad_length: None = None) -> None:
        """Send, or keep until there is room. Of what is kept small pieces become one: each would cost by itself."""
        waiting = self.stream_buffers.get(stream_id)
        if waiting and not waiting[-1].end_stream and len(waiting[-1].data) + len(data) <= _PIECE:
            waiting[-1] = SendH2Data(waiting[-1].data + data, end_stream)
        else:
            super().send_data(stream_id, data, end_stream, pad_length)

    def forget(self, stream: int) -> None:
        """Keep nothing of a stream that is over: mitmproxy would keep trailers that had to wait for its body."""
        self.stream_buffers.pop(stream, None)
        self.stream_trailers.pop(stream, None)
        self._owed.pop(stream, None)

    def _is_open(self, stream: int) -> bool:
        """Whether there is such a stream, on which more may come."""
        found = self.streams.get(stream)
        return found is not None and found.open

    def _receive_frame(self, frame: Frame) -> list[h2.events.Event]:
        """Take a frame. Who sends too many that bring nothing is told to calm down (RFC 9113 §10.5)."""
        if _brings_nothing(frame) and not self.idle_frames.spend(time.monotonic()):
            limits.reached("jwt_max_idle_frames")
            raise h2.exceptions.DenialOfServiceError("too many frames that bring nothing")
        return super()._receive_frame(frame)

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        # A peer opens windows for what it gets, as often as it likes.
        if data := [frame for frame in frames if isinstance(frame, DataFrame)]:
            self.idle_frames.refund(_UPDATES_FOR_DATA * len(data))
        super()._prepare_for_sending(frames)

    secret_fields = frozenset[bytes]()
    """The names of fields that no one on the way may keep in a table, normalised (RFC 7541 §7.1.3)."""

    def send_headers(self, stream_id: int, headers: Any, *args: Any, **options: Any) -> None:
        """Send a head."""
        if secret := self.secret_fields:
            sizes = set(map(len, secret))
            headers = [
                hpack.NeverIndexedHeaderTuple(name, value)
                if len(name) in sizes and normalise(name) in secret
                else (name, value)
                for name, value in headers
            ]
        super().send_headers(stream_id, headers, *args, **options)

    def _begin_new_stream(self, stream_id: int, allowed_ids: h2.connection.AllowedStreamIDs) -> h2.stream.H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = lambda headers: None  # type: ignore[method-assign] # see Lengths
        return stream

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        try:
            return super()._receive_headers_frame(frame)
        except h2.exceptions.TooManyStreamsError:
            stream = frame.stream_id
            if stream % 2 == 0 or stream <= self.highest_inbound_stream_id:
                raise
        self.decoder.decode(frame.data, raw=True)  # lest later blocks refer to what it would put into the table
        self.highest_inbound_stream_id = stream
        self._closed_streams[stream] = h2.stream.StreamClosedBy.SEND_RST_STREAM
        refusal = RstStreamFrame(stream)
        refusal.error_code = h2.errors.ErrorCodes.REFUSED_STREAM  # RFC 9113 §5.1.2
        return [refusal], []

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        """What is under way goes on (RFC 9113 §6.8), which h2 would end."""
        polite = frame.error_code == h2.errors.ErrorCodes.NO_ERROR
        if self.config.client_side or polite:
            return [], [Leaving(int(frame.error_code), int(frame.last_stream_id))]
        return super()._receive_goaway_frame(frame)

    @property
    def begun(self) -> int | None:
        """The stream whose head has begun and is not complete, 0 if that cannot be told yet; None if there is none."""
        buffer = self.incoming_buffer
        if buffer._headers_buffer:
            return int(buffer._headers_buffer[0].stream_id)
        start = buffer._data[:_FRAME_HEAD]
        if not start:
            return 0 if 0 < buffer._preamble_len < _PREFACE else None
        if len(start) > _TYPE_AT and start[_TYPE_AT] not in _OF_HEADS:
            return None
        return int.from_bytes(start[-4:]) & _LAST if len(start) == _FRAME_HEAD else 0

    def refuse(self, stream: int, fields: Fields, content: bytes) -> bytes:
        """An answer to a head that has only begun, of which h2 knows nothing."""
        head = HeadersFrame(stream, self.encoder.encode(fields), flags=["END_HEADERS"])
        body = DataFrame(stream, content, flags=["END_STREAM"])
        return head.serialize() + body.serialize()

    def go_away(self) -> None:
        """Tell the peer to open no more streams, and go on with those there are."""
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id=_LAST)])


def _brings_nothing(frame: Frame) -> bool:
    """Whether a frame is none of a message's, so that nothing else bounds how many may come."""
    if isinstance(frame, DataFrame):
        return not frame.data and "END_STREAM" not in frame.flags
    return not isinstance(frame, HeadersFrame | ContinuationFrame | GoAwayFrame)


class Lengths:
    """How much of each body is still to come, where Content-Length says so (RFC 9113 §8.1.1)."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}

    def begin(self, stream: int, length: int | None) -> None:
        """Take note of the length of a body that follows."""
        if length is not None:
            self._left[stream] = length

    def check(self, stream: int, size: int, *, ended: bool) -> None:
        """Take note of some more bytes, perhaps the last. Raises MalformedError."""
        if stream in self._left:
            self._left[stream] -= size
            if self._left[stream] < 0 or (ended and self._left[stream]):
                raise MalformedError("Content-Length is not that of the body")

    def end(self, stream: int) -> None:
        """Forget a stream."""
        self._left.pop(stream, None)
