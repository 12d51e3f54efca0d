"""Records outlive the release that wrote them."""

import msgspec
import pytest

from stream.wire.records import Announcement, NewInteraction, Refresh, Rejected

CANARY = Announcement("candidate", "v2", "file:///models/v2", "ab", "v1", 1, 2, 3, {"candidate.ndcg_at_20": 0.1}, 0.2)
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


def test_an_announcement_is_read_as_it_was_written() -> None:
    assert Announcement.decode(msgspec.json.encode(CANARY)) == CANARY


def test_a_share_among_the_metrics_is_read_too() -> None:
    """Releases before 0.2 wrote it there."""
    fields = msgspec.to_builtins(CANARY)
    fields["metrics"]["canary_share"] = fields.pop("share")
    assert Announcement.decode(msgspec.json.encode(fields)) == CANARY


@pytest.mark.parametrize("share", [-0.1, 1.5])
@pytest.mark.parametrize("old", [False, True])
def test_a_share_of_users_that_cannot_be_is_refused(share: float, old: bool) -> None:
    fields = msgspec.to_builtins(CANARY)
    if old:
        fields["metrics"]["canary_share"] = share
    else:
        fields["share"] = share
    with pytest.raises(Rejected, match="share"):
        Announcement.decode(msgspec.json.encode(fields))
