"""The trainer's view holds what `histories` holds, and knows exactly who has something new to teach."""

import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

from state.codec import UnknownVersion, encode
from state.history import EMPTY, Entry, History, merge_entries
from state.store import Store, StoreConfig, StoreMemory
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.trainer.changed_users import Changed
from stream.trainer.history_view import HistoryView, PartitionView
from stream.wire.topics import TopicPlan, ensure_topics

DAY_MS = 24 * 3600 * 1000
IDENTITY = {"topic_id": "t"}
MEMORY = StoreMemory(StoreConfig(write_buffer_bytes=256 * 1024, cache_bytes=4 * 1024 * 1024))


def history(*entries: tuple[str, int]) -> History:
    return merge_entries(EMPTY, [Entry(time_ms, item, 1.0) for item, time_ms in entries], limit=200)


@contextmanager
def partition(path: Path, fitted_until_ms: int = 0, rebuild_until: int = 0) -> Iterator[PartitionView]:
    store = Store(path, IDENTITY, MEMORY)
    try:
        yield PartitionView(store, fitted_until_ms, rebuild_until)
    finally:
        store.close()


def changed(view: PartitionView) -> dict[bytes, Changed]:
    return dict(view.changed.items())


def put(view: PartitionView, offset: int, user: str, value: History | None) -> None:
    view.apply([(offset, user.encode(), None if value is None else encode(value))], offset + 1, now_ms=offset)


def test_a_user_changes_until_a_round_that_knows_the_last_record_settles(tmp_path: Path) -> None:
    with partition(tmp_path) as view:
        put(view, 0, "ann", history(("a", 10), ("b", 20)))
        put(view, 1, "bob", history(("a", 30)))
        assert changed(view) == {b"ann": Changed(0, 0, 2), b"bob": Changed(1, 0, 1)}
        put(view, 2, "bob", history(("a", 30), ("c", 40)))  # while a round that saw offsets 0 and 1 is fitting
        view.mark_learnt(next_offset=2, fitted_until_ms=30)
        assert changed(view) == {b"bob": Changed(2, 30, 1)}
        put(view, 3, "ann", history(("a", 10), ("b", 20), ("c", 15)))  # late: nothing to hold out, still to be learnt
        assert changed(view)[b"ann"] == Changed(3, 20, 0)
        assert view.new_interactions == 1


def test_changes_survive_a_restart(tmp_path: Path) -> None:
    with partition(tmp_path) as view:
        put(view, 0, "ann", history(("a", 10)))
        put(view, 1, "bob", history(("a", 10)))
        view.mark_learnt(1, fitted_until_ms=10)
    with partition(tmp_path) as view:
        assert changed(view) == {b"bob": Changed(1, 10, 0)}
        assert view.store.next_offset == 2


@pytest.mark.parametrize("gone", [None, EMPTY._replace(forgotten_ms=99)], ids=["tombstone", "empty history"])
def test_a_forgotten_user_is_gone_from_histories_changes_and_samples(tmp_path: Path, gone: History | None) -> None:
    with partition(tmp_path) as view:
        put(view, 0, "ann", history(("a", 10)))
        put(view, 1, "bob", history(("a", 10)))
        put(view, 2, "ann", gone)
        assert changed(view).keys() == {b"bob"}
        assert view.histories([b"ann", b"bob"]).keys() == {b"bob"}
        assert view.sample(9, b"\x00" * 8).keys() == {b"bob"}
        assert view.new_interactions == 1


def test_a_rebuild_under_a_fitted_model_marks_only_what_that_model_cannot_know(tmp_path: Path) -> None:
    with partition(tmp_path, fitted_until_ms=100, rebuild_until=3) as view:
        put(view, 0, "ann", history(("a", 10)))
        put(view, 1, "ann", history(("a", 10), ("b", 90)))
        put(view, 2, "bob", history(("a", 10), ("b", 110)))
        assert changed(view) == {b"bob": Changed(2, 100, 1)}
        put(view, 3, "cem", history(("a", 50)))  # came after the rebuild: a new user, however old the event
        assert changed(view)[b"cem"] == Changed(3, 0, 1)


def test_bytes_that_are_no_history_are_no_user_but_a_newer_format_stops_the_trainer(tmp_path: Path) -> None:
    with partition(tmp_path) as view:
        view.apply([(0, b"ann", b"\x01garbage")], 1, now_ms=0)
        assert not view.changed
        assert view.store.next_offset == 1
        with pytest.raises(UnknownVersion, match="upgrade"):
            view.apply([(1, b"ann", b"\x63")], 2, now_ms=0)


