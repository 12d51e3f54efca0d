"""Rejected records, kept unchanged together with the reason and the place where they came from.

A letter has the record's key, value and headers, and after them headers of its own: `reason`, `detail`, `topic`,
`partition`, `offset`, `timestamp`, `by` and perhaps `cut-from`. When a header of the record has one of these names, or
a name that begins with `original-`, the letter puts `original-` before its name; removing one `original-` restores the
name. Earlier releases did not do this: their letters may have two headers of one name, of which the last is Freshet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from stream.wire.records import InputRecord, Rejected

__all__ = ["DeadLetter", "dead_letter", "original_headers"]

_OURS = ("reason", "detail", "topic", "partition", "offset", "timestamp", "by", "cut-from")
_ORIGINAL = "original-"


class DeadLetter(TypedDict):
    """Keyword arguments of a producer's `send`."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def dead_letter(record: InputRecord, error: Rejected, by: str, value_bytes: int) -> DeadLetter:
    """The record as it came, with the headers of a letter.

    A value over `value_bytes`, more than the topic takes, is cut to that length; the header `cut-from` has the length
    that it had.
    """
    headers = [(_ORIGINAL + name if _is_taken(name) else name, value) for name, value in record.headers]
    headers += [
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


def original_headers(letter: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The headers of the record inside a letter."""
    return [(name.removeprefix(_ORIGINAL), value) for name, value in letter if name not in _OURS]


def _is_taken(name: str) -> bool:
    return name in _OURS or name.startswith(_ORIGINAL)
