"""Merges histories again from `interactions`, up to the one that a list was made of.

The updater merges a user's events one by one in the order of the log, so every history that was ever sent to a scorer
is the merge of the log up to one of its events. The list has a digest of its history's bytes. If no history with this
digest is found, the log or the settings differ from those of the updater.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kafka.consumer.fetcher import ConsumerRecord

from state import codec
from state.history import EMPTY
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.leaving.snapshot import Progress, read_between
from stream.updater.merging import Arrival, Outcomes, apply, decode_batch
from stream.wire.made import history_digest
from stream.wire.mapping import InputMapping
from stream.wire.records import Forget, Limits

__all__ = ["LogConfig", "MergedLog", "read_log"]


@dataclass(frozen=True)
class LogConfig:
    """The settings of the updaters; other settings give other histories."""

    limits: Limits
    mapping: InputMapping
    history_items: int
    strict: bool  # events of a user are merged from all partitions


class MergedLog(NamedTuple):
    """The events of some users."""

    arrivals: Mapping[bytes, Sequence[tuple[int, Arrival]]]  # by user: with their partition, in order of arrival
    begins: Mapping[int, int]  # by partition: offset of the first record that still exists
    config: LogConfig

    def history(self, user: bytes, partition: int, digest: int) -> bytes | None:
        """The history with this digest, encoded as in a refresh; None when no prefix of the log gives it."""
        history, limit = EMPTY, self.config.history_items
        if history_digest(codec.for_reading(codec.encode(history))) == digest:
            return codec.for_reading(codec.encode(history))
        for number, arrival in self.arrivals.get(user, ()):
            # A wish to be forgotten applies in every partition.
            if number != partition and not self.config.strict and not isinstance(arrival.record, Forget):
                continue
            change = apply(history, [arrival], limit, Outcomes())
            if change is None:
                continue
            history = change.history
            encoded = codec.for_reading(codec.encode(history))
            if history_digest(encoded) == digest:
                return encoded
        return None

    def why_not(self, partition: int) -> str:
        """Why a history is not found, as far as this is known."""
        gone = self.begins.get(partition, 0)
        if gone:
            return f"retention removed the first {gone} records of partition {partition} of the log"
        return "are history_items, [limits], [input] and the routing of events what they were then?"


def read_log(
    connection: KafkaConnection, topic: str, users: Iterable[bytes], config: LogConfig, progress: Progress
) -> MergedLog:
    """All events of these users."""
    wanted, translator = set(users), config.mapping.translator
    by_key = translator is None or config.mapping.key == "user"
    arrivals: dict[bytes, list[tuple[int, Arrival]]] = {user: [] for user in wanted}
    with TopicReader(connection, poll_records=5_000, fetch_bytes=4 * 1024 * 1024) as reader:
        partitions = reader.partitions(topic)
        reader.assign(partitions)
        begins, ends = reader.beginnings(partitions), reader.ends(partitions)
        todo = sum(ends[tp] - begins[tp] for tp in partitions)
        for left, batch in read_between(reader, begins, ends):
            kept: list[ConsumerRecord] = [record for record in batch if not by_key or record.key in wanted]
            for user, found in decode_batch(kept, config.limits, translator)[0].items():
                if user in wanted:
                    arrivals[user] += [(arrival.source.partition, arrival) for arrival in found]
            progress(topic, todo - left, todo)
    for merged in arrivals.values():
        merged.sort(key=lambda pair: (pair[1].arrived_ms, pair[0], pair[1].source.offset))
    return MergedLog(arrivals, {tp.partition: begin for tp, begin in begins.items()}, config)