def test_samples_of_every_start_reach_everybody_equally_and_leave_out_whom_they_must(tmp_path: Path) -> None:
    users = [f"user{number}" for number in range(200)]
    with partition(tmp_path) as view:
        for offset, user in enumerate(users):
            put(view, offset, user, history(("a", 10)))
        view.mark_learnt(len(users), fitted_until_ms=10)
        put(view, len(users), "user7", history(("a", 10), ("b", 20)))
        counts = dict.fromkeys(users, 0)
        for step in range(256):
            start = bytes([step]) + b"\x00" * 7
            for found in view.sample(50, start, unchanged=True):
                counts[found.decode()] += 1
        assert counts.pop("user7") == 0
        assert all(counts.values())  # a run starts everywhere, so nobody is out of reach
        assert len(view.sample(500, b"\xff" * 8)) == 200


def test_users_beyond_a_rounds_cap_stay_until_a_round_has_learnt_them(tmp_path: Path) -> None:
    with partition(tmp_path) as view:
        for offset in range(12):
            put(view, offset, f"user{offset:02}", history(("a", 100 + offset)))
        users, left = view.take(8)
        assert sorted(users) == [b"user%02d" % n for n in (0, 1, 6, 7, 8, 9, 10, 11)]  # the newest, and the oldest
        put(view, 12, "user03", history(("a", 103), ("b", 300)))  # meanwhile
        view.mark_learnt(12, fitted_until_ms=111, left=left)
        view.mark_learnt(12, fitted_until_ms=111, left=left)  # as after a restart
        assert changed(view).keys() == {b"user02", b"user03", b"user04", b"user05"}
        assert changed(view)[b"user02"] == Changed(2, 0, 1)
        assert view.sample(99, b"\x00" * 8, unchanged=True).keys() == users.keys()  # no other was learnt
        users, left = view.take(8)
        assert left is None and users.keys() == changed(view).keys()
        view.mark_learnt(13, fitted_until_ms=300)
        assert not view.changed and view.new_interactions == 0


def test_memory_does_not_grow_with_the_users_that_wait_to_be_learnt(tmp_path: Path) -> None:
    with partition(tmp_path) as view:
        value = encode(history(("a", 10)))
        view.apply([(offset, b"user%05d" % offset, value) for offset in range(20_000)], 20_000, now_ms=0)
    tracemalloc.start()
    with partition(tmp_path) as view:
        assert len(view.changed) == 20_000
        held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 200_000  # bytes: ten for each of them would be too much


def test_a_rebuild_knows_who_was_left_by_the_round_of_the_live_model(tmp_path: Path) -> None:
    store = Store(tmp_path, IDENTITY, MEMORY)
    view = PartitionView(store, fitted_until_ms=200, rebuild_until=4, left=(1, 3))
    for offset in range(4):
        put(view, offset, f"user{offset}", history(("a", 100 + offset)))
    assert changed(view).keys() == {b"user1", b"user2"}
    store.close()


def test_a_crash_between_a_marker_and_its_place_in_the_order_loses_nobody(tmp_path: Path) -> None:
    with partition(tmp_path) as view:
        put(view, 0, "ann", history(("a", 10)))
        put(view, 1, "bob", history(("a", 20)))
        # As if a write had been cut: bob's place is missing, and ann's former one is still there.
        view.store.write({b"o" + (1).to_bytes(8, "big") + b"bob": None, b"o" + (7).to_bytes(8, "big") + b"ann": b""})
    with partition(tmp_path) as view:
        assert len(view.changed) == 2
        users, _ = view.take(1)
        assert users.keys() == {b"bob"}
        view.mark_learnt(8, fitted_until_ms=20)
        assert not view.changed and not list(view.store.items(b"o", b"p"))


def test_a_store_of_the_release_before_knows_its_changes_in_order(tmp_path: Path) -> None:
    with partition(tmp_path) as view:
        for offset in range(3):
            put(view, offset, f"user{offset}", history(("a", 10)))
        view.store.write({key: None for key, _ in view.store.items(b"o", b"p")})  # it kept no order
    with partition(tmp_path) as view:
        assert view.take(1)[0].keys() == {b"user2"}


entries = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 99)))
events = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), st.sampled_from("abc"), st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 99)))
        ),
        st.tuples(st.just("settle"), st.integers(0, 20), st.integers(0, 99)),
        st.tuples(st.just("replay"), st.integers(0, 20), st.none()),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    max_size=20,
)


