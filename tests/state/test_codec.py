"""A history survives its bytes, and bytes that are no history are refused."""

import contextlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import CodecError, UnknownVersion, decode, encode, for_reading, read
from state.history import EMPTY, Entry, Event, History, merge_entries

float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
item = st.text(min_size=1, max_size=20)
plain = st.lists(st.builds(Entry, st.integers(1, 2**62), item, float32), max_size=30).map(
    lambda entries: merge_entries(EMPTY, entries, 40)
)
rich = st.lists(
    st.builds(Entry, st.integers(1, 2**62), st.sampled_from("abcdefgh"), float32, st.text(max_size=5)), max_size=40
).map(lambda entries: merge_entries(EMPTY, entries, 5))
history = plain | rich


class FormatOne(msgspec.Struct, array_like=True, frozen=True):
    """What the release that knows only format 1 decodes."""

    forgotten_ms: int
    items: tuple[str, ...]
    times_ms: bytes
    strengths: bytes


@given(history)
def test_a_history_survives_its_bytes(h: History) -> None:
    assert decode(encode(h)) == h
    assert decode(for_reading(encode(h))) == h


@given(history)
def test_its_columns_are_read_without_unpacking_the_numbers(h: History) -> None:
    columns = read(encode(h))
    assert (columns.items, columns.newest_ms, columns.forgotten_ms) == (h.items, h.newest_ms, h.forgotten_ms)
    assert struct.unpack(f"<{len(h.items)}q", columns.times_ms) == h.times_ms
    assert struct.unpack(f"<{len(h.items)}f", columns.strengths) == h.strengths


@given(rich)
def test_a_reader_of_format_1_gets_what_it_knows(h: History) -> None:
    value = for_reading(encode(h))
    assert value[:1] == b"\x01"
    old = msgspec.msgpack.decode(value[1:], type=FormatOne)
    assert (old.items, old.forgotten_ms) == (h.items, h.forgotten_ms)
    assert struct.unpack(f"<{len(h.items)}q", old.times_ms) == h.times_ms


def test_the_layout_of_format_1_is_the_documented_one() -> None:
    value = encode(History(("é",), (258,), (0.5,), 7))
    assert value == (
        b"\x01"  # format version
        b"\x94\x07"  # an array of four; forgotten_ms
        b"\x91\xa2\xc3\xa9"  # items
        b"\xc4\x08" + struct.pack("<q", 258) + b"\xc4\x04" + struct.pack("<f", 0.5)
    )


def test_the_layout_of_format_2_is_the_documented_one() -> None:
    value = encode(History(("a",), (9,), (0.5,), 7, ("buy",), ((Event(4, 2.0),),), b"12345678"))
    assert (
        value
        == (
            b"\x02"  # format version
            b"\x98\x07"  # an array of eight; forgotten_ms
            b"\x91\xa1a"  # items
            b"\xc4\x08" + struct.pack("<q", 9) + b"\xc4\x04" + struct.pack("<f", 0.5) + b"\x92\xa0\xa3buy"  # kinds
            b"\xc4\x02\x01\x00"  # item_kinds
            b"\xc4\x10" + struct.pack("<HHfq", 0, 0, 2.0, 4) + b"\xc4\x0812345678"
        )
    )


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(UnknownVersion, match="version 3"):
        decode(b"\x03whatever")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01",
        b"\x01\x94\x07",
        encode(EMPTY)[:-1],
        b"\x01\x94\x00\x91\xa1a\xc4\x00\xc4\x00",
        b"\x01\x94\x00\x91\xa1a\xc4\x09" + bytes(9) + b"\xc4\x04" + bytes(4),  # a byte of time too many
        encode(History(("a",), (9,), (0.5,), 0, ("buy",))).replace(b"\xc4\x02\x01\x00", b"\xc4\x02\x02\x00"),
        encode(History(("a",), (9,), (0.5,), 0, ("buy",))).replace(b"\xc4\x02\x01\x00", b"\xc4\x01\x01"),
        encode(History(("a",), (9,), (0.5,), 0, (), (), b"1234567")),
        encode(History(("a",), (9,), (0.5,), 0, (), ((Event(1, 1.0),),))).replace(b"\xc4\x10\x00", b"\xc4\x10\x01"),
    ],
)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(CodecError):
        decode(value)


@given(st.binary(max_size=60), st.sampled_from([b"\x01", b"\x02"]))
def test_random_bytes_never_crash(value: bytes, version: bytes) -> None:
    with contextlib.suppress(CodecError):
        decode(version + value)
