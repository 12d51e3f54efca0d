"""The history is a join-semilattice: order, batching and repetition of events cannot change it."""

import random as randomness

from hypothesis import given
from hypothesis import strategies as st

from state.history import EMPTY, REPEATS, Entry, Event, History, merge, merge_entries
from state.traces import TRACES, add_traces, forget_traces, item_hash, join_traces, kind_hash, trace_columns

LIMIT = 4
DAY = 86_400_000
times = st.integers(1, 12) | st.integers(1, 12).map(lambda day: day * DAY)
entry = st.builds(
    Entry, times, st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.sampled_from(["", "", "buy"])
)
entries = st.lists(entry, max_size=20) | st.lists(
    st.builds(Entry, st.integers(1, 30), st.sampled_from("ab"), st.just(1.0), st.sampled_from(["", "buy"])), max_size=30
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    return merge_entries(EMPTY, draw(entries), LIMIT, forgotten_ms=draw(st.just(0) | times))


def reference(events: list[Entry], limit: int, forgotten_ms: int = 0) -> History:
    """The definition, written the slow way, step by step as in the module's docstring."""
    distinct: dict[tuple[int, str, str], float] = {}
    for event in events:
        if event.time_ms > forgotten_ms:
            key = event.time_ms, event.item, event.kind
            distinct[key] = max(distinct.get(key, 0.0), event.strength)
    live = [Entry(time_ms, item, strength, kind) for (time_ms, item, kind), strength in distinct.items()]
    by_item: dict[str, list[Event]] = {}
    for event in sorted(live, key=lambda e: (e.time_ms, e.strength, e.kind), reverse=True):
        by_item.setdefault(event.item, []).append(Event(event.time_ms, event.strength, event.kind))
    newest = sorted(by_item, key=lambda item: (by_item[item][0].time_ms, item), reverse=True)[:limit]
    horizon = (by_item[newest[-1]][0].time_ms, newest[-1]) if len(newest) == limit else (0, "")
    kept = {}
    for item in newest:
        inside = [event for event in by_item[item] if (event.time_ms, item) >= horizon]
        kept[item] = [
            event
            for place, event in enumerate(inside)
            if place <= REPEATS or event.kind not in [other.kind for other in inside[:place]]
        ]
    older = [event for event in live if (event.time_ms, event.item) < horizon]
    kinds = tuple(kept[item][0].kind for item in newest)
    earlier = tuple(tuple(kept[item][1:]) for item in newest)
    return History(
        tuple(newest),
        tuple(kept[item][0].time_ms for item in newest),
        tuple(kept[item][0].strength for item in newest),
        forgotten_ms,
        kinds if any(kinds) else (),
        earlier if any(earlier) else (),
        add_traces(b"", [(event.time_ms, event.item, event.kind) for event in older], forgotten_ms),
    )


@given(entries, st.just(0) | times)
def test_equals_the_definition(events: list[Entry], forgotten_ms: int) -> None:
    assert merge_entries(EMPTY, events, LIMIT, forgotten_ms) == reference(events, LIMIT, forgotten_ms)


@given(entries, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(events: list[Entry], random: randomness.Random) -> None:
    shuffled = events + random.sample(events, k=len(events) // 2)
    random.shuffle(shuffled)
    assert merge_entries(EMPTY, shuffled, LIMIT) == merge_entries(EMPTY, events, LIMIT)


@given(histories(), histories())
def test_commutative(a: History, b: History) -> None:
    assert merge(a, b, LIMIT) == merge(b, a, LIMIT)


@given(histories(), histories(), histories())
def test_associative(a: History, b: History, c: History) -> None:
    assert merge(merge(a, b, LIMIT), c, LIMIT) == merge(a, merge(b, c, LIMIT), LIMIT)


@given(histories())
def test_idempotent_and_recognised_as_a_duplicate(a: History) -> None:
    assert merge(a, a, LIMIT) is a


@given(entries, st.integers(1, LIMIT))
def test_truncation_commutes_with_merge(events: list[Entry], smaller: int) -> None:
    half = len(events) // 2
    early = merge(merge_entries(EMPTY, events[:half], smaller), merge_entries(EMPTY, events[half:], smaller), smaller)
    late = merge_entries(merge_entries(EMPTY, events, 100), [], smaller)
    assert early.items == late.items
    assert early.times_ms == late.times_ms


def test_an_old_event_of_a_full_history_leaves_a_trace_and_no_more() -> None:
    full = merge_entries(EMPTY, [Entry(t, f"i{t}", 1.0) for t in range(10, 10 + LIMIT)], LIMIT)
    after = merge_entries(full, [Entry(9, "late", 1.0, "buy")], LIMIT)
    assert after._replace(traces=b"") == full
    days, items, kinds = trace_columns(after.traces)
    assert (days.tolist(), items.tolist(), kinds.tolist()) == ([0], [item_hash("late")], [kind_hash("buy")])
    assert merge_entries(after, [Entry(9, "late", 1.0, "buy")], LIMIT) is after


def test_what_was_forgotten_stays_forgotten_when_old_events_are_replayed() -> None:
    events = [Entry(1, "a", 1.0), Entry(5, "b", 1.0), Entry(9, "c", 1.0)]
    forgotten = merge_entries(merge_entries(EMPTY, events, LIMIT), [], LIMIT, forgotten_ms=5)
    assert forgotten.items == ("c",)
    assert merge_entries(forgotten, events, LIMIT) is forgotten


def test_repeats_of_an_item_are_kept_with_their_kinds() -> None:
    events = [Entry(t, "milk", 1.0, "view") for t in range(2, 2 + 3 * REPEATS)] + [Entry(1, "milk", 2.0, "buy")]
    history = merge_entries(EMPTY, events, LIMIT)
    kept = history.events(0)
    assert [event.time_ms for event in kept] == [*range(1 + 3 * REPEATS, 2 * REPEATS, -1), 1]
    assert kept[-1] == Event(1, 2.0, "buy")  # whatever else comes, a purchase is not lost behind views


def test_a_history_without_kinds_and_repeats_carries_neither() -> None:
    history = merge_entries(EMPTY, [Entry(t, f"i{t}", 1.0) for t in range(3)], LIMIT)
    assert (history.kinds, history.earlier, history.traces) == ((), (), b"")


traces = st.lists(st.tuples(st.integers(0, 40).map(lambda d: d * DAY), st.sampled_from("abcdef"), st.just(""))).map(
    lambda met: add_traces(b"", met, 0)
)


@given(traces, traces, traces)
def test_traces_join_in_any_order(a: bytes, b: bytes, c: bytes) -> None:
    assert join_traces(a, b) == join_traces(b, a)
    assert join_traces(join_traces(a, b), c) == join_traces(a, join_traces(b, c))
    assert join_traces(a, a) == a


@given(traces, st.integers(0, 40), st.sampled_from("abcdef"))
def test_one_more_trace_is_joined_like_many(a: bytes, day: int, item: str) -> None:
    assert add_traces(a, [(day * DAY, item, "")], 0) == join_traces(a, add_traces(b"", [(day * DAY, item, "")], 0))


def test_traces_are_bounded_to_the_newest() -> None:
    met = [(day * DAY, f"i{day}", "") for day in range(1, TRACES + 11)]
    traces = add_traces(b"", met, 0)
    days, items, _ = trace_columns(traces)
    assert len(days) == TRACES
    assert days[0] == TRACES + 10
    assert items[0] == item_hash(f"i{TRACES + 10}")
    assert days[-1] == 11
    assert trace_columns(forget_traces(traces, 20 * DAY))[0][-1] == 21
