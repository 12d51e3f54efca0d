"""Turns a batch of `interactions` into changed histories: the updater's work without Kafka or RocksDB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from state.history import Entry, History, merge_entries
from stream.wire.mapping import Translator
from stream.wire.records import Forget, InputRecord, Interaction, Limits, NewInteraction, Rejected, decode_interaction

__all__ = ["Arrival", "Change", "Changed", "Outcomes", "apply", "decode_batch"]


class Arrival(NamedTuple):
    record: Interaction | Forget
    arrived_ms: int
    source: InputRecord


@dataclass
class Outcomes:
    """What became of valid events; every one is counted in exactly one field."""

    applied: int = 0
    duplicate: int = 0  # the history holds this interaction, or enough later ones with the same item
    late: int = 0  # older than everything a full history keeps, or forgotten


@dataclass
class Change:
    """A user's history after a batch that changed it. `new` holds the events that became the last one of their item."""

    history: History
    new: list[NewInteraction] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # of the events in `new`, as their producers name them
    arrived_ms: int = 0
    forgotten: bool = False


class Changed(NamedTuple):
    """A user whose history changed."""

    partition: int
    user: bytes
    change: Change
    history: bytes  # encoded


def decode_batch(
    records: Iterable[InputRecord], limits: Limits, translator: Translator | None = None
) -> tuple[dict[bytes, list[Arrival]], list[tuple[InputRecord, Rejected]]]:
    """Valid records by user in order of offset, and the rejected ones with their reason. Records in another format than
    Freshet's own need a translator."""
    if translator is not None:
        return _translate_batch(records, limits, translator)
    arrivals: dict[bytes, list[Arrival]] = {}
    rejected: list[tuple[InputRecord, Rejected]] = []
    for record in records:
        try:
            decoded = decode_interaction(record.key, record.value, record.timestamp, limits)
        except Rejected as error:
            rejected.append((record, error))
            continue
        assert record.key is not None  # a null key is rejected
        arrivals.setdefault(record.key, []).append(Arrival(decoded, record.timestamp, record))
    return arrivals, rejected


def _translate_batch(
    records: Iterable[InputRecord], limits: Limits, translator: Translator
) -> tuple[dict[bytes, list[Arrival]], list[tuple[InputRecord, Rejected]]]:
    arrivals: dict[bytes, list[Arrival]] = {}
    rejected: list[tuple[InputRecord, Rejected]] = []
    for record in records:
        try:
            user, decoded = translator.decode(record, limits)
        except Rejected as error:
            rejected.append((record, error))
            continue
        arrivals.setdefault(user, []).append(Arrival(decoded, record.timestamp, record))
    return arrivals, rejected


def apply(
    history: History, arrivals: Sequence[Arrival], limit: int, outcomes: Outcomes, count_forgets: bool = True
) -> Change | None:
    """The history after these arrivals; None when they changed nothing. With `count_forgets` False, requests to forget
    the user are not counted in `outcomes`: the partition that routed them here has counted them."""
    change = Change(history)
    for record, arrived_ms, _ in arrivals:
        before = change.history
        if isinstance(record, Forget):
            after = merge_entries(before, (), limit, record.timestamp)
            if after is not before:
                change.history, change.forgotten, change.arrived_ms = after, True, arrived_ms
                change.new.clear()
                change.kinds.clear()
            if count_forgets:
                outcomes.applied += after is not before
                outcomes.duplicate += after is before
            continue
        after = merge_entries(before, (Entry(record.timestamp, record.item, record.weight, record.event),), limit)
        known = record.item in before.items
        if after is before:
            if known:
                outcomes.duplicate += 1
            else:
                outcomes.late += 1
            continue
        change.history, change.arrived_ms = after, arrived_ms
        if _is_last(after, record):
            change.new.append(NewInteraction(record.item, record.timestamp, known, record.weight, record.event))
            change.kinds.append(record.event)
            outcomes.applied += 1
        elif known:
            outcomes.applied += 1
        else:
            outcomes.late += 1  # it left a trace
    return None if change.history is history else change


def _is_last(history: History, record: Interaction) -> bool:
    """Whether this is the last interaction with its item."""
    items = history.items
    if items and items[0] == record.item:
        place = 0
    elif record.item in items:
        place = items.index(record.item)
    else:
        return False
    kind = history.kinds[place] if history.kinds else ""
    return (history.times_ms[place], kind) == (record.timestamp, record.event)
