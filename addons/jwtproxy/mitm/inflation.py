"""Inflate no more of a body than may be held: a thousandth of that, or less, is what a peer has to send."""

import codecs
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy import ctx
from mitmproxy.net import encoding
from mitmproxy.options import Options

from . import limits
from .limits import DEFAULT, limits_of

_PIECE = 64 * 1024
"""Bytes that are inflated at a time, to see how many there are."""

_decode = encoding.decode
# Those of mitmproxy, of whose versions each has its own.
_brotli_module: Any = vars(encoding)["brotli"]
_zstd_module: Any = vars(encoding)["zstd"]


def decode(encoded: Any, coding: str, errors: str = "strict") -> Any:
    """mitmproxy's, for codings of HTTP and of text. Raises ValueError, also where there would be too much."""
    if isinstance(encoded, bytes):
        _check(encoded, coding.lower())
    return _decode(encoded, coding, errors)


def _check(encoded: bytes, coding: str) -> None:
    if coding not in encoding.custom_decode and not _is_of_text(coding):
        raise ValueError(f"unknown coding {coding[:20]!r}")
    options = getattr(ctx, "options", None)
    most = (limits_of(options) if isinstance(options, Options) else DEFAULT).max_body
    if any(_exceeds(pieces(encoded), most) for pieces in _PIECES.get(coding, ())):
        limits.reached("jwt_max_body")
        raise ValueError(f"more than {most} bytes when it is decoded")


def _is_of_text(coding: str) -> bool:
    """Whether Python has a codec for text by this name: others inflate, too."""
    try:
        return bool(codecs.lookup(coding)._is_text_encoding)
    except LookupError:
        return False


def _exceeds(pieces: Iterator[bytes], most: int) -> bool:
    """Whether there is more, as far as it can be inflated at all."""
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > most:
                return True
    except (zlib.error, _brotli_module.error, _zstd_module.ZstdError, EOFError):
        pass  # mitmproxy tells
    return False


def _zlib(wbits: int) -> Callable[[bytes], Iterator[bytes]]:
    def pieces(encoded: bytes) -> Iterator[bytes]:
        inflating = zlib.decompressobj(wbits)
        while encoded and not inflating.eof:
            yield inflating.decompress(encoded, _PIECE)
            encoded = inflating.unconsumed_tail

    return pieces


def _brotli(encoded: bytes) -> Iterator[bytes]:
    inflating = _brotli_module.Decompressor()
    if not hasattr(inflating, "can_accept_more_data"):  # before 1.2 nothing bounds it
        raise ValueError("this version of brotli is too old to be safe; install 1.2")
    while piece := inflating.process(encoded, output_buffer_limit=_PIECE):
        yield piece
        encoded = b""


def _zstandard(encoded: bytes) -> Iterator[bytes]:
    file, zstd = io.BytesIO(encoded), _zstd_module
    if hasattr(zstd, "ZstdFile"):
        reader = zstd.ZstdFile(file)
    else:
        reader = zstd.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    while piece := reader.read(_PIECE):
        yield piece


_DEFLATE = (_zlib(15), _zlib(-15))
_PIECES: dict[str, tuple[Callable[[bytes], Iterator[bytes]], ...]] = {
    "gzip": (_zlib(47),),
    "deflate": _DEFLATE,
    "deflateraw": _DEFLATE,
    "br": (_brotli,),
    "zstd": (_zstandard,),
}
