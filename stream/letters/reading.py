"""Reads the dead letters that a user asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kafka.consumer.fetcher import ConsumerRecord

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.dead_letters import original_headers

__all__ = ["Letter", "LetterError", "Wanted", "letters"]


class LetterError(RuntimeError):
    """The operation is not possible with these letters; the message is one line that says what to do."""


@dataclass(frozen=True)
class Letter:
    """One record of `dead-letters`."""

    partition: int  # of `dead-letters`, like the offset and the time
    offset: int
    at_ms: int  # when it was refused
    reason: str
    detail: str
    topic: str  # of the refused record; "" in a letter that Freshet did not write
    source_partition: int
    source_offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]  # those of the record's producer
    cut_from: int = 0  # size of the whole value in bytes, if the letter has only its beginning

    @property
    def name(self) -> str:
        """The letter's name in commands and headers: partition/offset."""
        return f"{self.partition}/{self.offset}"

    @staticmethod
    def of(record: ConsumerRecord) -> Letter:
        ours = dict(record.headers)  # of two headers with one name, the last one is Freshet's
        return Letter(
            record.partition,
            record.offset,
            record.timestamp,
            ours.get("reason", b"unknown").decode(errors="replace"),
            ours.get("detail", b"").decode(errors="replace"),
            ours.get("topic", b"").decode(errors="replace"),
            _number(ours.get("partition")),
            _number(ours.get("offset")),
            record.key,
            record.value,
            tuple(original_headers(record.headers)),
            max(_number(ours.get("cut-from")), 0),
        )


def _number(text: bytes | None) -> int:
    """The number in a header; -1 for none."""
    return int(text) if text is not None and text.isdigit() else -1


@dataclass(frozen=True)
class Wanted:
    """Which letters are wanted; by default all."""

    reasons: frozenset[str] = frozenset()
    detail: str = ""  # a part of the detail, in upper or lower case
    partitions: frozenset[int] = frozenset()  # of the refused records
    first_offset: int = 0  # of `dead-letters`
    last_offset: int | None = None
    since_ms: int = 0
    until_ms: int | None = None  # exclusive

    def __contains__(self, letter: Letter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and self.detail.casefold() in letter.detail.casefold()
            and (not self.partitions or letter.source_partition in self.partitions)
            and self.first_offset <= letter.offset
            and (self.last_offset is None or letter.offset <= self.last_offset)
            and self.since_ms <= letter.at_ms
            and (self.until_ms is None or letter.at_ms < self.until_ms)
        )


def letters(connection: KafkaConnection, topic: str, wanted: Wanted) -> Iterator[Letter]:
    """The wanted letters that exist now, each partition in order. Raises `LetterError` when there is no such topic."""
    with TopicReader(connection) as reader:
        partitions = reader.partitions(topic)
        if not partitions:
            raise LetterError(f"topic {topic} does not exist; is the --prefix right?")
        reader.assign(partitions)
        reader.to_beginning()
        if wanted.first_offset:
            first, end = reader.beginnings(partitions), reader.ends(partitions)
            for tp in partitions:
                reader.seek(tp, min(max(first[tp], wanted.first_offset), end[tp]))
        for record in reader.read_to_end():
            letter = Letter.of(record)
            if letter in wanted:
                yield letter
