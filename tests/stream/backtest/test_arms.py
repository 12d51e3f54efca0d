"""Arms answer with what was known before, and learn what came."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import preset
from state.store import StoreMemory
from stream.backtest.arms import CUTOFF, FreshPopularity, RefittedArm, Service
from stream.backtest.event_log import EventLog, batches
from stream.backtest.lineup import _item_item
from stream.backtest.timeline import HistoryTimeline
from stream.wire.meaning import EventKinds
from tests.support.backtest_world import DAY_MS, walks

PLAIN = EventKinds()


@pytest.mark.parametrize("size", [1, 64])
def test_fresh_popularity_counts_every_moment_whatever_the_batches(tmp_path: Path, size: int) -> None:
    log = walks(users=30)
    service = Service(log, PLAIN, DAY_MS)
    timeline = HistoryTimeline(log, tmp_path, StoreMemory(), PLAIN, 200)
    arm = FreshPopularity(service)
    for first, end in batches(log, size):
        batch = timeline.advance(first, end)
        arm.ranks(batch)
        timeline.learn(batch)
        arm.learn(batch)
    timeline.close()
    gains = np.zeros(len(arm.gains))
    for place, days in enumerate((0.5, 1, 2, 4, 7, 15, 30)):
        for event in range(len(log)):
            earlier = np.arange(len(log)) < log.moments()[event]
            age_days = (log.times_ms[event] - log.times_ms[earlier]) / DAY_MS
            counts = np.bincount(log.items[earlier], 2.0 ** (-age_days / days), len(log.item_ids))
            met = np.unique(log.items[earlier & (log.users == log.users[event])])
            order = [n for n in np.lexsort((np.arange(len(counts)), -counts)) if counts[n] and n not in met]
            if log.items[event] in order[:CUTOFF]:
                gains[place] += 1 / np.log2(order.index(log.items[event]) + 2)
    np.testing.assert_allclose(arm.gains, gains)


def test_a_refitted_arm_answers_with_popularity_until_the_first_round_and_to_strangers(tmp_path: Path) -> None:
    log = walks(users=60)
    service = Service(log, PLAIN, 7 * DAY_MS)
    timeline = HistoryTimeline(log, tmp_path, StoreMemory(), PLAIN, 200)
    arm = RefittedArm("item-item", service, partial(_item_item, preset("stream").item_item, torch.device("cpu")))
    hits = {"before": [0, 0], "after": [0, 0]}
    for first, end in batches(log, 32):
        batch = timeline.advance(first, end)
        ranks = arm.ranks(batch)
        popular = np.array([service.popularity_rank(question) for question in batch.questions])
        cold = np.array([not question.history.items for question in batch.questions])
        if first < len(log) // 3:
            np.testing.assert_array_equal(ranks, popular)
        else:
            np.testing.assert_array_equal(ranks[cold], popular[cold])
            hits["after"][0] += int((ranks[~cold] == 1).sum())
            hits["after"][1] += int((~cold).sum())
        timeline.learn(batch)
        service.learn(batch)
        arm.learn(batch)
        if first < len(log) // 3 <= end:
            arm.round_held(timeline)
    timeline.close()
    assert hits["after"][0] > 0.3 * hits["after"][1]  # the step is 1 for a while after the round
    assert arm.train_seconds > 0


def test_an_arm_that_knows_nothing_lists_nothing() -> None:
    log: EventLog = walks(users=2)
    service = Service(log, PLAIN, DAY_MS)
    assert service.popularity.top((), 20) == []
