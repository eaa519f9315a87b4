"""No more is inflated of a body than may be held."""

from __future__ import annotations

import functools
import gzip
import zlib
from collections.abc import Callable, Iterator

import pytest
from mitmproxy.http import Response
from mitmproxy.net import encoding
from mitmproxy.test import taddons

from jwtproxy.mitm import inflation, limits, patches

MOST = 100_000


def _raw(content: bytes) -> bytes:
    return zlib.compress(content, wbits=-15)


CODINGS = pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", _raw),
        ("deflateraw", _raw),
        ("br", functools.partial(encoding.encode, encoding="br")),
        ("zstd", functools.partial(encoding.encode, encoding="zstd")),
    ],
)
Encode = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def bounded(pristine: None) -> Iterator[None]:
    with taddons.context() as context:
        limits.hang(context.options, {**limits.DEFAULT._asdict(), "max_body": MOST})
        yield


@CODINGS
def test_what_may_be_held_is_inflated(coding: str, encode: Encode) -> None:
    for content in (b"hello", bytes(MOST)):
        assert inflation.decode(encode(content), coding) == content


@CODINGS
def test_more_is_not(coding: str, encode: Encode) -> None:
    with pytest.raises(ValueError, match="more than 100000 bytes"):
        inflation.decode(encode(bytes(MOST + 1)), coding)


@CODINGS
def test_what_cannot_be_inflated_is_an_error_as_ever(coding: str, encode: Encode) -> None:
    with pytest.raises(ValueError, match="when decoding"):
        inflation.decode(b"\xff" * 100, coding)


@pytest.mark.parametrize("coding", ["bz2", "zip", "hex", "rot13", "nosuch"])
def test_other_codings_of_python_are_none_of_http(coding: str) -> None:
    with pytest.raises(ValueError, match="unknown coding"):
        inflation.decode(b"41", coding)


@pytest.mark.parametrize("coding", ["identity", "none"])
def test_what_is_not_encoded_stays(coding: str) -> None:
    assert inflation.decode(b"41", coding) == b"41"


def test_text_is_decoded() -> None:
    assert inflation.decode(b"\xc3\xa4", "utf-8") == "ä"
    assert inflation.decode(None, "utf-8") is None


def test_whoever_asks_a_message_for_its_content_asks_this() -> None:
    patches.install()
    response = Response.make(200)
    response.headers["Content-Encoding"] = "gzip"
    response.raw_content = gzip.compress(bytes(MOST + 1))
    assert response.get_content(strict=False) == response.raw_content
    with pytest.raises(ValueError, match="more than"):
        response.get_content()
