"""Records outlive the release that wrote them."""

import msgspec
import pytest

from stream.wire.records import (
    Announcement,
    Interaction,
    Limits,
    NewInteraction,
    Refresh,
    Rejected,
    decode_interaction,
)

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


NOW = 1_795_773_410_121


def event(**fields: object) -> bytes:
    return msgspec.json.encode({"user": "ann", "item": "tea", "timestamp": NOW} | fields)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (b"7", event(user=7), Interaction("7", "tea", NOW)),
        (b"ann", event(item=9_007_199_254_740_993), Interaction("ann", "9007199254740993", NOW)),
        (b"7", event(user=7.0, item=8.0), Interaction("7", "8", NOW)),
        (b"ann", event(weight=None, event=None), Interaction("ann", "tea", NOW)),
        (
            b"ann",
            b'{"user":"ann","item":"tea","timestamp":1795773410121.0,"weight":2}',
            Interaction("ann", "tea", NOW, 2),
        ),
    ],
)
def test_what_can_mean_one_thing_only_is_taken(key: bytes, value: bytes, expected: Interaction) -> None:
    assert decode_interaction(key, value, NOW, Limits()) == expected


@pytest.mark.parametrize(
    ("key", "value", "reason", "hint"),
    [
        (b"ann", event(timestamp=NOW // 1000), "timestamp", "looks like seconds: multiply it by 1,000"),
        (b"ann", event(timestamp=NOW * 1000), "timestamp", "looks like microseconds: divide it by 1,000"),
        (b"ann", event(timestamp=NOW * 1_000_000), "timestamp", "looks like nanoseconds: divide it by 1,000,000"),
        (b"ann", b"\0\0\0\0\x2a" + event(), "decode", r"Schema Registry \(id 42\): send plain JSON"),
        (b'"ann"', event(), "schema", "has the quotes of JSON: send the id itself"),
        (b"\0\0\0\0\x2aann", event(), "schema", "begins like a record of Schema Registry"),
        ((7).to_bytes(8, "big"), event(user=7), "schema", "is a number in binary: send its digits"),
        (b"ann ", event(), "schema", "differ in white space"),
        (b"bob", event(), "schema", "the key 'bob' is not the user 'ann'$"),
        (b"ann", b"{'user': 'ann'}", "decode", "double quotes"),
        (b"ann", event(timestamp=NOW + 0.5), "schema", "Expected `int`, got `float` - at `[$].timestamp`"),
        (b"ann", event(timestamp=None), "schema", "timestamp"),
        (b"ann", event(timestamp=str(NOW)), "schema", "Expected `int`, got `str` - at `[$].timestamp`"),
        (b"true", event(user=True), "schema", "Expected `str`, got `bool` - at `[$].user`"),
        (b"ann", event(item=1.5), "schema", "Expected `str`, got `float` - at `[$].item`"),
    ],
)
def test_what_is_refused_says_what_to_do(key: bytes, value: bytes, reason: str, hint: str) -> None:
    with pytest.raises(Rejected, match=hint) as refusal:
        decode_interaction(key, value, NOW, Limits())
    assert refusal.value.reason == reason
