"""The small network that orders candidates, trained on the items that users met next.

A candidate's score is x s + x W c + g(x, c), with features x of the candidate and c of the user: fixed start weights s,
weights that depend on the user, and a small correction that depends on both. W and g begin at 0, so that training on
few examples cannot make it much worse than its start.

Legend: B users, M candidates, F features of a candidate, G features of a user, Q questions that were answered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Examples", "Reranker", "RerankerConfig", "fit_reranker"]


@dataclass(frozen=True)
class RerankerConfig:
    hidden: int = 24
    """Width of its hidden layers."""
    epochs: int = 4
    """Passes over the examples."""
    updates: int = 150
    """Least optimizer steps, however few examples there are."""
    learning_rate: float = 0.005
    """Learning rate of AdamW, which falls to a fiftieth of it."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    batch: int = 256
    """Examples per step."""
    least_examples: int = 200
    """Answered examples without which nothing is learnt."""

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "updates", "learning_rate", "batch", "least_examples"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class Examples:
    """Q questions: candidates and users as they were when a list was made, and the candidate that came next."""

    items: np.ndarray  # float32 or float16 [Q, M, F]
    users: np.ndarray  # float32 [Q, G]
    valid: np.ndarray  # bool [Q, M]
    answers: np.ndarray  # int64 [Q], place of the item that came, -1 where it was no candidate
    modelled: np.ndarray  # int64 [Q], how many of the first candidates are the model's list, best first

    def __len__(self) -> int:
        return len(self.answers)

    def select(self, rows: np.ndarray) -> Examples:
        """These questions, in this order."""
        return Examples(self.items[rows], self.users[rows], self.valid[rows], self.answers[rows], self.modelled[rows])

    @classmethod
    def joined(cls, parts: list[Examples]) -> Examples:
        """All questions of parts with the same features, padded to the longest list of candidates."""
        width = max(part.valid.shape[1] for part in parts)

        def padded(values: np.ndarray) -> np.ndarray:
            return np.pad(values, [(0, 0), (0, width - values.shape[1])] + [(0, 0)] * (values.ndim - 2))

        return cls(
            np.concatenate([padded(part.items) for part in parts]),
            np.concatenate([part.users for part in parts]),
            np.concatenate([padded(part.valid) for part in parts]),
            np.concatenate([part.answers for part in parts]),
            np.concatenate([part.modelled for part in parts]),
        )


class Reranker(nn.Module):
    """Scores of candidates [B, M]."""

    def __init__(self, start: Tensor, users: int, hidden: int) -> None:
        """`start` float32 [F] are the weights of the features before training."""
        super().__init__()
        features = len(start)
        self.start: Tensor
        self.register_buffer("start", start.float().clone())
        self.weights = nn.Parameter(torch.zeros(features, users))
        self.first_items = nn.Linear(features, hidden)
        self.first_users = nn.Linear(users, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, items: Tensor, users: Tensor) -> Tensor:
        """Scores [B, M] from features [B, M, F] and [B, G]."""
        linear = torch.bmm(items, (self.start + users @ self.weights.T)[:, :, None])[..., 0]
        hidden = (self.first_items(items) + self.first_users(users)[:, None, :]).tanh_()
        return linear + self.last(self.second(hidden).tanh_())[..., 0]

    @torch.inference_mode()
    def scores(self, items: np.ndarray, users: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """float32 [B, M], -inf where there is no candidate."""
        found = self(torch.from_numpy(items), torch.from_numpy(users)).numpy()
        return np.where(valid, found, -np.inf)

    @property
    def finite(self) -> bool:
        """Whether every weight is finite."""
        return all(bool(torch.isfinite(values).all()) for values in self.state_dict().values())


def fit_reranker(
    reranker: Reranker,
    examples: Examples,
    config: RerankerConfig,
    *,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
) -> Reranker:
    """A copy that was trained on the questions whose answer was a candidate, by the likelihood of the answer among the
    candidates. Returns the same object when there are too few such questions, or when `stop` returns True.
    """
    rows = np.flatnonzero(examples.answers >= 0)
    if len(rows) < config.least_examples:
        return reranker
    learnt = copy.deepcopy(reranker).train()
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in (learnt.first_items, learnt.first_users, learnt.second):
            layer.reset_parameters()
        nn.init.zeros_(learnt.last.weight)
    optimizer = torch.optim.AdamW(learnt.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    epochs = max(config.epochs, -(-config.updates // -(-len(rows) // config.batch)))
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - epoch / epochs) + config.learning_rate / 50
        order = rng.permutation(rows)
        for start in range(0, len(order), config.batch):
            if stop():
                return reranker
            batch = examples.select(order[start : start + config.batch])
            scores = learnt(torch.from_numpy(batch.items).float(), torch.from_numpy(batch.users))
            scores = scores.masked_fill(~torch.from_numpy(batch.valid), -torch.inf)
            loss = functional.cross_entropy(scores, torch.from_numpy(batch.answers))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return learnt.eval()
