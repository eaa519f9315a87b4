"""Bodies, as they come out of the bytes that carry them (RFC 9112 §6 and §7)."""

import h11
from h11._receivebuffer import ReceiveBuffer

from ..conduct.framing import CHUNKED, UNTIL_CLOSED
from ..mitm.http1 import ChunkedBody


class Body:
    """One body."""

    def __init__(self, length: int | None) -> None:
        """`length`: in bytes, as `framing` has it."""
        self.ended = length == 0
        self.fault: h11.ProtocolError | None = None
        """What is wrong with it, after what was taken so far."""
        self._length = self._left = length
        self._chunks = ChunkedBody() if length is CHUNKED else None
        self._buffer = ReceiveBuffer() if self._chunks else None

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of these bytes is content, and what comes after the body; `fault` tells if it is malformed."""
        if self.ended:
            return b"", data
        if self._left == UNTIL_CLOSED:
            return data, b""
        if self._left is None:
            return self._take_chunks(data)
        size = len(data)
        if size < self._left:
            self._left -= size
            return data, b""
        self.ended = True
        return (data, b"") if size == self._left else (data[: self._left], data[self._left :])

    def close(self) -> None:
        """Nothing more comes. Raises `h11.ProtocolError` where more would have had to."""
        if self._left == UNTIL_CLOSED:
            self.ended = True
        elif self._chunks and not self.ended:
            self._chunks.read_eof()
        elif self._length and self._left and not self.ended:
            received, expected = self._length - self._left, self._length
            raise h11.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                f"(received {received} bytes, expected {expected})"
            )

    def _take_chunks(self, data: bytes) -> tuple[bytes, bytes]:
        assert self._chunks
        assert self._buffer is not None
        self._buffer += data
        pieces: list[bytes] = []
        try:
            while event := self._chunks(self._buffer):
                if isinstance(event, h11.EndOfMessage):
                    self.ended = True
                    return b"".join(pieces), bytes(self._buffer)
                pieces.append(bytes(event.data))
        except h11.ProtocolError as error:
            self.fault = error
        return b"".join(pieces), b""
