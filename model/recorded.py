"""The ranking of a small catalogue on a CPU as one call of a recorded graph.

Each of the hundred operators of a ranking releases Python's global lock, and then waits for it while the threads of the
Kafka clients have it. All of these waits take several times as long as the computation; a graph releases the lock once.

The graph is recorded by TorchScript, which is no longer developed: its successors need a C++ compiler where they run.

Legend: B users, L places of a history, K recommended.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from model.sampler import HiddenChain
from model.scoring import CatalogueScorer, largest

__all__ = ["RecordedRanking"]


class RecordedRanking:
    """Records one graph for each `k` and kind of answer, when it is first asked for."""

    def __init__(self, scorer: CatalogueScorer, decay: Tensor) -> None:
        self._scorer, self._decay = scorer, decay
        self._graphs: dict[tuple[str, int], Callable[..., tuple[Tensor, ...]]] = {}  # by what they give, and k

    @staticmethod
    def supports(scorer: CatalogueScorer, device: torch.device) -> bool:
        """Whether this model can be recorded on this device."""
        return (
            device.type == "cpu"
            and scorer.in_one_block
            and isinstance(scorer.chain, HiddenChain)
            and scorer.item_item is not None
            and hasattr(torch.jit, "trace")
        )

    def best(
        self, k: int, columns: Tensor, strengths: Tensor, seen_users: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Columns and scores [B, K] for places [B, L]."""
        best, values = self._graph("best", k, columns, strengths, seen_users, seen)
        return best, values

    def best_with_terms(
        self, k: int, columns: Tensor, strengths: Tensor, seen_users: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `best`, and the z-scores [B, I] of the network and of the item-item term, of which scores are the mix."""
        best, values, network, item_item = self._graph("terms", k, columns, strengths, seen_users, seen)
        return best, values, network, item_item

    def _graph(self, what: Literal["best", "terms"], k: int, *given: Tensor) -> tuple[Tensor, ...]:
        graph = self._graphs.get((what, k))
        if graph is None:

            def rank_block(*given: Tensor) -> tuple[Tensor, ...]:  # the recorder wants a function with a name
                return self._rank_block(k, *given) if what == "best" else self._rank_with_terms(k, *given)

            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`torch.jit.trace` is deprecated")
                warnings.filterwarnings("ignore", "Converting a tensor")  # in branches on the number of items
                graph = self._graphs[what, k] = torch.jit.trace(rank_block, given, check_trace=False)
        return graph(*given)

    def _rank_block(
        self, k: int, columns: Tensor, strengths: Tensor, seen_users: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights = self._decay[: columns.shape[1]] * strengths
        ((_, block),) = self._scorer.blocks(columns, strengths, weights, seen_users, seen)
        values, best = largest(block, min(k, self._scorer.items))
        return best, values

    def _rank_with_terms(
        self, k: int, columns: Tensor, strengths: Tensor, seen_users: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weights = self._decay[: columns.shape[1]] * strengths
        return self._scorer.best_with_terms(k, columns, strengths, weights, seen_users, seen)
