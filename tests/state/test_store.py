"""A store keeps its bytes and the changelog offset together, and knows when it must not be used."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from state.store import RECORDS_PER_BATCH, Store, StoreLocked, StoreUnusable

IDENTITY = {"topic": "histories", "partition": "0"}


def test_values_and_offset_survive_a_reopen(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", IDENTITY)
    assert store.next_offset is None
    store.write({b"u1": b"one", b"u2": b"two"}, next_offset=7, now_ms=99)
    store.write({b"u1": None})
    store.close()
    store = Store(tmp_path / "s", IDENTITY)
    assert store.get_many([b"u2", b"u1"]) == [b"two", None]
    assert (store.next_offset, store.written_ms) == (7, 99)
    assert list(store.items()) == [(b"u2", b"two")]
    store.close()


def test_more_records_than_a_batch_holds(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", IDENTITY)
    values = {b"%d" % n: b"v" for n in range(2 * RECORDS_PER_BATCH + 1)}
    store.write(values, next_offset=1)
    assert dict(store.items()) == values
    store.close()


def test_another_topics_store_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "s", IDENTITY).close()
    with pytest.raises(StoreUnusable, match="belongs to"):
        Store(tmp_path / "s", IDENTITY | {"partition": "1"})
    Store(tmp_path / "s", IDENTITY).close()  # the refusal left no lock behind


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", IDENTITY)
    with pytest.raises(StoreLocked):
        Store(tmp_path / "s", IDENTITY)
    store.close()


def test_a_missing_manifest_is_unusable_and_destroy_clears_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", IDENTITY)
    store.write({b"k": b"v"}, next_offset=1)
    store.close()
    for manifest in (tmp_path / "s").glob("MANIFEST-*"):
        manifest.write_bytes(b"")
    with pytest.raises(StoreUnusable, match="rebuild"):
        Store(tmp_path / "s", IDENTITY)
    Store.destroy(tmp_path / "s")
    store = Store(tmp_path / "s", IDENTITY)
    assert store.next_offset is None
    store.close()


def _write_and_die(path: Path) -> None:
    store = Store(path, IDENTITY)
    for n in range(100):
        store.write({b"k%d" % n: b"v" * 100}, next_offset=n + 1)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(tmp_path / "s",))
    child.start()
    child.join()
    store = Store(tmp_path / "s", IDENTITY)
    assert store.next_offset == 100
    assert len(list(store.items())) == 100
    store.close()


def test_values_are_read_from_the_last_to_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path, {"topic": "t"})
    store.write({key: key for key in (b"a", b"b1", b"b2", b"b3", b"c")})
    assert [key for key, _ in store.items_backwards(b"b", b"c")] == [b"b3", b"b2", b"b1"]
    assert [key for key, _ in store.items_backwards(b"b2", b"b9")] == [b"b3", b"b2"]
    assert list(store.items_backwards(b"d", b"e")) == []
    store.close()
