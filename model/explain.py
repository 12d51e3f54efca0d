"""Why a model lists an item: by how much its score would be lower, had an interaction not happened.

The result is exact: the history is scored again without one interaction at a time, and the weights of the others are as
if it had not happened. All shortened histories of a user go through the sampler's hidden space together, and the output
layer is read at the listed items only; the mean and the deviation of the network's scores come from precomputed
moments.

Legend: B users, L places of a history, T places left out in turn, K items listed, R reasons of an item.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.batch import Histories, joined, without
from model.recommend import Recommender

__all__ = ["Reasons", "because", "left_out", "reasons"]

TRIED = 20  # newest interactions that are left out in turn; older ones have little weight


class Reasons(NamedTuple):
    """For each listed item the interactions that raise its score most, the largest first."""

    places: np.ndarray  # int64 [B, K, R] in the history, 0 the newest; -1 where no other one raises the score
    amounts: np.ndarray  # float32 [B, K, R]: the score less the score without it; 0 at -1


def reasons(
    recommender: Recommender, histories: Histories, columns: np.ndarray, count: int, tried: int = TRIED
) -> Reasons:
    """For each of the items `columns` [B, K] (-1: none), the `count` of the `tried` newest interactions that raise its
    score most.

    `histories` hold known items only, as `pack` makes them.
    """
    owed = left_out(recommender, histories, columns, tried)  # [B, T, K]
    owed = np.where(columns[:, None, :] >= 0, owed, 0.0).transpose(0, 2, 1)  # [B, K, T]
    best = np.argsort(-owed, axis=2, kind="stable")[:, :, :count]
    amounts = np.take_along_axis(owed, best, axis=2)
    places = np.where(amounts > 0, best, -1)
    short = ((0, 0), (0, 0), (0, count - best.shape[2]))
    return Reasons(
        np.pad(places, short, constant_values=-1), np.pad(np.maximum(amounts, 0.0), short).astype(np.float32)
    )


@torch.inference_mode()
def left_out(recommender: Recommender, histories: Histories, columns: np.ndarray, tried: int = TRIED) -> np.ndarray:
    """float32 [B, T, K]: the score of each item of `columns` [B, K], less its score without the interaction at place T;
    0 where there is none. T is `tried`, or less when no history is as long."""
    lengths = histories.lengths
    most = min(tried, int(lengths.max(initial=0)))
    owed = np.zeros((len(histories), most, columns.shape[1]), dtype=np.float32)
    per_user = (most + 1) * max(len(recommender.items), 1)
    at_once = max(recommender.scorer.limits.scores // per_user, 1)
    for first in range(0, len(histories) if most and columns.shape[1] else 0, at_once):
        rows = np.arange(first, min(first + at_once, len(histories)))
        block, asked = histories.select(rows), torch.from_numpy(columns[rows]).to(recommender.device)
        scores = _scores_without(recommender, block, asked.clamp(min=0), most)  # [1 + T, b, K]
        there = torch.arange(most, device=scores.device)[:, None] < torch.from_numpy(lengths[rows]).to(scores.device)
        found = (scores[:1] - scores[1:]) * there[:, :, None]
        owed[rows] = found.transpose(0, 1).cpu().numpy()
    return owed


def _scores_without(recommender: Recommender, histories: Histories, asked: Tensor, most: int) -> Tensor:
    """[1 + T, B, K]: scores of the whole histories, then of those without the interaction at places 0 .. T - 1."""
    scorer = recommender.scorer
    variants = joined([histories, *(without(histories, place) for place in range(most))])
    batch = recommender.padded(variants)  # [(1 + T) B, L]
    state = scorer.chain.run(batch.columns, recommender.weights(batch))
    asked = asked.repeat(most + 1, 1)  # [(1 + T) B, K]
    scores = scorer.output.at(state.v, state.u, asked)
    if scorer.item_item is not None:
        mean, deviation = scorer.output.mean_and_std(state.v, state.u)
        sums = scorer.item_item.prepare(batch.columns, batch.strengths)
        scores = (1 - scorer.share) * (scores - mean) / deviation + scorer.share * sums.standardised(asked)
    return scores.unflatten(0, (most + 1, len(histories)))


def because(recommender: Recommender, history: Histories, columns: np.ndarray) -> np.ndarray:
    """int64 [K]: for each of `columns` [K] the place in the history (0 the newest) whose interaction raises the score
    most; -1 where no interaction raises it.

    `history` is that of one user.
    """
    if not len(columns):
        return np.full(0, -1, dtype=np.int64)
    return reasons(recommender, history.known(), columns[None, :], 1).places[0, :, 0]
