"""What is asked about an event is what was known before its moment; what is learnt is what an updater would store."""

from pathlib import Path

import numpy as np
import pytest

import stream.backtest.timeline
from state.codec import decode_columns
from state.history import EMPTY, Entry, merge_entries
from state.store import StoreMemory
from stream.backtest.event_log import EventLog, batches
from stream.backtest.timeline import HistoryTimeline, Question
from stream.wire.meaning import EventKind, EventKinds

NAMES = [f"u{n}" for n in range(5)], [f"i{n}" for n in range(8)], ["", "dislike"]


def random_log(events: int = 300) -> EventLog:
    rng = np.random.default_rng(3)
    columns = rng.integers(5, size=events), rng.integers(8, size=events), np.sort(rng.integers(90, size=events)) * 1000
    return EventLog.ordered("log", NAMES, (*columns, np.ones(events), rng.integers(2, size=events)))


@pytest.mark.parametrize("recent", [1, 20_000])
def test_questions_and_histories_are_those_of_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    monkeypatch.setattr(stream.backtest.timeline, "_RECENT_USERS", recent)  # the others come from the store
    log, kinds = random_log(), EventKinds({"dislike": EventKind(negative=True)})
    timeline = HistoryTimeline(log, tmp_path, StoreMemory(), kinds, history_items=4)
    questions: list[Question] = []
    for first, end in batches(log, 7):
        batch = timeline.advance(first, end)
        questions += batch.questions
        timeline.learn(batch)
    asked = {question.event: question for question in questions}
    positive = [event for event in range(len(log)) if log.kind_names[log.kinds[event]] == ""]
    assert sorted(asked) == positive  # what speaks against an item is learnt, and no list can be right about it

    def known(user: int, before_ms: float) -> list[Entry]:
        rows = [n for n in range(len(log)) if log.users[n] == user and log.times_ms[n] < before_ms]
        return [Entry(int(log.times_ms[n]), NAMES[1][log.items[n]], 1.0, NAMES[2][log.kinds[n]]) for n in rows]

    for event, question in asked.items():
        history = merge_entries(EMPTY, known(int(log.users[event]), float(log.times_ms[event])), 4)
        assert decode_columns(question.history) == history
        assert question.repeat == (question.item in history.items)
    stored = {h.newest_ms: decode_columns(h) for h in timeline.everybody()}
    timeline.close()
    expected = [merge_entries(EMPTY, known(user, np.inf), 4) for user in range(5)]
    assert stored == {history.newest_ms: history for history in expected}
