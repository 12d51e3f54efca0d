"""The simulated world is seeded, keeps its promises, and is one a recency-aware model can exploit."""

import threading

import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition

from stream.clients.connection import KafkaConnection
from stream.sources.outbox import InteractionSink
from stream.sources.simulate import World, WorldConfig, broken_record, encode_event, simulate
from stream.updater.merging import decode_batch
from stream.wire.records import Interaction, Limits
from stream.wire.topics import TopicPlan, ensure_topics

SMALL = WorldConfig(users=50, items=60, genres=6, launch_events=500, shifts=(800,))


def world(seed: int = 0, config: WorldConfig = SMALL) -> World:
    return World(config, np.random.default_rng(seed))


def test_the_same_seed_gives_the_same_events() -> None:
    first, again, other = world(1), world(1), world(2)
    events = [first.event() for _ in range(200)]
    assert events == [again.event() for _ in range(200)]
    assert events != [other.event() for _ in range(200)]


def test_nobody_meets_an_item_before_its_launch_and_all_launches_come() -> None:
    w = world()
    events = [w.event() for _ in range(1000)]
    assert all(w.launch[event.item] <= event.number for event in events)
    assert (w.launch > 0).sum() == 6 and w.launch.max() < 500


def test_the_truth_is_a_distribution_without_seen_items() -> None:
    w = world()
    for _ in range(300):
        w.event()
    for user in range(w.config.users):
        truth = w.truth(user)
        assert truth.sum() == pytest.approx(1.0) and (truth >= 0).all()
        if not w.seen[user].all():
            assert truth[w.seen[user]].max(initial=0) == 0


def test_fashion_changes_at_the_known_time() -> None:
    w = world()
    for _ in range(800):
        w.event()
    assert (w.fashion == 1).all()
    w.event()
    assert sorted(set(w.fashion)) == [1.0, SMALL.fashion]


def test_knowing_the_user_beats_knowing_what_is_popular() -> None:
    w = world(config=WorldConfig(users=300, items=200))
    counts = np.zeros(200)
    best = popular = 0
    for number in range(6000):
        before_truth, before_seen = None, None
        if number >= 3000:
            state = np.random.default_rng(number)
            user = int(state.integers(300))
            before_truth, before_seen = w.truth(user), w.seen[user].copy()
            item = int(state.choice(200, p=before_truth))
            best += item in np.argsort(-before_truth)[:10]
            popular += item in np.argsort(-np.where(before_seen, -1, counts))[:10]
        counts[w.event().item] += 1
    assert best > 1.8 * popular > 0


def test_events_are_accepted_and_broken_records_are_not() -> None:
    class Record:
        topic, partition, offset, timestamp = "interactions", 0, 0, 1_700_000_000_000

        def __init__(self, key: bytes | None, value: bytes) -> None:
            self.key, self.value = key, value
            self.headers: tuple[tuple[str, bytes], ...] = ()

    rng = np.random.default_rng(0)
    w = world()
    good = [Record(*encode_event(w.event(), 1_700_000_000_000)) for _ in range(100)]
    bad = [Record(*broken_record(rng, 1_700_000_000_000)) for _ in range(100)]
    arrivals, rejected = decode_batch(good + bad, Limits())
    assert sum(map(len, arrivals.values())) == 100
    assert [record for record, _ in rejected] == bad
    assert {error.reason for _, error in rejected} == {"decode", "schema", "timestamp"}


def test_events_follow_their_truth() -> None:
    w = world(config=WorldConfig(users=1, items=40, genres=4, rest=10, launched_late=0, shifts=()))
    expected, happened = np.zeros(40), np.zeros(40)
    variance = np.zeros(40)
    for _ in range(4000):
        truth = w.truth(0)
        expected += truth
        variance += truth * (1 - truth)
        happened[w.event().item] += 1
    assert np.abs((happened - expected) / np.sqrt(variance)).max() < 4.5


def test_an_item_comes_back_only_after_its_rest() -> None:
    w = world(config=WorldConfig(users=1, items=40, genres=4, rest=10, launched_late=0))
    items = [w.event().item for _ in range(500)]
    assert all(item not in items[max(0, i - 10) : i] for i, item in enumerate(items))
    assert len(set(items)) == 40


