"""One RocksDB: bytes by key and, written atomically with them, the offset of a changelog topic that they reach.

    key 0x00 name   metadata: `identity` (what this store belongs to), `next_offset`, `written_ms`
    key 0x01 key    a value

Only its owner opens a store: even a read-only open rewrites RocksDB's configuration file in the folder.
The write-ahead log is on and not synced. A killed process loses nothing. A machine that loses power loses the last
writes, together with the offset that covers them, and the changelog restores them.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import msgspec
import rocksdict

__all__ = ["Store", "StoreConfig", "StoreError", "StoreLocked", "StoreMemory", "StoreUnusable"]

FORMAT = "1"
# rocksdict holds the GIL while it writes a batch: 10,000 records stall the other threads for about 20 ms.
RECORDS_PER_BATCH = 10_000

# What RocksDB says when another process, or this one, has the folder open; "lock" alone is also part of "block".
_HELD = ("lock hold by current process", "While lock file")

_META, _DATA, _END = b"\x00", b"\x01", b"\x02"


class StoreError(RuntimeError):
    """Base class of the errors of a store."""


class StoreLocked(StoreError):
    """Another process, or an iterator of this one, holds the folder: try again, or look for the second owner."""


class StoreUnusable(StoreError):
    """Corrupted, of an unknown format, or belonging to another topic: delete it and rebuild from the changelog."""


@dataclass(frozen=True)
class StoreConfig:
    write_buffer_bytes: int = 16 * 1024 * 1024
    """Memory that collects writes before they go to disk, per store."""
    cache_bytes: int = 64 * 1024 * 1024
    """Memory for reading, shared by all stores of a process; the write buffers count towards it."""
    max_open_files: int = 128
    """Most open files per store. Each keeps about 1 MiB of index and filter in memory."""
    background_jobs: int = 2
    """Threads that flush and compact, per store."""

    def __post_init__(self) -> None:
        for name, least in (("write_buffer_bytes", 64 * 1024), ("cache_bytes", 1024 * 1024), ("max_open_files", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


class StoreMemory:
    """The block cache and memtable budget that the stores of one process share."""

    def __init__(self, config: StoreConfig | None = None) -> None:
        self.config = config or StoreConfig()
        self.cache = rocksdict.Cache(self.config.cache_bytes)
        self.write_buffers = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
            self.config.cache_bytes, False, self.cache
        )

    @cached_property
    def options(self) -> rocksdict.Options:
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self.cache)
        table.set_bloom_filter(10, False)
        # Indexes and filters are kept with the open files, about 1 MiB for each of `max_open_files`. In the cache they
        # would be replaced by blocks of values that are read only once, and reads of a large store would take twice as
        # long.
        table.set_cache_index_and_filter_blocks(False)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(self.write_buffers)
        options.set_write_buffer_size(self.config.write_buffer_bytes)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_max_open_files(self.config.max_open_files)
        options.set_max_background_jobs(self.config.background_jobs)
        options.set_keep_log_file_num(2)
        return options


class Store:
    """A store that its one owner opens for writing.

    `identity` says what the content belongs to (topic id, partition, partition count, ...). A new folder gets this
    identity. Raises `StoreUnusable` for a folder with another identity, and `StoreLocked` when the folder is held.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], memory: StoreMemory | None = None) -> None:
        self.path = path
        self._memory = memory or StoreMemory()
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._db = rocksdict.Rdict(str(path), self._memory.options)
        except Exception as error:  # rocksdict raises bare Exception with RocksDB's message
            if any(words in str(error) for words in _HELD):
                raise StoreLocked(f"{path} is held by another owner: {error}") from error
            raise StoreUnusable(f"{path} does not open: {error}. Delete it to rebuild from the changelog") from error
        try:
            self._claim(dict(identity) | {"format": FORMAT})
            stored = self._read_meta("next_offset")
            self._next_offset = None if stored is None else int(stored)
        except BaseException:
            self.close()
            raise

    def _claim(self, identity: dict[str, str]) -> None:
        stored = self._read_meta("identity")
        if stored is None:
            self._db[_META + b"identity"] = msgspec.json.encode(identity)
            return
        try:
            found = msgspec.json.decode(stored, type=dict[str, str])
        except msgspec.DecodeError as error:
            raise StoreUnusable(f"{self.path}: unreadable identity ({error}). Delete it to rebuild") from error
        if found != identity:
            raise StoreUnusable(f"{self.path} belongs to {found}, not to {identity}. Delete it to rebuild")

    def _read_meta(self, name: str) -> bytes | None:
        try:
            return self._db.get(_META + name.encode())
        except Exception as error:
            raise StoreUnusable(f"{self.path}: {error}. Delete it to rebuild from the changelog") from error

    @property
    def next_offset(self) -> int | None:
        """The first changelog offset that the content does not cover; None for a new store."""
        return self._next_offset

    @property
    def written_ms(self) -> int | None:
        """The last `now_ms` that was given to `write`; None when there was none."""
        stored = self._read_meta("written_ms")
        return None if stored is None else int(stored)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of `keys`, None where there is none. Raises `StoreUnusable` on a bad checksum."""
        try:
            # The list form of get releases the GIL while it reads.
            return self._db.get([_DATA + key for key in keys])
        except Exception as error:
            raise StoreUnusable(f"{self.path}: {error}. Delete it to rebuild from the changelog") from error

    def write(
        self, values: Mapping[bytes, bytes | None], next_offset: int | None = None, now_ms: int | None = None
    ) -> None:
        """Store values (None deletes) and, in the last batch with them, the changelog offset that they reach.

        Values may be newer than the offset, but never older: replaying the changelog from an older offset ends in the
        same content, skipping part of it would not. Raises `StoreError`.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        for count, (key, value) in enumerate(values.items(), 1):
            if value is None:
                batch.delete(_DATA + key)
            else:
                batch.put(_DATA + key, value)
            if count % RECORDS_PER_BATCH == 0:
                self._write(batch)
                batch = rocksdict.WriteBatch(raw_mode=True)
        if next_offset is not None:
            batch.put(_META + b"next_offset", b"%d" % next_offset)
        if now_ms is not None:
            batch.put(_META + b"written_ms", b"%d" % now_ms)
        self._write(batch)
        if next_offset is not None:
            self._next_offset = next_offset

    def _write(self, batch: rocksdict.WriteBatch) -> None:
        try:
            self._db.write(batch)
        except Exception as error:
            raise StoreError(f"{self.path} cannot be written: {error}. Is the disk full?") from error

    def items(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Values in key order, from key `start` (included) to `stop` (excluded, None for all).

        Exhaust or drop the iterator before `close`: a live one keeps the folder locked.
        """
        bound = rocksdict.ReadOptions()
        bound.set_iterate_upper_bound(_END if stop is None else _DATA + stop)
        try:
            for key, value in self._db.items(from_key=_DATA + start, read_opt=bound):
                yield key[1:], value
        except Exception as error:
            raise StoreUnusable(f"{self.path}: {error}. Delete it to rebuild from the changelog") from error

    def items_backwards(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The values of `items(start, stop)` from the last to the first."""
        try:
            for key, value in self._db.items(backwards=True, from_key=_DATA + stop):
                if key < _DATA + start:
                    return
                if key != _DATA + stop:
                    yield key[1:], value
        except Exception as error:
            raise StoreUnusable(f"{self.path}: {error}. Delete it to rebuild from the changelog") from error

    def page(self, after: bytes | None, count: int) -> list[tuple[bytes, bytes]]:
        """The first `count` values with keys beyond `after` (None: from the beginning), in key order."""
        bound = rocksdict.ReadOptions()
        bound.set_iterate_upper_bound(_END)
        start = _DATA if after is None else _DATA + after + b"\x00"  # the least key beyond `after`
        try:
            found = islice(self._db.items(from_key=start, read_opt=bound), count)
            return [(key[1:], value) for key, value in found]
        except Exception as error:
            raise StoreUnusable(f"{self.path}: {error}. Delete it to rebuild from the changelog") from error

    def bytes_on_disk(self) -> int:
        return self._db.property_int_value("rocksdb.live-sst-files-size") or 0

    def pending_compaction_bytes(self) -> int:
        return self._db.property_int_value("rocksdb.estimate-pending-compaction-bytes") or 0

    def close(self) -> None:
        self._db.close()

    @staticmethod
    def destroy(path: Path) -> None:
        """Remove the folder of a store that this process does not have open. Raises `StoreLocked` when another has."""
        if not path.exists():
            return
        lock = path / "LOCK"
        if lock.exists():
            with lock.open("r+b") as file:  # RocksDB locks it for as long as the store is open
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise StoreLocked(f"{path} is held by another owner: {error}") from error
                shutil.rmtree(path)
        else:
            shutil.rmtree(path)
