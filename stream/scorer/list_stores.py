"""The stores of last lists: opened for assigned partitions, destroyed some time after these moved away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Set

from kafka import TopicPartition

from stream.clients.admin import admin_client, offset_range, topic_identity
from stream.clients.connection import KafkaConnection
from stream.scorer.shown_lists import ShownLists
from stream.wire.topics import TopicPlan

__all__ = ["ListStores"]

log = logging.getLogger(__name__)

_PURGE_SECONDS = 3600.0


class ListStores:
    """Used by the follower's thread only."""

    def __init__(
        self,
        connection: KafkaConnection,
        plan: TopicPlan,
        lists: ShownLists,
        former_seconds: float,
        clock_ms: Callable[[], int],
    ) -> None:
        self._plan, self._lists, self._clock_ms = plan, lists, clock_ms
        self._former_seconds = former_seconds
        self._admin = admin_client(connection)
        self._identity = topic_identity(self._admin, plan.recommendations)
        self._owned: Set[int] = frozenset()
        self._left: dict[int, float] = {}  # partitions on the disk that others own, and since when
        self._purge_due = 0.0

    def owned(self, partitions: Set[int]) -> None:
        """These partitions are owned from now on, and no others."""
        self._owned = partitions
        now = time.monotonic()
        self._left = {number: self._left.get(number, now) for number in self._lists.on_disk - partitions}

    def open(self, tp: TopicPartition) -> tuple[int, int]:
        """Open the store of a partition. Returns the offset to read on from, and the offset to stop before. Raises
        `KafkaError`."""
        low, end = offset_range(self._admin, tp)
        lists = self._lists[tp.partition]
        if lists is None:
            identity = self._identity | {"partition": str(tp.partition)}
            lists = self._lists.open(tp.partition, identity, low, end, self._plan.tombstone_ms, self._clock_ms())
        known = lists.store.next_offset
        return low if known is None else max(known, low), end

    def tidy(self) -> None:
        """Destroy the stores whose partitions others have owned for `former_seconds`; drop the marks of users who were
        forgotten long ago."""
        now = time.monotonic()
        for number, since in list(self._left.items()):
            if now - since >= self._former_seconds:
                log.info("last lists of partition %d, which others own, are destroyed", number)
                self._lists.destroy(number)
                del self._left[number]
        if now >= self._purge_due:
            self._purge_due = now + _PURGE_SECONDS
            for number in self._owned:
                lists = self._lists[number]
                if lists is not None:
                    lists.purge(self._clock_ms() - self._plan.tombstone_ms)

    def close(self) -> None:
        self._admin.close()
