"""Rejected records, kept unchanged beside the reason and the place they came from."""

from __future__ import annotations

from typing import TypedDict

from stream.wire.records import InputRecord, Rejected

__all__ = ["DeadLetter", "dead_letter"]


class DeadLetter(TypedDict):
    """Keyword arguments of a producer's `send`."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def dead_letter(record: InputRecord, error: Rejected, by: str, value_bytes: int) -> DeadLetter:
    """The record as it came, with headers `reason`, `detail`, `topic`, `partition`, `offset`, `timestamp` and `by`.

    A value over `value_bytes`, more than the topic takes, is cut there and carries its length in the header `cut-from`.
    """
    headers = [
        ("reason", error.reason.encode()),
        ("detail", error.detail.encode(errors="backslashreplace")[:1000]),
        ("topic", record.topic.encode()),
        ("partition", b"%d" % record.partition),
        ("offset", b"%d" % record.offset),
        ("timestamp", b"%d" % record.timestamp),
        ("by", by.encode()),
    ]
    value = record.value
    if value is not None and len(value) > value_bytes:
        headers.append(("cut-from", b"%d" % len(value)))
        value = value[:value_bytes]
    if record.key is None and value is None:
        value = b""  # the client refuses a record of two nulls
    return DeadLetter(key=record.key, value=value, headers=headers)
