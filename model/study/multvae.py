"""The baseline MultVAE (Liang et al. 2018): a variational autoencoder with multinomial likelihood.

Legend: B users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from model.batch import Histories
from model.denoiser import dropped
from model.diffusion import dense_rows
from model.items import ItemIndex
from model.ranker import Ranked
from model.study.linear import top_unseen
from model.weighting import Weighting

__all__ = ["MultVae", "MultVaeConfig"]


@dataclass(frozen=True)
class MultVaeConfig:
    """The authors' defaults."""

    hidden: int = 600
    latent: int = 200
    dropout: float = 0.5
    kl_cap: float = 0.2
    kl_updates: int = 2_000  # optimizer steps until the KL divergence has the weight `kl_cap`
    learning_rate: float = 1e-3
    batch_users: int = 500
    weighting: Weighting = field(default_factory=Weighting)


class _Network(nn.Module):
    def __init__(self, items: int, config: MultVaeConfig) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Linear(items, config.hidden), nn.Tanh(), nn.Linear(config.hidden, 2 * config.latent)
        )
        self.decode = nn.Sequential(nn.Linear(config.latent, config.hidden), nn.Tanh(), nn.Linear(config.hidden, items))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.normal_(module.bias, 0.0, 0.001)


class MultVae:
    """The model. Each `fit` continues where the previous one stopped."""

    def __init__(self, items: ItemIndex, config: MultVaeConfig, *, seed: int, device: torch.device) -> None:
        self.items, self.config, self.device = items, config, device
        self._generator = torch.Generator(device).manual_seed(seed)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self._network = _Network(len(items), config).to(device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=config.learning_rate)
        self._updates = 0

    def fit(self, histories: Histories, *, epochs: int) -> MultVae:
        """Maximise the evidence bound (equation 7) over B histories, with the KL divergence annealed to `kl_cap`."""
        histories = histories.known()
        rows = np.flatnonzero(histories.lengths > 0)
        for _ in range(epochs):
            order = torch.randperm(len(rows), generator=self._generator, device=self.device).cpu().numpy()
            for start in range(0, len(rows), self.config.batch_users):
                self._update(self._dense(histories.select(rows[order[start : start + self.config.batch_users]])))
        return self

    def _dense(self, histories: Histories) -> Tensor:
        """Weighted interactions [B, I]."""
        batch = histories.padded(self.device)
        place = torch.arange(batch.columns.shape[1], device=self.device).expand_as(batch.columns)
        weights = self.config.weighting(place, batch.lengths, batch.times_ms) * batch.strengths
        return dense_rows(batch.columns, weights, len(self.items))

    def _update(self, x: Tensor) -> None:
        config = self.config
        hidden = self._network.encode(dropped(nn.functional.normalize(x), config.dropout, self._generator))
        means, log_variances = hidden.chunk(2, 1)
        noise = torch.randn(means.shape, generator=self._generator, device=self.device)
        logits = self._network.decode(means + noise * (log_variances / 2).exp())
        likelihood = (nn.functional.log_softmax(logits, 1) * x).sum(1).mean()
        divergence = 0.5 * (log_variances.exp() + means.square() - 1 - log_variances).sum(1).mean()
        annealed = config.kl_cap * min(1.0, self._updates / config.kl_updates)
        self._optimizer.zero_grad(set_to_none=True)
        (annealed * divergence - likelihood).backward()
        self._optimizer.step()
        self._updates += 1

    @torch.inference_mode()
    def rank(self, histories: Histories, k: int) -> Ranked:
        """Columns and scores [B, K] by the decoder's logits for the mean latent."""
        histories = histories.known()
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for start in range(0, len(histories), self.config.batch_users):
            rows = np.arange(start, min(start + self.config.batch_users, len(histories)))
            part = histories.select(rows)
            means = self._network.encode(nn.functional.normalize(self._dense(part))).chunk(2, 1)[0]
            ranked = top_unseen(self._network.decode(means).cpu(), part, k)
            columns[rows], scores[rows] = ranked.columns, ranked.scores
        return Ranked(columns, scores)
