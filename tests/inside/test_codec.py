"""The channel's codec: round trip, hostile bytes, and RFC 8949's own examples."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.inside import codec
from strongroom.inside.errors import CodecError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(values)
def test_round_trip(value):
    data = codec.encode(value)
    assert codec.decode(data) == value
    assert codec.encode(codec.decode(data)) == data


@given(st.binary(max_size=200))
def test_hostile_bytes(data):
    """A typed error, or a value whose one encoding these bytes are."""
    try:
        value = codec.decode(data)
    except CodecError:
        return
    again = codec.encode(value)
    assert again == data or b"\xfb" in data  # a NaN's bits may differ


# RFC 8949, appendix A.
@pytest.mark.parametrize(
    ("value", "hexadecimal"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1000, "1903e8"),
        (1000000, "1a000f4240"),
        (18446744073709551615, "1bffffffffffffffff"),
        (-18446744073709551616, "3bffffffffffffffff"),
        (-1, "20"),
        (1.1, "fb3ff199999999999a"),
        (False, "f4"),
        (None, "f6"),
        (b"\1\2\3\4", "4401020304"),
        ("IETF", "6449455446"),
        ("水", "63e6b0b4"),
        ([1, [2, 3], [4, 5]], "8301820203820405"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)
def test_vectors_of_the_rfc(value, hexadecimal):
    assert codec.encode(value).hex() == hexadecimal
    assert codec.decode(bytes.fromhex(hexadecimal)) == value


@pytest.mark.parametrize(
    "hexadecimal",
    [
        "", "1817", "190017", "1c", "5f", "9f", "bf", "ff", "c001", "f97e00", "fa7f800000", "f7", "e0", "f820",
        "62ff00", "4401", "9bffffffffffffffff", "9affffffff", "5bffffffffffffffff", "bbffffffffffffffff",
        "a2616201616102", "a2616101616102", "a10102", "0000", "81" * 40 + "00",
    ],
)  # fmt: skip
def test_refused(hexadecimal):
    with pytest.raises(CodecError):
        codec.decode(bytes.fromhex(hexadecimal))


def test_infinity_and_nan_cross():
    assert codec.decode(codec.encode(math.inf)) == math.inf
    assert math.isnan(codec.decode(codec.encode(math.nan)))


@pytest.mark.parametrize("value", [2**64, {1: 2}, object(), {1, 2}, "\ud800", b"".join, 1j])
def test_what_cannot_cross(value):
    with pytest.raises(CodecError):
        codec.encode(value)


def test_deep_nesting_is_refused():
    value: list[object] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(CodecError, match="deep"):
        codec.encode(value)


def reader(data):
    view = bytearray(data)

    def read(size):
        part = bytes(view[: max(1, min(size, 3))])  # short reads
        del view[: len(part)]
        return part

    return read


@given(values)
def test_frames(value):
    read = reader(codec.frame(value) * 2)
    assert codec.read_frame(read) == (True, value)
    assert codec.read_frame(read) == (True, value)
    assert codec.read_frame(read) == (False, None)


@pytest.mark.parametrize(
    "data", [b"\0", b"\1\0\0\0", struct.pack("<I", codec.MAX_FRAME_SIZE + 1), b"\0\0\0\0"]
)
def test_hostile_frames(data):
    with pytest.raises(CodecError):
        codec.read_frame(reader(data))


def test_a_large_value_is_refused_before_it_is_sent():
    with pytest.raises(CodecError, match="in parts"):
        codec.frame(bytes(codec.MAX_FRAME_SIZE))
