"""Huffman's code is read as hpack reads it, errors and all."""

from itertools import product

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import example, given
from hypothesis import strategies as st

from jwtproxy.mitm import huffman

encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode


def _read(decode: object, data: bytes) -> bytes | None:
    try:
        return decode(data)  # type: ignore[operator,no-any-return]
    except hpack.HPACKDecodingError:
        return None


@given(st.binary(max_size=400))
@example(bytes(range(256)))
def test_what_has_been_encoded_comes_out(value: bytes) -> None:
    assert huffman.decode(encode(value)) == value
    assert huffman.decode(memoryview(encode(value))) == value


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 16 * 1024, 16 * 1024 + 1, 40_000])
def test_whatever_its_length(size: int) -> None:
    value = b"^" * size  # 14 bits each
    assert huffman.decode(encode(value)) == value
    assert huffman.decode(encode(b"8" * size)) == b"8" * size  # 6 bits each


@given(st.binary(max_size=12))
def test_bytes_that_mean_nothing_are_refused_where_hpack_refuses_them(data: bytes) -> None:
    assert _read(huffman.decode, data) == _read(decode_huffman, data)


def test_all_paddings_and_ends_are_read_alike() -> None:
    for first, second in product(range(256), repeat=2):
        data = bytes((first, second))
        assert _read(huffman.decode, data) == _read(decode_huffman, data), data


@pytest.mark.parametrize("more", [b"\xff", b"\xff\xff", b"\xff\xff\xff\xff"])
def test_no_padding_is_longer_than_seven_bits(more: bytes) -> None:
    assert huffman.decode(encode(b"no-cache")) == b"no-cache"
    with pytest.raises(hpack.HPACKDecodingError):
        huffman.decode(encode(b"no-cache") + more)


def test_a_fault_leaves_nothing_behind() -> None:
    with pytest.raises(hpack.HPACKDecodingError):
        huffman.decode(b"\xff\xff\xff\xfc\x00")  # the end of a string, within one
    assert huffman.decode(encode(b"next")) == b"next"


def test_ours_may_take_the_place_of_hpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert huffman.agree()
    monkeypatch.setattr(huffman, "decode_huffman", lambda data: b"something else")
    assert not huffman.agree()
