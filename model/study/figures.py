"""Figures of one fitted model: accuracy per user or question, and other properties of its lists.

Legend: B users, Q rows of figures (users, or questions), K the length of the lists.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.batch import Histories
from model.evaluate import ndcg, ranks_hit, recall
from model.ranker import Ranked, Ranker

__all__ = ["CUTOFF", "HELD_OUT_METRICS", "NEXT_METRICS", "Figures", "held_out_figures", "next_figures", "rank_unmasked"]

CUTOFF = 20
HELD_OUT_METRICS = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20")  # of several held-out items of a user
NEXT_METRICS = ("HR@10", "HR@20", "NDCG@10", "NDCG@20")  # of one next item


@dataclass(frozen=True)
class Figures:
    """The figures of one fitted model."""

    values: np.ndarray  # float64 [4, Q] in the order of the metrics, NaN where nothing could be measured
    beyond: Mapping[str, float]  # other figures by name: coverage, gini, novelty, speed


def rank_unmasked(ranker: Ranker, histories: Histories, masked: Histories | None, k: int) -> Ranked:
    """The best `k` items [B, K] that are neither in `histories` nor in `masked`."""
    if masked is None:
        return ranker.rank(histories, k)
    ranked = ranker.rank(histories, k + int(masked.lengths.max(initial=0)))
    allowed = ~ranks_hit(ranked, masked) & (ranked.columns >= 0)
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
    allowed = np.take_along_axis(allowed, order, 1)
    columns = np.where(allowed, np.take_along_axis(ranked.columns, order, 1), -1)
    return Ranked(columns, np.where(allowed, np.take_along_axis(ranked.scores, order, 1), -np.inf).astype(np.float32))


def held_out_figures(
    ranker: Ranker,
    histories: Histories,
    held_out: Histories,
    items: int,
    popularity: np.ndarray,
    masked: Histories | None = None,
) -> Figures:
    """Recall and NDCG of B users' held-out items, coverage and Gini of the lists, novelty, users per second.

    `popularity` [I] counts interactions of the training part; novelty is -log2 of an item's share of users in it.
    """
    start = time.perf_counter()
    ranked = rank_unmasked(ranker, histories, masked, CUTOFF)
    seconds = time.perf_counter() - start
    hits, wanted = ranks_hit(ranked, held_out), held_out.lengths
    values = np.stack(
        [recall(hits, wanted, 10), recall(hits, wanted, 20), ndcg(hits, wanted, 10), ndcg(hits, wanted, 20)]
    )
    shown = ranked.columns[ranked.columns >= 0]
    often = np.sort(np.bincount(shown, minlength=items)).astype(np.float64)
    place = np.arange(1, items + 1)
    share = np.maximum(popularity[shown], 1) / max(len(histories), 1)
    beyond = {
        "coverage": float((often > 0).mean()),  # share of the catalogue in any user's first 20
        "gini": float(((2 * place - items - 1) * often).sum() / max(items * often.sum(), 1)),  # 0 equal, 1 one item
        "novelty": float(-np.log2(np.minimum(share, 1)).mean()) if len(shown) else float("nan"),  # bits
        "users_per_second": len(histories) / seconds,
    }
    return Figures(values, beyond)


def next_figures(ranks: np.ndarray) -> np.ndarray:
    """float64 [4, Q]: `NEXT_METRICS` by the ranks [Q] of the items that came next; rank 0 is a miss."""
    hit = ranks > 0
    gain = np.where(hit, 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0)
    first_ten = hit & (ranks <= 10)
    return np.stack([first_ten.astype(float), hit.astype(float), np.where(first_ten, gain, 0.0), gain])
