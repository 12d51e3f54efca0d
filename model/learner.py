"""A model that can be trained further: weights, their average, optimizer moments, and all else that a round needs.

Legend: B users in a batch, I items.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.batch import Histories
from model.config import ModelConfig
from model.device import multiplies_bfloat16
from model.diffusion import examples
from model.distributed import gathered, process_count, process_rank
from model.errors import ModelError
from model.growth import widen_moments, widen_network, widen_rows
from model.item_item import item_item_weights
from model.items import ItemIndex
from model.latent import LatentDenoiser, LatentObjective
from model.network import Network, build_network
from model.recommend import Recommender
from model.schedule import NoiseSchedule
from model.step_sampler import StepSampler
from model.training import EpochReport, FitReport, batch_users, build_objective

__all__ = ["Learner"]

_CLIP_NORM = 100.0


class Learner:
    """Use `fresh` for a new model. `model.artifact` stores and loads a learner; on a CPU a loaded one continues with
    identical results.

    Under `torchrun` every process has the same learner and calls `fit` with the same histories: each batch is divided
    among the processes, DistributedDataParallel averages the gradients, and all end with the same weights.
    """

    def __init__(
        self,
        config: ModelConfig,
        items: ItemIndex,
        generator: torch.Generator,
        device: torch.device,
        clusters: Tensor | None = None,
    ) -> None:
        self.config, self.items, self.generator, self.device = config, items, generator, device
        self.denoiser = build_network(config, len(items), clusters).to(device)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.schedule = NoiseSchedule(config.schedule).to(device)
        self.step_sampler = StepSampler(config.schedule.steps, config.importance).to(device)
        self.optimizer = self._optimizer()
        precision = config.training_precision
        self.trains_in_bfloat16 = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device))
        self.updates = 0  # optimizer steps taken
        self.passes = 0  # epochs begun
        self.neighbours: Tensor | None = None
        self.neighbour_weights: Tensor | None = None

    @classmethod
    def fresh(
        cls,
        config: ModelConfig,
        items: ItemIndex,
        *,
        seed: int,
        device: torch.device,
        clusters: Tensor | None = None,
    ) -> Learner:
        """A learner with random weights. `clusters` int64 [I] are for the latent variants, see
        `model.latent.cluster_items`."""
        generator = torch.Generator(device).manual_seed(seed)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return cls(config, items, generator, device, clusters)

    def _optimizer(self) -> torch.optim.AdamW:
        config = self.config
        groups: list[dict[str, Any]] = [{"params": list(self.denoiser.parameters())}]
        if isinstance(self.denoiser, LatentDenoiser):
            inner = list(self.denoiser.inner.parameters())
            coder = [*self.denoiser.encode.parameters(), *self.denoiser.decode.parameters()]
            groups = [{"params": inner}, {"params": coder, "lr": self.denoiser.config.learning_rate}]
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)

    # -- learning ------------------------------------------------------------------------------------------------------

    def fit(
        self,
        histories: Histories,
        *,
        epochs: int,
        on_epoch: Callable[[EpochReport], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> FitReport:
        """Train on histories (algorithm 1 of the paper), and compute the item-item term from them.

        `stop` is asked before every batch. Raises `ModelError` when no history holds a known item.
        """
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        histories = histories.known()
        rows = np.flatnonzero(histories.lengths > 0)
        if not len(rows):
            raise ModelError("there is nothing to learn from: no history holds a known item")
        histories = histories.select(rows).newest(self.config.history_items)
        objective = build_objective(self.denoiser, self.schedule, self.config)
        reports = []
        for epoch in range(1, epochs + 1):
            report = self._epoch(epoch, histories, objective, stop)
            if report is None:
                break
            reports.append(report)
            if on_epoch is not None:
                on_epoch(report)
        if not reports:
            return FitReport((EpochReport(0, float("nan"), float("nan"), 0),), stopped=True)
        if self.config.item_item.share > 0 and not stop():
            self.neighbours, self.neighbour_weights = item_item_weights(
                histories, len(self.items), self.config.item_item, self.device
            )
        return FitReport(tuple(reports), stopped=len(reports) < epochs)

    def _epoch(
        self, number: int, histories: Histories, objective: nn.Module, stop: Callable[[], bool]
    ) -> EpochReport | None:
        """One pass through the users in random order; None when `stop` ended it."""
        self.passes += 1
        users = len(histories)
        order = torch.randperm(users, generator=self.generator, device=self.device).cpu().numpy()
        losses, norms, dropped = [], [], 0
        size = batch_users(self.config, len(self.items), users)
        processes, rank = process_count(), process_rank()
        for start in range(0, users, size):
            if stop():
                return None
            rows = order[start : start + size]
            if len(rows) < processes:
                break
            # Equal shares, so that the mean of the processes' gradients is that of the batch.
            rows = np.sort(rows[rank : len(rows) // processes * processes : processes])
            result = self._step(histories.select(rows), objective)
            if result is None:
                dropped += 1
            else:
                losses.append(result[0])
                norms.append(result[1])
        if not losses:
            return EpochReport(number, float("nan"), float("nan"), dropped)
        return EpochReport(number, float(torch.stack(losses).mean()), float(torch.stack(norms).mean()), dropped)

    def _step(self, histories: Histories, objective: nn.Module) -> tuple[Tensor, Tensor] | None:
        """One update: (relative squared error, gradient norm), or None when the gradient was not finite: the weights
        then stay unchanged."""
        # The learner's generator advances in the same way in all processes; each process draws the noise of its users
        # from a generator of its own.
        seed = int(torch.randint(2**62, (1,), generator=self.generator, device=self.device))
        generator = torch.Generator(self.device).manual_seed(seed + process_rank())
        batch = histories.padded(self.device)
        example = examples(batch, self.config, len(self.items), generator)
        steps, weights = self.step_sampler.draw(len(batch.lengths), generator)
        inner = objective.module if isinstance(objective, DistributedDataParallel) else objective
        if isinstance(inner, LatentObjective):
            inner.passes, inner.updates = self.passes - 1, self.updates
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.trains_in_bfloat16):
            loss, losses, relative = objective(example.x0, example.target, steps, weights, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [parameter.grad for parameter in self.denoiser.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not (length := float(norm)) < float("inf"):
            return None
        if length > _CLIP_NORM:  # rarely true, and the pass over all gradients costs more than this check
            nn.utils.clip_grads_with_norm_(self.denoiser.parameters(), _CLIP_NORM, norm)
        self.optimizer.step()
        self.step_sampler.record(*gathered(steps, losses.float()))
        self.updates += 1
        self._update_average()
        return relative, norm

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged weights towards the current ones, after an optimizer step."""
        if not self.config.ema:
            return
        # At first the average follows faster, so that the random start soon has no weight in it.
        decay = min(self.config.ema, (1 + self.updates) / (10 + self.updates))
        own: list[Tensor] = list(self.denoiser.parameters())
        average: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(average, own, 1 - decay)

    @torch.no_grad()
    def loss_ratio(self, histories: Histories, first: int, last: int) -> float:
        """Squared error over that of predicting zero, at the diffusion steps `first` to `last` - 1. The weights stay
        unchanged.

        NaN when no history holds a known item. Only as many users are used as fit into one batch.
        """
        histories = histories.known()
        rows = np.flatnonzero(histories.lengths > 0)[: batch_users(self.config, len(self.items), len(histories))]
        if not len(rows):
            return float("nan")
        batch = histories.select(rows).padded(self.device, self.config.history_items)
        generator = torch.Generator(self.device).manual_seed(0)
        example = examples(batch, self.config, len(self.items), generator)
        steps = first + torch.arange(len(rows), device=self.device) % (last - first)
        weights = torch.ones(len(rows), device=self.device)
        self.denoiser.eval()
        try:
            objective = build_objective(self.denoiser, self.schedule, self.config)
            return float(objective(example.x0, example.target, steps, weights, generator)[2])
        finally:
            self.denoiser.train()

    # -- growing -------------------------------------------------------------------------------------------------------

    def grow(self, items: Iterable[str]) -> int:
        """Add columns for unknown items; returns how many. Old weights and their optimizer moments stay the same.

        `model.growth.widen_network` says with which weights new items start.
        """
        before = len(self.items)
        self.items = self.items.grown(items)
        added = len(self.items) - before
        if not added:
            return 0
        moments = {name: self.optimizer.state[parameter] for name, parameter in self.denoiser.named_parameters()}
        for network in (self.denoiser, self.average):
            widen_network(network, added)
        self.optimizer = self._optimizer()
        for name, parameter in self.denoiser.named_parameters():
            self.optimizer.state[parameter] = widen_moments(moments[name], name, parameter)
        self.neighbours = widen_rows(self.neighbours, added)
        self.neighbour_weights = widen_rows(self.neighbour_weights, added)
        return added

    # -- serving -------------------------------------------------------------------------------------------------------

    @property
    def served(self) -> Network:
        """The averaged weights, or the last ones where none are averaged."""
        return self.average if self.config.ema else self.denoiser

    def recommender(self, version: str) -> Recommender:
        """A frozen copy of the weights that serve. Raises `ModelError` when they are not finite."""
        served = copy.deepcopy(self.served)
        return Recommender(version, self.items, self.config, served, self.neighbours, self.neighbour_weights)
