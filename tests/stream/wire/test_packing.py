"""What a model reads of stored histories, and what it may not list."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.batch import Histories
from model.items import ItemIndex
from model.ranker import Hidden
from state.codec import Columns, encode, read
from state.history import EMPTY, Entry, merge_entries
from stream.wire.hidden import hidden_items
from stream.wire.meaning import ALL_ALIKE, EventKind, EventKinds
from stream.wire.packing import pack, pack_decoded

NOW = 1_700_000_000_000
CATALOGUE = ItemIndex(["a", "b", "c", "d", "e"])  # f is an item that the model does not know
KINDS = EventKinds({"view": EventKind(strength=0.5, hides="never"), "return": EventKind(negative=True)})

entries = st.builds(
    Entry,
    st.integers(NOW - 40, NOW),
    st.sampled_from("abcdef"),
    st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0]),
    st.sampled_from(["", "view", "return"]),
)


def stored(*events: Entry) -> Columns:
    return read(encode(merge_entries(EMPTY, events, 4)))


REPEATED = stored(Entry(NOW - 5, "a", 1.0), Entry(NOW, "a", 0.5))
FULL = stored(*(Entry(NOW - 90_000_000 * n, item, 1.0) for n, item in enumerate("bcdef")))
histories = st.lists(entries, max_size=12).map(lambda events: stored(*events))


def rows(packed: Histories, hidden: Hidden | None) -> list[tuple[list[str], list[float], set[str]]]:
    """By user: the items that the model reads, their strengths, and the known items that it may not list."""
    found = hidden or Hidden.met(packed)
    names = CATALOGUE.ids
    result = []
    for row, (start, end) in enumerate(zip(packed.offsets[:-1], packed.offsets[1:], strict=True)):
        items = [names[column] for column in packed.columns[start:end]]
        unlisted = {names[column] for column in found.columns[found.rows == row] if column >= 0}
        result.append((items, packed.strengths[start:end].tolist(), unlisted))
    return result


@pytest.mark.parametrize("kinds", [ALL_ALIKE, KINDS])
@given(st.lists(histories, min_size=1, max_size=6))
@example([REPEATED, FULL])
def test_a_user_is_read_alike_whoever_is_in_the_batch(kinds: EventKinds, batch: list[Columns]) -> None:
    together = rows(*pack(CATALOGUE, batch, kinds, NOW))
    assert together == [rows(*pack(CATALOGUE, [history], kinds, NOW))[0] for history in batch]


@pytest.mark.parametrize("kinds", [ALL_ALIKE, KINDS])
@given(st.lists(histories, min_size=1, max_size=6))
def test_it_is_what_the_events_mean(kinds: EventKinds, batch: list[Columns]) -> None:
    for history, (items, strengths, unlisted) in zip(batch, rows(*pack(CATALOGUE, batch, kinds, NOW)), strict=True):
        meant = kinds.meaning(history, NOW)
        kept = [
            (item, strength)
            for item, strength in zip(history.items, meant.strengths.tolist(), strict=True)
            if strength > 0 and item in CATALOGUE
        ]
        assert list(zip(items, strengths, strict=True)) == kept
        never = hidden_items(history, kinds, NOW)
        assert unlisted == {item for item in CATALOGUE.ids if item in never}


@given(st.lists(st.lists(entries, max_size=12), min_size=1, max_size=4))
def test_decoded_histories_are_read_like_stored_ones(users: list[list[Entry]]) -> None:
    decoded = [merge_entries(EMPTY, events, 4) for events in users]
    encoded = [stored(*events) for events in users]
    assert rows(*pack_decoded(CATALOGUE, decoded, ALL_ALIKE, NOW)) == rows(*pack(CATALOGUE, encoded, ALL_ALIKE, NOW))


def test_what_left_a_full_history_is_hidden_from_its_user_only() -> None:
    full = read(
        encode(merge_entries(EMPTY, [Entry(NOW - 90_000_000 * n, item, 1.0) for n, item in enumerate("abc")], 2))
    )
    other = read(encode(merge_entries(EMPTY, [Entry(NOW, "d", 1.0)], 2)))
    packed, hidden = pack(CATALOGUE, [other, full], ALL_ALIKE, NOW)
    assert hidden is not None
    assert rows(packed, hidden) == [(["d"], [1.0], {"d"}), (["a", "b"], [1.0, 1.0], {"a", "b", "c"})]
    np.testing.assert_array_equal(packed.offsets, [0, 1, 3])
