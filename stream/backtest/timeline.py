"""Users' histories over time: the question about an event, and the changes that the event then makes.

Histories are merged by the updater's own code. They are stored in RocksDB, and only those of the latest users also in
memory, so that memory does not grow with the number of users.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from state import codec
from state.history import EMPTY, History
from state.store import Store, StoreMemory
from stream.backtest.event_log import EventLog
from stream.updater.merging import Arrival, Change, Outcomes, apply
from stream.wire.meaning import EventKinds

__all__ = ["Batch", "HistoryTimeline", "Question", "UserChange"]

_RECENT_USERS = 20_000  # whose histories stay in memory


@dataclass(slots=True)
class _Record:
    """The place that an event would have on the topic; the updater's code needs nothing else of the record here."""

    offset: int
    timestamp: int
    topic: str = "backtest"
    partition: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Question:
    """A positive event, and its user's history before the event's moment."""

    event: int  # place in the log
    user: bytes
    item: str
    time_ms: int
    history: codec.Columns
    repeat: bool  # the history holds the item


@dataclass(frozen=True)
class UserChange:
    """The change that the events of a batch made to one user's history."""

    user: bytes
    before_ms: int  # newest interaction before; 0 for a new user
    change: Change
    value: bytes  # the history after, encoded


@dataclass(frozen=True)
class Batch:
    """Events first .. end - 1 of the log."""

    first: int
    end: int
    questions: list[Question]
    changes: list[UserChange]
    newest_ms: int

    def records(self) -> list[tuple[int, bytes, bytes | None]]:
        """The changed histories as records of a changelog whose offsets are places in the log."""
        return [(self.end - 1, change.user, change.value) for change in self.changes]


class HistoryTimeline:
    """All histories up to the last batch that was learnt. `advance` and `learn` are called in turn."""

    def __init__(self, log: EventLog, folder: Path, memory: StoreMemory, kinds: EventKinds, history_items: int) -> None:
        self._log, self._kinds, self._limit = log, kinds, history_items
        self._moments = log.moments()
        self._store = Store(folder, {"backtest": log.fingerprint()}, memory)
        self._recent: OrderedDict[bytes, History] = OrderedDict()

    def advance(self, first: int, end: int) -> Batch:
        """The questions of events first .. end - 1, and the changes by them. The range must not split a moment."""
        log = self._log
        names = {user: log.user_ids[user].encode() for user in np.unique(log.users[first:end]).tolist()}
        now = self._histories(list(names.values()))
        before = dict(now)
        asked: dict[int, codec.Columns] = {}  # by the first event of a moment
        questions: list[Question] = []
        changes: dict[bytes, Change] = {}
        outcomes = Outcomes()
        for event in range(first, end):
            user, moment = names[int(log.users[event])], int(self._moments[event])
            if moment not in asked:
                asked = {moment: codec.read(codec.encode(now[user]))}
            interaction, history = log.interaction(event), asked[moment]
            if self._kinds.positive(interaction.event, interaction.weight):
                repeat = interaction.item in history.items
                time_ms = interaction.timestamp
                questions.append(Question(event, user, interaction.item, time_ms, history, repeat))
            arrival = Arrival(interaction, interaction.timestamp, _Record(event, interaction.timestamp))
            change = apply(now[user], [arrival], self._limit, outcomes)
            if change is not None:
                now[user] = change.history
                earlier = changes.get(user)
                if earlier is not None:
                    change.new[:0], change.kinds[:0] = earlier.new, earlier.kinds
                changes[user] = change
        done = [
            UserChange(user, before[user].newest_ms, change, codec.encode(change.history))
            for user, change in changes.items()
        ]
        return Batch(first, end, questions, done, int(log.times_ms[end - 1]))

    def learn(self, batch: Batch) -> None:
        """Store the changes of a batch, so that later questions have them in their histories."""
        self._store.write({change.user: change.value for change in batch.changes})
        for change in batch.changes:
            self._recent[change.user] = change.change.history
            self._recent.move_to_end(change.user)
        while len(self._recent) > _RECENT_USERS:
            self._recent.popitem(last=False)

    def _histories(self, users: list[bytes]) -> dict[bytes, History]:
        found = {user: history for user in users if (history := self._recent.get(user)) is not None}
        others = [user for user in users if user not in found]
        values = self._store.get_many(others)
        stored = {user: codec.decode(value) for user, value in zip(others, values, strict=True) if value is not None}
        return {user: found.get(user) or stored.get(user, EMPTY) for user in users}

    def everybody(self) -> Iterator[codec.Columns]:
        """Every user's history, one at a time."""
        return (codec.read(value) for _, value in self._store.items())

    def close(self) -> None:
        self._store.close()
