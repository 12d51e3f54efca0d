"""Every walk over the users goes round once, from where the one before was, whatever interrupts it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.store import Store
from stream.updater.cursor import RescoringCursor, decode_cursor

USERS = [b"u%d" % n for n in range(10)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("cursor") / "store", {"of": "test"})
    store.write(dict.fromkeys(USERS, b"a history"))
    return store


def walk(store: Store, cursor: RescoringCursor, count: int, pages: int) -> tuple[list[bytes], RescoringCursor]:
    """The users of the next pages, and the cursor behind them."""
    met: list[bytes] = []
    while pages and not cursor.finished:
        page, cursor = cursor.advance(store.page(cursor.after, count), count)
        met += [user for user, _ in page]
        pages -= 1
    return met, cursor


@pytest.mark.parametrize("count", [1, 3, 5, 10, 20])
@pytest.mark.parametrize("start", [b"", b"a", b"u0", b"u4", b"u45", b"u9", b"z"])
def test_a_walk_meets_everybody_once_wherever_it_starts(store: Store, start: bytes, count: int) -> None:
    met, cursor = walk(store, RescoringCursor("v1", after=start).begin("v2"), count, pages=100)
    assert cursor.finished and cursor.version == "v2" and cursor.after == start
    assert sorted(met) == USERS
    turn = sum(user <= start for user in USERS)
    assert met == USERS[turn:] + USERS[:turn]


def test_models_that_go_live_too_often_for_a_whole_walk_reach_everybody_in_turn(store: Store) -> None:
    cursor, met = RescoringCursor(), []
    for version in range(5):
        found, cursor = walk(store, cursor.begin(f"v{version}"), count=2, pages=2)
        met += found
    assert met == (USERS + USERS)[: len(met)] and len(met) >= 16  # and not the first four users five times


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=30))
def test_a_walk_that_is_interrupted_and_continued_from_its_commits_leaves_nobody_out(
    store: Store, steps: list[tuple[int, bool]]
) -> None:
    cursor = committed = RescoringCursor("v0", after=b"u6").begin("v1")
    met: set[bytes] = set()
    for count, crash in [*steps, *[(4, False)] * 20]:
        found, cursor = walk(store, cursor, count, pages=1)
        met |= set(found)
        if crash:
            cursor = committed
        else:
            committed = decode_cursor(cursor.encode())
            assert committed == cursor
    assert cursor.finished and met == set(USERS)


def test_a_key_too_long_for_a_commit_has_its_turn_twice_rather_than_never(tmp_path: Path) -> None:
    users = sorted([b"a", b"z", *(b"u" * 300 + b"%d" % n for n in range(5))])
    store = Store(tmp_path, {"of": "test"})
    store.write(dict.fromkeys(users, b"a history"))
    for start in users:
        for pages in range(8):
            met, cursor = walk(store, RescoringCursor(after=start).begin("v1"), 1, pages)
            resumed = decode_cursor(cursor.encode())
            assert len(cursor.encode()) < 1000
            again, cursor = walk(store, resumed, 1, 100)
            assert cursor.finished and set(met + again) == set(users)
    store.close()


@pytest.mark.parametrize("metadata", ["", "another program's", "{}", '{"other": 1}', "[]", '{"rescoring": 5}'])
def test_a_commit_without_progress_means_that_everybody_waits(metadata: str) -> None:
    assert decode_cursor(metadata) == RescoringCursor(version="")
