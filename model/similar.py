"""The items that are similar to an item, for the page of that item; they do not depend on a user.

Two scores are mixed, as z-scores over the catalogue and with the same share as in every list: the cosine of the output
layer's rows of two items, less the mean of all rows; and the item-item term for a user who has met only the item.

Legend: B items asked about, I items, H numbers of an output row, K similar items.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from model.ranker import Ranked
from model.recommend import Recommender
from model.scoring import mean_and_std

__all__ = ["SimilarItems"]

_SCORES = 1 << 22  # dense scores held at a time: 16 MiB


class SimilarItems:
    """Similar items by one frozen model."""

    @torch.inference_mode()
    def __init__(self, recommender: Recommender) -> None:
        scorer = recommender.scorer
        self._item_item, share = scorer.item_item, recommender.config.item_item.share
        self._share = 0.0 if self._item_item is None else share
        rows = scorer.output.rows(torch.arange(len(recommender.items), device=recommender.device))
        self._unit = functional.normalize(rows - rows.mean(0), dim=1)  # [I, H]

    @property
    def at_once(self) -> int:
        """How many items one call of `rank` takes without needing much memory."""
        return max(_SCORES // max(len(self._unit), 1), 1)

    @torch.inference_mode()
    def rank(self, columns: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Ranked:
        """The `k` items [B, K] most similar to each of `columns` [B], without the item itself; only `allowed` ones
        (bool [I])."""
        asked = torch.from_numpy(columns).to(self._unit.device)
        scores = _standardised(self._unit[asked] @ self._unit.T)  # [B, I]
        if self._item_item is not None and self._share > 0:
            alone = torch.ones(len(columns), 1, device=scores.device)
            sums = self._item_item.prepare(asked[:, None], alone).sums(0, len(self._unit))
            scores = (1 - self._share) * scores + self._share * _standardised(sums)
        scores[torch.arange(len(columns), device=scores.device), asked] = -torch.inf
        if allowed is not None:
            scores[:, torch.from_numpy(~allowed).to(scores.device)] = -torch.inf
        best = scores.topk(min(k, scores.shape[1]), dim=1)
        values, found = best.values.cpu().numpy(), best.indices.cpu().numpy()
        return Ranked(np.where(values == -np.inf, -1, found), values)


def _standardised(scores: torch.Tensor) -> torch.Tensor:
    mean, deviation = mean_and_std(scores)
    return (scores - mean) / deviation
