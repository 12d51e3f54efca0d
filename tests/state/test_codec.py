import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import CodecError, UnknownVersion, decode, encode, read
from state.history import EMPTY, Entry, History, merge_entries

float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
item = st.text(min_size=1, max_size=20)
history = st.lists(st.builds(Entry, st.integers(1, 2**62), item, float32), max_size=30).map(
    lambda entries: merge_entries(EMPTY, entries, 20)
)


@given(history)
def test_a_history_survives_its_bytes(h: History) -> None:
    assert decode(encode(h)) == h


@given(history)
def test_its_columns_are_read_without_unpacking_the_numbers(h: History) -> None:
    columns = read(encode(h))
    assert (columns.items, columns.newest_ms, columns.forgotten_ms) == (h.items, h.newest_ms, h.forgotten_ms)
    assert struct.unpack(f"<{len(h.items)}q", columns.times_ms) == h.times_ms
    assert struct.unpack(f"<{len(h.items)}f", columns.strengths) == h.strengths


def test_the_layout_is_the_documented_one() -> None:
    value = encode(History(("é",), (258,), (0.5,), 7))
    assert value == (
        b"\x01"  # format version
        b"\x94\x07"  # an array of four; forgotten_ms
        b"\x91\xa2\xc3\xa9"  # items
        b"\xc4\x08" + struct.pack("<q", 258) + b"\xc4\x04" + struct.pack("<f", 0.5)
    )


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(UnknownVersion, match="version 2"):
        decode(b"\x02whatever")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01",
        b"\x01\x94\x07",
        encode(EMPTY)[:-1],
        b"\x01\x94\x00\x91\xa1a\xc4\x00\xc4\x00",
        b"\x01\x94\x00\x91\xa1a\xc4\x09" + bytes(9) + b"\xc4\x04" + bytes(4),  # a byte of time too many
    ],
)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(CodecError):
        decode(value)


@given(st.binary(max_size=60))
def test_random_bytes_never_crash(value: bytes) -> None:
    with contextlib.suppress(CodecError):
        decode(b"\x01" + value)