def test_the_last_items_tell_more_than_popularity() -> None:
    w = world()
    counts, hits, popular = np.zeros(60), 0, 0
    for number in range(6000):
        seen, before = w.seen.copy(), w.last.copy()
        event = w.event()
        if number >= 2000 and before[event.user] >= 0:
            free = np.where(seen[event.user], -1.0, counts)
            popular += event.item in np.argsort(-free)[:5]
            last = before[event.user]
            free = free + 1e6 * (w.genre == w.genre[last]) + 1e9 * (np.arange(60) == w.sequel[last])
            free[seen[event.user]] = -1
            hits += event.item in np.argsort(-free)[:5]
        counts[event.item] += 1
    assert hits > 1.5 * popular


class Wire:
    def __init__(self) -> None:
        self.taken: list[tuple[bytes | None, bytes | None]] = []

    def __call__(self, key: bytes | None, value: bytes | None) -> "Wire":
        self.taken.append((key, value))
        return self

    is_done = True

    def get(self, timeout: float | None = None) -> None: ...


def test_a_clock_of_its_own_makes_a_run_repeatable() -> None:
    def run() -> tuple[list[tuple[bytes | None, bytes | None]], list[Interaction]]:
        wire = Wire()
        events: list[Interaction] = []
        result = simulate(
            world(),
            wire,
            threading.Event(),
            rate=50.0,
            events=2000,
            start_ms=1_700_000_000_000,
            broken=0.1,
            rng=np.random.default_rng(7),
            on_event=events.append,
        )
        assert (result.sent, result.sent + result.broken) == (2000, len(wire.taken))
        assert result.broken == pytest.approx(222, abs=60)
        return wire.taken, events

    assert run() == run()
    times = [event.timestamp for event in run()[1]]
    assert times == sorted(times) and times[-1] - times[0] == pytest.approx(40_000, rel=0.1)


def test_broken_records_do_not_change_what_happens_in_the_world() -> None:
    def events(broken: float) -> list[tuple[str, str]]:
        found: list[Interaction] = []
        simulate(world(), Wire(), threading.Event(), events=300, start_ms=0, broken=broken, on_event=found.append)
        return [(event.user, event.item) for event in found]

    assert events(0.5) == events(0.0)


def test_a_live_run_keeps_its_rate_and_dates_events_to_their_sending() -> None:
    class SteppedClock(threading.Event):
        now = 0.0

        def wait(self, timeout: float | None = None) -> bool:
            self.now += timeout or 0.0
            return self.is_set()

    clock, found = SteppedClock(), []
    result = simulate(
        world(),
        Wire(),
        clock,
        rate=20.0,
        seconds=100.0,
        rng=np.random.default_rng(3),
        clock=lambda: clock.now,
        now_ms=lambda: int(clock.now * 1000),
        on_event=lambda event: found.append((event.timestamp, int(clock.now * 1000))),
    )
    assert result.sent == pytest.approx(2000, abs=150) and result.seconds == pytest.approx(100.0)
    assert all(dated == sent for dated, sent in found)


@pytest.mark.kafka
def test_simulated_events_arrive_in_kafka(kafka: KafkaConnection, plan: TopicPlan) -> None:
    ensure_topics(kafka, plan)
    with InteractionSink(kafka, plan.interactions) as sink:
        result = simulate(world(), sink, threading.Event(), rate=float("inf"), events=500, broken=0.1)
    consumer = KafkaConsumer(**kafka.kafka_python(), auto_offset_reset="earliest")
    partitions = [TopicPartition(plan.interactions, p) for p in range(plan.partitions)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    records: list = []
    while any(consumer.position(tp) < end for tp, end in ends.items()):
        for batch in consumer.poll(timeout_ms=200).values():
            records += batch
    consumer.close()
    arrivals, rejected = decode_batch(records, Limits())
    assert sum(map(len, arrivals.values())) == result.sent == 500
    assert len(rejected) == result.broken > 0
