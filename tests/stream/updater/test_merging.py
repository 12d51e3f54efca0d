"""A batch of records becomes changed histories, dead letters and counts, and every record is in exactly one of them."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import decode, encode, for_reading
from state.history import EMPTY, Entry, merge_entries
from stream.updater.merging import Arrival, Outcomes, apply, decode_batch
from stream.wire.dead_letters import dead_letter, original_headers
from stream.wire.records import Forget, Interaction, Limits, NewInteraction, Rejected

NOW = 1_700_000_000_000
LIMITS = Limits()


@dataclass
class Record:
    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = NOW
    topic: str = "interactions"
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def event(user: str = "u", item: str = "i", timestamp: int = NOW - 1000, **more: object) -> Record:
    return Record(user.encode(), json.dumps({"user": user, "item": item, "timestamp": timestamp} | more).encode())


BROKEN = {
    "broken JSON": (Record(b"u", b'{"user": "u", '), "decode"),
    "invalid UTF-8": (Record(b"u", b'{"user": "u", "item": "\xff", "timestamp": 1}'), "decode"),
    "an absurdly deep value": (Record(b"u", b'{"x": ' + b"[" * 60_000), "decode"),
    "an empty value": (Record(b"u", b""), "decode"),
    "a missing field": (Record(b"u", b'{"user": "u", "item": "i"}'), "schema"),
    "a wrong type": (Record(b"u", b'{"user": "u", "item": [7], "timestamp": 1700000000000}'), "schema"),
    "a fractional timestamp": (Record(b"u", b'{"user": "u", "item": "i", "timestamp": 1.5}'), "schema"),
    "an empty item": (event(item=""), "schema"),
    "a negative weight": (event(weight=-1), "schema"),
    "an infinite float32 weight": (event(weight=1e39), "schema"),
    "a null key": (Record(None, event().value), "schema"),
    "another user's key": (Record(b"v", event().value), "schema"),
    "seconds for milliseconds": (event(timestamp=NOW // 1000), "timestamp"),
    "a year ahead": (event(timestamp=NOW + 365 * 86_400_000), "timestamp"),
    "a 5 MB record": (event(padding="x" * 5_000_000), "oversize"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_record_is_rejected_with_its_reason(what: str) -> None:
    record, reason = BROKEN[what]
    arrivals, rejected = decode_batch([record], LIMITS)
    assert not arrivals
    assert [error.reason for _, error in rejected] == [reason]


def test_good_records_around_a_bad_one_are_kept_in_order() -> None:
    arrivals, rejected = decode_batch([event(item="a"), Record(b"u", b"{"), event(item="b")], LIMITS)
    records = [arrival.record for arrival in arrivals[b"u"]]
    assert [record.item for record in records if isinstance(record, Interaction)] == ["a", "b"]
    assert len(rejected) == 1


def test_an_event_slightly_ahead_is_dated_back_to_its_arrival() -> None:
    arrivals, _ = decode_batch([event(timestamp=NOW + 1000)], LIMITS)
    assert arrivals[b"u"][0].record.timestamp == NOW


def test_a_null_value_forgets_the_user() -> None:
    arrivals, _ = decode_batch([Record(b"u", None)], LIMITS)
    assert arrivals[b"u"] == [Arrival(Forget("u", NOW), NOW, Record(b"u", None))]


@given(st.binary(max_size=200), st.none() | st.binary(max_size=20), st.integers(-1, 2**62))
def test_random_bytes_are_accepted_or_rejected_never_raised(value: bytes, key: bytes | None, timestamp: int) -> None:
    arrivals, rejected = decode_batch([Record(key, value, timestamp=timestamp)], LIMITS)
    assert sum(map(len, arrivals.values())) + len(rejected) == 1


def arrival(item: str, time_ms: int) -> Arrival:
    return Arrival(Interaction("u", item, time_ms), NOW, event(item=item))


def test_what_changed_is_told_and_counted() -> None:
    history = merge_entries(EMPTY, [Entry(10, "a", 1.0), Entry(20, "b", 1.0)], limit=2)
    outcomes = Outcomes()
    change = apply(history, [arrival("c", 30), arrival("b", 40), arrival("b", 40), arrival("z", 5)], 2, outcomes)
    assert change is not None
    assert change.history.items == ("b", "c")
    assert change.new == [NewInteraction("c", 30, False), NewInteraction("b", 40, True)]
    assert outcomes == Outcomes(applied=2, duplicate=1, late=1)


def test_what_changed_carries_its_weight() -> None:
    against = Arrival(Interaction("u", "a", 1, weight=0.0), NOW, event(item="a"))
    change = apply(EMPTY, [against], 10, Outcomes())
    assert change is not None and [new.weight for new in change.new] == [0.0]


def test_a_replayed_batch_changes_nothing() -> None:
    events = [arrival("a", 1), arrival("b", 2)]
    change = apply(EMPTY, events, 10, Outcomes())
    assert change is not None
    assert apply(change.history, events, 10, Outcomes()) is None


def test_forgetting_erases_and_outlives_a_replay() -> None:
    forget = Arrival(Forget("u", 100), NOW, Record(b"u", None))
    change = apply(EMPTY, [arrival("a", 1), forget], 10, Outcomes())
    assert change is not None and change.forgotten and change.history.items == ()
    assert change.new == []
    outcomes = Outcomes()
    assert apply(change.history, [arrival("a", 1), forget], 10, outcomes) is None
    assert outcomes == Outcomes(duplicate=1, late=1)


def test_a_dead_letter_is_the_record_and_where_it_came_from() -> None:
    record = Record(b"u", b"{", offset=7, partition=3)
    letter = dead_letter(record, Rejected("decode", "no"), "updater", value_bytes=100)
    assert (letter["key"], letter["value"]) == (b"u", b"{")
    headers = dict(letter["headers"])
    assert headers == {
        "reason": b"decode",
        "detail": b"no",
        "topic": b"interactions",
        "partition": b"3",
        "offset": b"7",
        "timestamp": b"%d" % NOW,
        "by": b"updater",
    }


def test_a_dead_letter_too_large_for_its_topic_is_cut_and_says_so() -> None:
    letter = dead_letter(Record(b"u", b"x" * 11), Rejected("oversize", "no"), "updater", value_bytes=10)
    assert letter["value"] == b"x" * 10
    assert dict(letter["headers"])["cut-from"] == b"11"


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 30), st.booleans()), max_size=40),
    st.integers(1, 4),
)
def test_a_refresh_is_never_older_by_its_times_than_one_before_it(
    events: list[tuple[str, int, bool]], limit: int
) -> None:
    """So whoever keeps a list's (forgotten, newest) times can tell the refresh of a worker that lost its partitions."""
    history, times = EMPTY, [(0, 0)]
    for item, time_ms, forget in events:
        record = Forget("u", time_ms) if forget else Interaction("u", item, time_ms)
        change = apply(history, [Arrival(record, NOW, Record(b"u", b""))], limit, Outcomes())
        if change is not None:
            history = decode(for_reading(encode(change.history)))
            times.append((history.forgotten_ms, history.newest_ms))
    assert times == sorted(times)


def test_the_headers_of_the_record_stay_beside_those_of_the_letter() -> None:
    headers = (("traceparent", b"00-1"), ("reason", b"mine"), ("original-reason", b"older"), ("traceparent", b"00-2"))
    record = Record(b"u", b"{", headers=headers)
    letter = dead_letter(record, Rejected("decode", "no"), "updater", value_bytes=100)
    assert dict(letter["headers"])["reason"] == b"decode"  # as readers of the first release take it
    assert original_headers(letter["headers"]) == list(headers)
