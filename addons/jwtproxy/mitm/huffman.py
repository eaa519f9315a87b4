"""Huffman's code in heads of HTTP/2 (RFC 7541 §5.2), read in C: hpack takes longer for a token than signing one does.

HTTP/3 has the same code (RFC 9204 §4.1.2), and mitmproxy a library for that. It takes paddings that are too long for
right, and no long values: both are left to hpack.
"""

import hpack
import pylsqpack
from hpack.hpack import encode_integer
from hpack.huffman_table import decode_huffman

_LONGEST = 16 * 1024
"""Bytes; from 64 KiB of what comes out, lsqpack refuses them."""
_BEFORE = b"\0\0\x21a"
"""Of a block with one field, named `a`: it is about no table, and the name is not encoded (RFC 9204 §4.5)."""
_ENCODED = 0x80
"""In the first byte of a value's length: it is."""

_decoder = pylsqpack.Decoder(0, 0)


def decode(data: bytes | memoryview) -> bytes:
    """What these bytes stand for. Raises hpack.HPACKDecodingError."""
    if not 0 < len(data) <= _LONGEST or data[-1] == 0xFF:  # the last may be a padding of eight bits
        return decode_huffman(data)
    length = encode_integer(len(data), 7)
    length[0] |= _ENCODED
    try:
        _, fields = _decoder.feed_header(0, b"".join((_BEFORE, length, data)))
    except pylsqpack.DecompressionFailed:
        raise hpack.HPACKDecodingError("Invalid Huffman string") from None
    return fields[0][1]


def agree() -> bool:
    """Whether hpack would read the same."""
    sample = bytes.fromhex("a8eb10649cbf")  # RFC 7541 appendix C.4.2
    return decode(sample) == decode_huffman(sample)
