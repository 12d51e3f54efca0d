"""The second stage on a timeline: it sees what came before each moment, learns from it, and nothing of what comes."""

import numpy as np
import pytest

from model.batch import Histories
from model.ranker import Ranked
from model.rerank.choice import untrained_reranker
from model.rerank.counts import CountsConfig
from model.study.figures import CUTOFF
from model.study.fresh_popularity import fresh_popularity_ranks
from model.study.interactions import Interactions, Timeline
from model.study.linear import ItemItemAlone
from model.study.second_stage import SecondStage

HOUR_MS, ITEMS = 3_600_000, 40
IDS = [f"i{n}" for n in range(ITEMS)]


class Ignorant:
    """A first stage that lists the catalogue in order and has no opinion."""

    def rank(self, histories: Histories, k: int) -> Ranked:
        columns = np.full((len(histories), k), -1)
        for user in range(len(histories)):
            seen = histories.columns[histories.offsets[user] : histories.offsets[user + 1]]
            rest = np.setdiff1d(np.arange(ITEMS), seen)[:k]
            columns[user, : len(rest)] = rest
        return Ranked(columns, np.zeros(columns.shape, np.float32))

    def terms(self, histories: Histories, wanted: np.ndarray) -> np.ndarray:
        return np.where(wanted[..., None] < 0, np.nan, np.zeros((*wanted.shape, 2))).astype(np.float32)


def log_of(users: np.ndarray, items: np.ndarray, times_ms: np.ndarray) -> Interactions:
    return Interactions.ordered("log", users, items, times_ms, IDS)


def test_by_demand_alone_it_is_fresh_popularity() -> None:
    """In every hour somebody takes eight items at once, so that each block of questions is one moment."""
    rng = np.random.default_rng(1)
    hours, width = 120, 8
    users = np.repeat(np.arange(hours) % 100, width)
    wanted = 1 / (1 + np.arange(ITEMS)) / (1 / (1 + np.arange(ITEMS))).sum()
    items = np.concatenate([rng.choice(ITEMS, width, replace=False, p=wanted) for _ in range(hours)])
    log = log_of(users, items, np.repeat(np.arange(1, hours + 1), width) * HOUR_MS)
    timeline, events = Timeline(log), np.arange(len(log))
    half_life = 2.0
    demand = CountsConfig().demand_days.index(half_life)
    stage = SecondStage(log, timeline)
    ranks = stage.ranks(Ignorant(), untrained_reranker(CountsConfig(), demand, 4), np.arange(ITEMS), events)
    popular = fresh_popularity_ranks(log, timeline, events, half_life, CUTOFF)
    # Early counts are equal, and equal counts stand in another order here: the first stage's.
    late = (popular > 0) & (events > 300)
    assert late.sum() > 150
    assert (ranks[late] == popular[late]).all()


def test_it_learns_what_follows_what_where_the_first_stage_knows_nothing() -> None:
    """Everybody goes from an item to the next one of a circle, each from a start of their own."""
    rng = np.random.default_rng(2)
    people, steps = 150, 12
    users = np.repeat(np.arange(people), steps)
    items = (np.repeat(rng.integers(0, ITEMS, people), steps) + np.tile(np.arange(steps), people)) % ITEMS
    begins = np.repeat(np.sort(rng.integers(0, 400, people)), steps)
    log = log_of(users, items, (begins + np.tile(np.arange(steps), people) * 24) * HOUR_MS + users)
    stage, columns = SecondStage(log, Timeline(log)), np.arange(ITEMS)
    early, late = np.arange(500, 1300), np.arange(1300, len(log))
    late = late[np.isin(log.users[late], log.users[:1300])]  # those who came before go on as told
    told: list[float] = []
    choice = stage.learn(Ignorant(), columns, early, seed=0, told=told.append)
    assert choice.reranker is not None and choice.above_demand
    assert told[-1] == 1.0
    ranks = stage.ranks(Ignorant(), choice.reranker, columns, late)
    popular = fresh_popularity_ranks(log, Timeline(log), late, 2.0, CUTOFF)
    assert np.mean(ranks == 1) > 0.9
    assert np.mean(popular == 1) < 0.2


def test_items_that_the_first_stage_has_never_met_are_listed() -> None:
    users = np.arange(20)
    items = np.repeat([0, 39], 10)  # 39 comes after the first stage was fitted
    log = log_of(users, items, (1 + np.arange(20)) * HOUR_MS)
    columns = np.arange(ITEMS)
    columns[39] = -1
    stage = SecondStage(log, Timeline(log))
    by_newest = untrained_reranker(CountsConfig(), 0, 4)
    # The eight questions of one block share counts, so the first block that may know of item 39 begins with event 16.
    assert stage.ranks(Ignorant(), by_newest, columns, np.arange(20))[16:].tolist() == [1, 1, 1, 1]


def test_the_item_item_term_alone_is_a_first_stage() -> None:
    import torch

    from model.config import preset
    from model.items import ItemIndex

    rows = [[0, 1, 2], [0, 1, 3], [1, 2, 3]]
    histories = Histories.from_rows(np.array([(user, item) for user, row in enumerate(rows) for item in row]), 3)
    alone = ItemItemAlone(ItemIndex(IDS[:5]), preset("stream").item_item, torch.device("cpu"))
    with pytest.raises(ValueError, match="fit comes before terms"):
        alone.terms(histories, np.zeros((3, 1), dtype=np.int64))
    terms = alone.fit(histories).terms(histories, np.array([[3, 4, -1]] * 3))
    assert (terms[:, :2, 0] == 0).all() and np.isnan(terms[:, 2]).all()
    assert (terms[:, 0, 1] > terms[:, 1, 1]).all()  # 3 follows something, 4 nothing
    nobody = Histories.from_rows(np.empty((0, 2), dtype=np.int64), 1)
    assert alone.terms(nobody, np.array([[0, -1]])).shape == (1, 2, 2)
