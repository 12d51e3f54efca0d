"""The history is a join-semilattice: order, batching and repetition of events cannot change it."""

from hypothesis import given
from hypothesis import strategies as st

from state.history import EMPTY, Entry, History, merge, merge_entries

LIMIT = 4
entries = st.lists(
    st.builds(Entry, st.integers(1, 12), st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    max_size=20,
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    return merge_entries(EMPTY, draw(entries), LIMIT, forgotten_ms=draw(st.integers(0, 8)))


def reference(events: list[Entry], limit: int, forgotten_ms: int = 0) -> History:
    """The definition, written the slow way: latest per item, then the newest `limit`."""
    latest: dict[str, Entry] = {}
    for event in events:
        if event.time_ms > forgotten_ms:
            latest[event.item] = max(latest.get(event.item, event), event)
    newest = sorted(latest.values(), reverse=True)[:limit]
    return History(
        tuple(e.item for e in newest), tuple(e.time_ms for e in newest), tuple(e.strength for e in newest), forgotten_ms
    )


@given(entries, st.integers(0, 12))
def test_equals_the_definition(events: list[Entry], forgotten_ms: int) -> None:
    assert merge_entries(EMPTY, events, LIMIT, forgotten_ms) == reference(events, LIMIT, forgotten_ms)


@given(entries, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(events: list[Entry], random) -> None:
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
    assert early == late


def test_an_old_event_of_a_full_history_changes_nothing() -> None:
    full = merge_entries(EMPTY, [Entry(t, f"i{t}", 1.0) for t in range(10, 10 + LIMIT)], LIMIT)
    assert merge_entries(full, [Entry(9, "late", 1.0)], LIMIT) is full


def test_what_was_forgotten_stays_forgotten_when_old_events_are_replayed() -> None:
    events = [Entry(1, "a", 1.0), Entry(5, "b", 1.0), Entry(9, "c", 1.0)]
    forgotten = merge_entries(merge_entries(EMPTY, events, LIMIT), [], LIMIT, forgotten_ms=5)
    assert forgotten.items == ("c",)
    assert merge_entries(forgotten, events, LIMIT) is forgotten