@given(events)
def test_the_running_count_is_the_sum_and_markers_are_what_memory_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list
) -> None:
    path = tmp_path_factory.mktemp("view")
    log: list[tuple[int, bytes, bytes | None]] = []
    view = PartitionView(Store(path, IDENTITY, MEMORY))
    try:
        for kind, first, second in steps:
            if kind == "put":
                log.append((len(log), first.encode(), encode(history(*second))))
                view.apply(log[-1:], len(log), 0)
            elif kind == "settle":
                view.mark_learnt(min(first, len(log)), second)
            elif kind == "replay":  # what follows a crash in the middle of a long write
                view.apply(log[first:], len(log), 0)
            else:
                kept = changed(view)
                view.store.close()
                view = PartitionView(Store(path, IDENTITY, MEMORY))
                assert changed(view) == kept
            assert view.new_interactions == sum(mark.new for mark in changed(view).values())
            final = {user: value for _, user, value in log}
            assert view.histories([b"a", b"b", b"c"]).keys() == {u for u, v in final.items() if v != encode(EMPTY)}
    finally:
        view.store.close()


# -- with a real Kafka -------------------------------------------------------------------------------------------------


def write(kafka: KafkaConnection, plan: TopicPlan, users: Mapping[str, History | None]) -> None:
    producer = KafkaProducer(**kafka.kafka_python())
    for user, value in users.items():
        encoded = None if value is None else encode(value)
        producer.send(plan.histories, encoded, key=user.encode(), partition=len(user) % plan.partitions)
    producer.flush()
    producer.close()


@contextmanager
def following(kafka: KafkaConnection, plan: TopicPlan, folder: Path, fitted_until_ms: int = 0) -> Iterator[HistoryView]:
    """A view that has caught up."""
    ensure_topics(kafka, plan)
    admin = admin_client(kafka)
    view = HistoryView(
        kafka,
        admin,
        plan.histories,
        folder,
        MEMORY,
        tombstone_ms=DAY_MS,
        fitted_until_ms=fitted_until_ms,
        left={},
        clock_ms=lambda: int(time.time() * 1000),
    )
    try:
        catch_up(view)
        yield view
    finally:
        view.close()
        admin.close()


def catch_up(view: HistoryView, users: int | None = None) -> None:
    deadline = time.monotonic() + 20
    while not view.caught_up or (users is not None and len(everybody(view)) != users):
        view.poll(100)
        assert time.monotonic() < deadline


def everybody(view: HistoryView) -> set[bytes]:
    return set(view.sample(1000, b"\x00" * 8))


PEOPLE = {"ann": history(("a", 10)), "bea": history(("b", 20)), "john": history(("a", 10), ("c", 30))}


@pytest.mark.kafka
def test_the_view_restores_only_what_came_since(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    with following(kafka, plan, tmp_path):
        pass
    write(kafka, plan, PEOPLE)
    with following(kafka, plan, tmp_path) as view:
        assert everybody(view) == {b"ann", b"bea", b"john"}
        assert {u.decode(): h for u, (h, _) in view.take_changed(100).users.items()} == PEOPLE
        view.mark_learnt(view.next_offsets(), fitted_until_ms=30)
    write(kafka, plan, {"ann": None, "bea": history(("b", 20), ("d", 40))})
    with following(kafka, plan, tmp_path) as view:
        assert everybody(view) == {b"bea", b"john"}
        assert {u: c.new for u, (_, c) in view.take_changed(100).users.items()} == {b"bea": 1}
        write(kafka, plan, {"zoe": history(("a", 50))})
        catch_up(view, users=3)
        assert view.new_interactions == 2


def destroy(folder: Path) -> None:
    Store.destroy(folder / "0")
    Store.destroy(folder / "1")


def damage(folder: Path) -> None:
    for number in ("0", "1"):
        next((folder / number).glob("MANIFEST-*")).write_bytes(b"")


@pytest.mark.kafka
@pytest.mark.parametrize("harm", [destroy, damage])
def test_a_missing_or_broken_store_is_rebuilt(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    with following(kafka, plan, tmp_path):
        pass
    write(kafka, plan, PEOPLE)
    with following(kafka, plan, tmp_path) as view:
        view.mark_learnt(view.next_offsets(), fitted_until_ms=20)
    harm(tmp_path)
    with following(kafka, plan, tmp_path, fitted_until_ms=20) as view:
        assert everybody(view) == {b"ann", b"bea", b"john"}
        assert {u: c.new for u, (_, c) in view.take_changed(100).users.items()} == {b"john": 1}


@pytest.mark.kafka
def test_a_topic_made_again_is_another_topic(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    with following(kafka, plan, tmp_path):
        pass
    write(kafka, plan, PEOPLE)
    with following(kafka, plan, tmp_path) as view:
        before = view.identity
    admin = admin_client(kafka)
    admin.delete_topics([plan.histories])
    deadline = time.monotonic() + 20
    while plan.histories in admin.list_topics():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    admin.close()
    with following(kafka, plan, tmp_path):
        pass
    write(kafka, plan, {"zoe": history(("a", 50))})
    with following(kafka, plan, tmp_path) as view:
        assert everybody(view) == {b"zoe"}
        assert view.identity != before
