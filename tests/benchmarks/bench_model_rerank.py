"""What the second stage costs, step by step, beside ranking the same users without it:
`python tests/benchmarks/bench_model_rerank.py`."""

import platform
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from model.batch import Histories
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from model.rerank.asked import Asked
from model.rerank.candidates import CandidateConfig
from model.rerank.counts import CountsConfig, StreamCounts
from model.rerank.features import USER_FEATURES, start_weights
from model.rerank.pairs import counted_events
from model.rerank.reranker import Reranker
from model.rerank.slates import ModelLists, make_slates

LENGTH, LISTED, DAY_MS = 50, 20, 86_400_000


def microseconds(work: Callable[[], object], users: int) -> float:
    """Of this thread's own time: torch has one, and other work on the machine does not count."""
    work()
    took = []
    for _ in range(9):
        began = time.thread_time()
        work()
        took.append(time.thread_time() - began)
    return sorted(took)[4] * 1e6 / users


def world(items: int, users: int, rng: np.random.Generator) -> Histories:
    columns = np.concatenate([rng.permutation(items)[:LENGTH] for _ in range(users)])
    times_ms = np.tile(np.arange(LENGTH, 0, -1) * DAY_MS, users)
    return Histories(np.arange(users + 1) * LENGTH, columns, times_ms, np.ones(len(columns), np.float32))


def counted(items: int, rng: np.random.Generator) -> StreamCounts:
    counts = StreamCounts()
    counts.known([str(item) for item in range(items)])
    for _ in range(40):  # 20,000 events, each on a history of its own
        before = world(items, 500, rng)
        now_ms = np.full(500, (LENGTH + 1) * DAY_MS)
        counts.add(counted_events(Asked.of(before, now_ms), np.arange(500), rng.integers(0, items, 500)))
    return counts


def measure(items: int, count: int, rng: np.random.Generator) -> str:
    """The steps for batches of `count` users."""
    config, settings = CandidateConfig(), preset("stream")
    settings = replace(settings, item_item=replace(settings.item_item, exact_items=1))
    index = ItemIndex([str(item) for item in range(items)])
    learner = Learner.fresh(settings, index, seed=0, device=torch.device("cpu"))
    learner.neighbours = torch.from_numpy(rng.integers(0, items, (items, 300)))
    learner.neighbour_weights = torch.rand(items, 300)
    model, counts, users = learner.recommender("v"), counted(items, rng), world(items, count, rng)
    reranker = Reranker(torch.from_numpy(start_weights(CountsConfig(), 2)), len(USER_FEATURES), hidden=24).eval()
    asked = Asked.of(users, np.full(count, (LENGTH + 1) * DAY_MS))
    ranked, terms_of = model.rank_with_terms(users, config.model)
    lists = ModelLists(ranked.columns, terms_of)
    slates = make_slates(counts, asked, config, lists)
    plain = microseconds(lambda: model.rank(users, LISTED), count)
    first = microseconds(lambda: model.rank_with_terms(users, config.model), count)
    described = microseconds(lambda: make_slates(counts, asked, config, lists), count)
    terms = microseconds(lambda: terms_of(slates.columns), count)
    ordered = microseconds(lambda: slates.best(reranker, LISTED), count)
    return (
        f"{items:6,} items, batches of {count:3}: {plain:5.0f} without; {first:5.0f} for {config.model} of the model, "
        f"{described:5.0f} for {slates.columns.shape[1]} candidates (of it {terms:.0f} for the model's scores), "
        f"{ordered:5.0f} for their order: {(first + described + ordered) / plain:.1f} times"
    )


def main() -> None:
    torch.set_num_threads(1)
    print(f"{platform.machine()}, one thread of torch, histories of {LENGTH}; medians of 9, microseconds a user")
    rng = np.random.default_rng(0)
    for items in (2_810, 30_000):
        for count in (16, 256):
            print(measure(items, count, rng))


if __name__ == "__main__":
    main()
