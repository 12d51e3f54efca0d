"""Records outlive the release that wrote them."""

import msgspec

from stream.wire.records import NewInteraction, Refresh

OF_THE_FIRST_RELEASE = msgspec.msgpack.encode(["event", 5, [["a", 4, False]], b"\x01history"])


def test_a_refresh_of_the_first_release_has_events_of_weight_one() -> None:
    refresh = Refresh.decode(OF_THE_FIRST_RELEASE)
    assert refresh == Refresh("event", 5, (NewInteraction("a", 4, False, 1.0),), b"\x01history")


def test_the_first_release_reads_what_is_written_now() -> None:
    class NewInteraction1(msgspec.Struct, array_like=True):
        item: str
        time_ms: int
        repeat: bool

    class Refresh1(msgspec.Struct, array_like=True):
        reason: str
        arrived_ms: int
        new: tuple[NewInteraction1, ...]
        history: bytes

    written = Refresh("event", 5, (NewInteraction("a", 4, False, 0.0),), b"").encode()
    assert msgspec.msgpack.decode(written, type=Refresh1).new == (NewInteraction1("a", 4, False),)
