"""Lists in Redis: every user's newest one under `freshet:rec:<user>`, as the record of `recommendations` has it.

    freshet:rec:<user>              the list, JSON; `published` says how old it is
    freshet:position:<partition>    what of the partition is in there: topic id, next offset, time of writing

With a prefix of the topics, `freshet:<prefix>:rec:<user>` and `freshet:<prefix>:position:<partition>`.

One transaction (MULTI) writes a batch of lists and the position after it, on condition (WATCH) that the position is
still the one that the batch begins at. So whatever dies, lists and position agree:

    killed before EXEC    neither is there; the batch is read again from the position
    killed after EXEC     both are there; the next sink goes on behind the batch
    Redis goes back to an older state (a crash without its log): both go back, and what follows is read again
    a sink that slept wakes and writes: the position is another's by now, the condition fails, nothing is written

A list that knows newer events stays. Each partition is read at its own pace, and one where a user lived before, or
where the wish to be forgotten was only passed on, may bring its old list or its deletion after the new list of another.

A database of a Redis Cluster does not do: a transaction there holds keys of one slot only.
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
    """How much of a partition is in the sink."""

    topic_id: str
    next_offset: int
    written_ms: int


class Entry(NamedTuple):
    """A list of the topic, or a deletion."""

    value: bytes | None  # None deletes
    as_of_ms: int  # event time that the list knows; of a deletion: lists that know nothing newer are deleted


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
        """How much of the partition is here; None: nothing that is known."""
        stored = self._client.get(self._position_key(partition))
        try:
            return None if stored is None else msgspec.json.decode(stored, type=Position)
        except msgspec.DecodeError:
            return None

    def write(
        self, partition: int, before: Position | None, entries: Mapping[bytes, Entry], topic_id: str, after: int
    ) -> Position | None:
        """Write what each user's entry says, unless a newer list is there, and the position after them. None when the
        position is not `before` any more: then nothing was written."""
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
                except redis.WatchError:  # the position is another's now, or a list is: the next turn tells
                    continue
        return None

    def empty(self, partition: int, partitions: int) -> None:
        """Take away the position and all lists of the partition's users, before the topic is read from its beginning:
        deletions may have been missed."""
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
        """Is there something of the user that knows no event after this time?"""
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
    """-1 for what is no list: it stands over nothing."""
    try:
        return _list.decode(stored).as_of
    except msgspec.DecodeError:
        return -1


def _escaped(begin: bytes) -> bytes:
    """For a pattern of SCAN that means exactly these bytes."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\-" else bytes([byte]) for byte in begin)
