"""Bodies come out the same, whatever pieces their bytes come in."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.framing import CHUNKED, UNTIL_CLOSED
from jwtproxy.lane.body import Body

pytestmark = pytest.mark.usefixtures("pristine")

CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a", b";a=b"])), max_size=6)
TRAILERS = st.sampled_from([b"", b"X: a\r\n", b"X: a\r\nx-my-jwt: evil\r\n"])
CUTS = st.sets(st.integers(0, 400))


def _take(body: Body, *pieces: bytes) -> tuple[bytes, bytes]:
    """All content, and all that comes after the body."""
    content = rest = b""
    for piece in pieces:
        if body.ended:
            rest += piece
            assert body.take(piece) == (b"", piece)
        else:
            more, rest = body.take(piece)
            content += more
            if body.fault:
                raise body.fault
    return content, rest


def _pieces(data: bytes, cuts: set[int]) -> list[bytes]:
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


def _chunked(chunks: list[tuple[bytes, bytes]], trailers: bytes) -> bytes:
    return b"".join(b"%X%b\r\n%b\r\n" % (len(data), extra, data) for data, extra in chunks) + b"0\r\n%b\r\n" % trailers


# --- lengths


@given(st.binary(max_size=60), st.integers(0, 60), CUTS)
def test_a_body_of_a_length_ends_there(data: bytes, length: int, cuts: set[int]) -> None:
    body = Body(length)
    assert _take(body, *_pieces(data, cuts)) == (data[:length], data[length:])
    assert body.ended is (len(data) >= length)
    if body.ended:
        body.close()
    else:
        with pytest.raises(h11.ProtocolError, match="without sending complete message body"):
            body.close()


def test_no_body_has_ended_from_the_start() -> None:
    body = Body(0)
    assert body.ended
    assert body.take(b"GET") == (b"", b"GET")
    body.close()


def test_what_comes_in_one_piece_is_not_copied() -> None:
    data = b"a" * 1000
    assert Body(1000).take(data)[0] is data
    assert Body(2000).take(data)[0] is data
    assert Body(UNTIL_CLOSED).take(data)[0] is data


# --- until the connection is closed


def test_a_body_without_an_end_ends_with_its_connection() -> None:
    body = Body(UNTIL_CLOSED)
    assert _take(body, b"a", b"", b"bc") == (b"abc", b"")
    assert not body.ended
    body.close()
    assert body.ended


# --- chunks


@given(CHUNKS, TRAILERS, st.binary(max_size=20), CUTS)
def test_chunks_are_the_same_content_however_they_are_cut(
    chunks: list[tuple[bytes, bytes]], trailers: bytes, rest: bytes, cuts: set[int]
) -> None:
    """Trailers are dropped, and nothing of what follows is taken for the body (RFC 9112 §7.1)."""
    body, data = Body(CHUNKED), _chunked(chunks, trailers)
    assert _take(body, *_pieces(data + rest, cuts)) == (b"".join(content for content, _ in chunks), rest)
    assert body.ended
    body.close()


@given(CHUNKS.filter(bool), TRAILERS, st.data())
def test_chunks_that_break_off_are_incomplete(
    chunks: list[tuple[bytes, bytes]], trailers: bytes, data: st.DataObject
) -> None:
    whole = _chunked(chunks, trailers)
    body = Body(CHUNKED)
    body.take(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert not body.ended
    with pytest.raises(h11.ProtocolError, match="incomplete chunked read"):
        body.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1\n\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"100000000000000000000000\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n\x00: a\r\n\r\n",
    ],
    ids=repr,
)
def test_what_is_no_chunk_is_malformed_in_one_piece_or_many(data: bytes) -> None:
    for pieces in ([data], _pieces(data, set(range(len(data))))):
        body = Body(CHUNKED)
        with pytest.raises(h11.ProtocolError):
            _take(body, *pieces)
        assert not body.ended


def test_what_came_before_a_malformed_chunk_is_content() -> None:
    body = Body(CHUNKED)
    assert body.take(b"2\r\nok\r\nx\r\n") == (b"ok", b"")
    assert body.fault


@pytest.mark.parametrize("begin", [b"1;", b"0\r\nX: ", b""], ids=["extension", "trailer", "size"])
def test_a_line_within_chunks_that_has_no_end_is_malformed(begin: bytes) -> None:
    """Else it would fill the memory."""
    body = Body(CHUNKED)
    with pytest.raises(h11.ProtocolError, match="too long"):
        _take(body, begin, *[b"0" * 16_384] * 100)


def test_a_chunk_may_be_long() -> None:
    body, size = Body(CHUNKED), 1 << 20
    content, _ = _take(body, b"%x\r\n" % size, *[b"a" * 16_384] * (size // 16_384), b"\r\n0\r\n\r\n")
    assert len(content) == size
    assert body.ended
