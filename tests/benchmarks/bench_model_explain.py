"""What reasons cost, as a share of ranking the same users: `python tests/benchmarks/bench_model_explain.py`."""

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from model.batch import Histories
from model.config import preset
from model.explain import reasons
from model.items import ItemIndex
from model.learner import Learner
from stream.scorer.reasons import TRIED

USERS, LENGTH, LISTED, NAMED = 64, 50, 20, 2


def seconds(work: Callable[[], object]) -> float:
    work()
    took = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{platform.machine()}, one thread of torch, {USERS} users with {LENGTH} items, lists of {LISTED}")
    rng = np.random.default_rng(0)
    for items in (3_700, 30_000, 100_000):
        config = replace(preset("stream"), item_item=replace(preset("stream").item_item, exact_items=1))
        learner = Learner.fresh(config, ItemIndex([*map(str, range(items))]), seed=0, device=torch.device("cpu"))
        learner.neighbours = torch.from_numpy(rng.integers(0, items, (items, 300)))
        learner.neighbour_weights = torch.rand(items, 300)
        model = learner.recommender("v")
        columns = np.concatenate([rng.choice(items, LENGTH, replace=False) for _ in range(USERS)])
        offsets = np.arange(USERS + 1) * LENGTH
        times = np.tile(np.arange(LENGTH, 0, -1), USERS)
        users = Histories(offsets, columns, times, np.ones(len(columns), np.float32))
        listed = model.rank(users, LISTED).columns
        ranking = seconds(partial(model.rank, users, LISTED))
        why = seconds(partial(reasons, model, users, listed, NAMED, TRIED))
        print(f"{items:7,} items: ranking {ranking * 1e3 / USERS:.2f} ms a user, reasons {why / ranking:.0%} of that")


if __name__ == "__main__":
    main()
