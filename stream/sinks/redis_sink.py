"""Lists in Redis: every user's newest list under `freshet:rec:<user>`, with the bytes of the record.

    freshet:rec:<user>              the list, JSON; `published` says how old it is
    freshet:position:<partition>    up to where the partition is stored: topic id, next offset, time of writing

With a prefix of the topics, `freshet:<prefix>:rec:<user>` and `freshet:<prefix>:position:<partition>`.

One transaction (MULTI) writes a batch of lists and the position after it, on condition (WATCH) that the position is
still the one at which the batch begins. So lists and position always agree:

    killed before EXEC    neither is stored; the batch is read again from the position
    killed after EXEC     both are stored; the next sink continues after the batch
    Redis loses its newest writes in a crash: both are lost together, and the records are read again
    a sink that was paused writes again: another sink has changed the position, so the condition fails

A list that knows newer events stays. Each partition is read at its own pace: a partition that held a user before, or
that only received the wish to be forgotten from another, may have its old list or its deletion read after the user's
new list in another partition.

A Redis Cluster cannot be used: its transactions are limited to keys of one slot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import redis

from stream.sinks.config import SinkConfig
from stream.wire.partitioning import home_of

__all__ = ["Entry", "Position", "RedisSink"]

_SCAN = 1000
_TRIES = 20


class Position(msgspec.Struct, frozen=True):
    """The position up to which a partition is stored in the sink."""

    topic_id: str
    next_offset: int
    written_ms: int


class Entry(NamedTuple):
    """A list of the topic, or a deletion."""

    value: bytes | None  # None deletes
    as_of_ms: int  # newest event time of the list; a deletion deletes lists without newer events


class RedisSink:
    """Raises `redis.RedisError` when Redis does not answer."""

    def __init__(
        self,
        config: SinkConfig,
        prefix: str,
        password: str | None = None,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._client = redis.Redis.from_url(
            config.url, password=password, socket_timeout=5.0, socket_connect_timeout=2.0, health_check_interval=15
        )
        self._begin = "".join(f"{part}:" for part in (config.namespace, prefix) if part)
        self._expire_ms = int(config.expire_seconds * 1000) or None
        self._clock_ms = clock_ms

    def key(self, user: bytes) -> bytes:
        return f"{self._begin}rec:".encode() + user

    def _position_key(self, partition: int) -> str:
        return f"{self._begin}position:{partition}"

    def position(self, partition: int) -> Position | None:
        """The position of the partition; None if there is none that can be read."""
        stored = self._client.get(self._position_key(partition))
        try:
            return None if stored is None else msgspec.json.decode(stored, type=Position)
        except msgspec.DecodeError:
            return None

    def write(
        self, partition: int, before: Position | None, entries: Mapping[bytes, Entry], topic_id: str, after: int
    ) -> Position | None:
        """Write or delete each user's list, unless a newer one is stored, and the position `after`. None when nothing
        was written: the position is not `before` any more, or other writers changed the keys in every attempt."""
        key = self._position_key(partition)
        position = Position(topic_id, after, self._clock_ms())
        with self._client.pipeline(transaction=True) as pipe:
            keys = [self.key(user) for user in entries]
            for _ in range(_TRIES):
                pipe.watch(key, *keys)
                if self.position(partition) != before:
                    return None
                stored = pipe.mget(keys) if keys else []
                pipe.multi()
                for name, (value, as_of_ms), there in zip(keys, entries.values(), stored, strict=True):
                    if there is not None and _as_of_ms(there) > as_of_ms:
                        continue
                    if value is None:
                        pipe.delete(name)
                    else:
                        pipe.set(name, value, px=self._expire_ms)
                pipe.set(key, msgspec.json.encode(position))
                try:
                    pipe.execute()
                    return position
                except redis.WatchError:  # another sink changed the position or a list; the next attempt shows which
                    continue
        return None

    def empty(self, partition: int, partitions: int) -> None:
        """Delete the position and all lists of the partition's users. It is called before the topic is read from its
        beginning, because deletions may have been missed."""
        self._client.delete(self._position_key(partition))
        begin = self.key(b"")
        batch: list[bytes] = []
        for key in self._client.scan_iter(match=_escaped(begin) + b"*", count=_SCAN):
            if home_of(key[len(begin) :], partitions) == partition:
                batch.append(key)
            if len(batch) >= _SCAN:
                self._client.unlink(*batch)
                batch.clear()
        if batch:
            self._client.unlink(*batch)

    def has(self, user: bytes, until_ms: int) -> bool:
        """Whether there is a list of the user without events after this time."""
        stored = self._client.get(self.key(user))
        return stored is not None and _as_of_ms(stored) <= until_ms

    def ping(self) -> None:
        self._client.ping()

    def close(self) -> None:
        self._client.close()


class _List(msgspec.Struct):
    as_of: int


_list = msgspec.json.Decoder(_List)


def _as_of_ms(stored: bytes | str) -> int:
    """The newest event time of a stored list; -1 for a value that is not a list, which is always replaced."""
    try:
        return _list.decode(stored).as_of
    except msgspec.DecodeError:
        return -1


def _escaped(begin: bytes) -> bytes:
    """A pattern for SCAN that matches exactly these bytes."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\-" else bytes([byte]) for byte in begin)
