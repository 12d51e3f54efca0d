"""Every interaction is counted once, whatever is read again, restarted or still on its way."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import Store, StoreMemory
from stream.itemlists.counts import Change, ItemCounts
from stream.wire.meaning import EventKind, EventKinds

DAY_MS = 86_400_000
KINDS = EventKinds({"view": EventKind(strength=0.25, hides="never"), "return": EventKind(negative=True)})


def history(items: Mapping[str, tuple[int, str]]) -> bytes:
    entries = [Entry(time_ms, item, 1.0, kind) for item, (time_ms, kind) in items.items()]
    return codec.encode(merge_entries(EMPTY, entries, 200))


def bought(**items: int) -> bytes:
    return history({item: (time_ms, "") for item, time_ms in items.items()})


class View:
    """A partition of the trainer's view, and what counts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "view", {"topic_id": "x"})
        self.offset = 0
        self.counts = self.counting()

    def counting(self) -> ItemCounts:
        identity, memory = {"topic_id": "x"}, StoreMemory()
        return ItemCounts(
            self.folder / "counts", identity, memory, 10**6 * DAY_MS, KINDS, [0], lambda number: self.store
        )

    def put(self, user: str, value: bytes | None) -> None:
        key = b"h" + user.encode()
        (before,) = self.store.get_many([key])
        self.counts.changed(0, [Change(self.offset, key, before, value)])
        self.store.write({key: value})
        self.offset += 1

    def restart(self) -> None:
        self.counts.close()
        self.counts = self.counting()

    def counted(self) -> dict[str, float]:
        while not self.counts.complete:
            self.counts.turn(0.01)
        self.counts.turn(0.0)
        top = self.counts.popularity.top((), 100)
        return {item: round(weight, 2) for item, weight in top}

    def close(self) -> None:
        self.counts.close()
        self.store.close()


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    view = View(tmp_path)
    yield view
    view.close()


def test_what_a_newer_history_adds_is_counted_by_its_kind(view: View) -> None:
    assert view.counted() == {}
    view.put("ann", history({"tea": (1000, ""), "cups": (1000, "view"), "lamp": (1000, "return")}))
    view.put("bob", bought(tea=1100))
    view.put("ann", history({"tea": (1000, ""), "cups": (2000, "view"), "pot": (3000, "")}))
    assert view.counted() == {"tea": 2.0, "pot": 1.0, "cups": 0.5}
    assert view.counts.newest(2, 0) == [("pot", 3000), ("tea", 1000)]
    assert view.counts.newest(9, 1000) == [("pot", 3000)]


def test_an_event_of_weight_zero_is_no_meeting(view: View) -> None:
    view.put("ann", codec.encode(merge_entries(EMPTY, [Entry(1000, "tea", 0.0), Entry(2000, "cups", 1.0)], 200)))
    assert view.counted() == {"cups": 1.0}
    assert view.counts.newest(9, 0) == [("cups", 2000)]


def test_stored_histories_are_counted_once_while_others_come(view: View) -> None:
    view.store.write({b"c": b"x", b"o": b"y"} | {b"hu%03d" % n: bought(tea=1000 + n) for n in range(250)})
    view.counts.turn(0.0)
    assert not view.counts.complete
    view.put("u000", bought(tea=1000, cups=2000))
    view.put("u240", bought(tea=1240, cups=2000))
    view.put("new", bought(tea=5000))
    assert view.counted() == {"tea": 251.0, "cups": 2.0}


def test_a_restart_goes_on_and_a_view_that_is_read_again_counts_nothing_twice(view: View) -> None:
    view.counted()
    view.put("ann", bought(tea=1000))
    view.put("bob", bought(tea=1000, cups=1000))
    view.restart()
    assert view.counts.complete
    assert view.counted() == {"tea": 2.0, "cups": 1.0}
    assert view.counts.first_ms == {"tea": 1000, "cups": 1000}
    view.store.write(dict.fromkeys([b"hann", b"hbob"]))  # lost, and read again from the topic
    view.offset = 0
    view.put("ann", bought(tea=1000))
    view.put("bob", bought(tea=1000, cups=1000))
    view.put("bob", bought(tea=1000, cups=1000, pot=1500))
    assert view.counted() == {"tea": 2.0, "cups": 1.0, "pot": 1.0}


def test_an_end_in_the_middle_of_the_first_count_begins_it_again(view: View) -> None:
    view.store.write({b"hu%03d" % n: bought(tea=1000) for n in range(250)})
    view.restart()
    view.counts.turn(0.0)
    view.restart()
    assert view.counted() == {"tea": 250.0}


def test_a_damaged_store_is_counted_again(view: View) -> None:
    view.put("ann", bought(tea=1000))
    view.counted()
    view.counts.close()
    (view.folder / "counts" / "CURRENT").write_text("nonsense")
    view.counts = view.counting()
    assert view.counted() == {"tea": 1.0}


def test_forgotten_users_and_broken_histories_count_nothing(view: View) -> None:
    view.counted()
    view.put("ann", bought(tea=1000))
    view.put("ann", None)
    view.put("bob", b"\x07")
    assert view.counted() == {"tea": 1.0}
