"""A model that keeps learning: weights, their average, the optimizer's moments, and everything else a round needs.

Legend: B users in a batch, I items.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.batch import Histories
from model.config import ModelConfig
from model.denoiser import Denoiser
from model.device import multiplies_bfloat16
from model.diffusion import DiffusionObjective, examples
from model.distributed import process_count, process_rank
from model.errors import ModelError
from model.item_item import item_item_weights
from model.items import ItemIndex
from model.latent import LatentDenoiser, LatentObjective
from model.recommend import Network, Recommender
from model.schedule import NoiseSchedule
from model.step_sampler import StepSampler

__all__ = ["EpochReport", "FitReport", "Learner", "build_network"]

_CATALOGUE = {
    "encode.weight": 1,
    "decode.weight": 0,
    "decode.bias": 0,
    "clusters": 0,
}  # the dimension that counts items
_CLIP_NORM = 100.0
_CELLS_PER_BATCH = 1 << 27  # of the dense users x items batch: 512 MiB a tensor


@dataclass(frozen=True)
class EpochReport:
    """What one pass through the users did."""

    epoch: int  # from 1
    loss: float  # squared error over that of predicting zero: 1 has learnt nothing
    gradient_norm: float  # mean before clipping
    dropped_batches: int  # for a loss or gradient that was not finite


@dataclass(frozen=True)
class FitReport:
    """What a call of `fit` did, by epoch."""

    epochs: tuple[EpochReport, ...]
    stopped: bool  # ended by the caller before all epochs

    @property
    def first(self) -> EpochReport:
        return self.epochs[0]

    @property
    def last(self) -> EpochReport:
        return self.epochs[-1]

    @property
    def dropped_batches(self) -> int:
        return sum(epoch.dropped_batches for epoch in self.epochs)


def build_network(config: ModelConfig, items: int, clusters: Tensor | None = None) -> Network:
    """The denoiser over items (section 3.1), or over the latents of `clusters` int64 [I] (section 3.4)."""
    if config.latent is None:
        return Denoiser(items, config.dims, config.embedding, config.dropout)
    return LatentDenoiser(items, config.dims, config.embedding, config.dropout, config.latent, clusters)


class Learner:
    """Use `fresh` for a new model; `model.artifact` stores one and brings it back, to continue bit for bit on a CPU.

    Under `torchrun` every process holds the same learner and calls `fit` with the same histories: each batch is shared
    out among them, gradients are averaged by DistributedDataParallel, and all end with the same weights.
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
        self._half = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device))
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
        """Random weights. `clusters` int64 [I] are for the latent variants, see `model.latent.cluster_items`."""
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
        """Train on histories (algorithm 1 of the paper) and take the item-item term from them.

        `stop` is asked before every batch. Raises `ModelError` when no history holds a known item.
        """
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        histories = histories.known()
        rows = np.flatnonzero(histories.lengths > 0)
        if not len(rows):
            raise ModelError("there is nothing to learn from: no history holds a known item")
        histories = histories.select(rows).newest(self.config.history_items)
        objective = self._objective()
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

    def _objective(self) -> nn.Module:
        objective: nn.Module
        if isinstance(self.denoiser, LatentDenoiser):
            objective = LatentObjective(self.denoiser, self.schedule, self.config.reweight)
        else:
            objective = DiffusionObjective(self.denoiser, self.schedule, self.config)
        return DistributedDataParallel(objective, broadcast_buffers=False) if process_count() > 1 else objective

    def _batch_users(self, users: int) -> int:
        wanted = min(self.config.batch_users, -(-users // self.config.least_batches))
        return max(min(wanted, _CELLS_PER_BATCH // max(len(self.items), 1)), 1)

    def _epoch(
        self, epoch: int, histories: Histories, objective: nn.Module, stop: Callable[[], bool]
    ) -> EpochReport | None:
        self.passes += 1
        order = torch.randperm(len(histories), generator=self.generator, device=self.device).cpu().numpy()
        losses, norms, dropped = [], [], 0
        size, processes, mine = self._batch_users(len(order)), process_count(), process_rank()
        for start in range(0, len(order), size):
            if stop():
                return None
            rows = order[start : start + size]
            if len(rows) < processes:
                break
            # Equal shares, so that the mean of the processes' gradients is that of the batch.
            rows = np.sort(rows[mine : len(rows) // processes * processes : processes])
            result = self._update(histories.select(rows), objective)
            if result is None:
                dropped += 1
            else:
                losses.append(result[0])
                norms.append(result[1])
        if not losses:
            return EpochReport(epoch, float("nan"), float("nan"), dropped)
        return EpochReport(epoch, float(torch.stack(losses).mean()), float(torch.stack(norms).mean()), dropped)

    def _update(self, histories: Histories, objective: nn.Module) -> tuple[Tensor, Tensor] | None:
        """One step: (relative squared error, gradient norm), or None when it was not finite and left no trace."""
        # The learner's generator advances alike in all processes; each draws its users' noise from one of its own.
        seed = int(torch.randint(2**62, (1,), generator=self.generator, device=self.device))
        generator = torch.Generator(self.device).manual_seed(seed + process_rank())
        batch = histories.padded(self.device)
        example = examples(batch, self.config, len(self.items), generator)
        steps, weights = self.step_sampler.draw(len(batch.lengths), generator)
        inner = objective.module if isinstance(objective, DistributedDataParallel) else objective
        if isinstance(inner, LatentObjective):
            inner.passes, inner.updates = self.passes - 1, self.updates
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            loss, losses, relative = objective(example.x0, example.target, steps, weights, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [parameter.grad for parameter in self.denoiser.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not (length := float(norm)) < float("inf"):
            return None
        if length > _CLIP_NORM:  # rarely, and the pass over all gradients costs more than the question
            nn.utils.clip_grads_with_norm_(self.denoiser.parameters(), _CLIP_NORM, norm)
        self.optimizer.step()
        self.step_sampler.record(*_gathered(steps, losses.float()))
        self.updates += 1
        self._follow()
        return relative, norm

    @torch.no_grad()
    def _follow(self) -> None:
        if not self.config.ema:
            return
        # Early on the average follows faster, so that it never carries the random start for long.
        decay = min(self.config.ema, (1 + self.updates) / (10 + self.updates))
        own: list[Tensor] = list(self.denoiser.parameters())
        average: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(average, own, 1 - decay)

    @torch.no_grad()
    def loss_ratio(self, histories: Histories, first: int, last: int) -> float:
        """Squared error over that of predicting zero, at the diffusion steps `first` to `last` - 1. Learns nothing.

        NaN when no history holds a known item. Of so many users as one batch may hold.
        """
        histories = histories.known()
        rows = np.flatnonzero(histories.lengths > 0)[: self._batch_users(len(histories))]
        if not len(rows):
            return float("nan")
        batch = histories.select(rows).padded(self.device, self.config.history_items)
        generator = torch.Generator(self.device).manual_seed(0)
        example = examples(batch, self.config, len(self.items), generator)
        steps = first + torch.arange(len(rows), device=self.device) % (last - first)
        weights = torch.ones(len(rows), device=self.device)
        self.denoiser.eval()
        try:
            return float(self._objective()(example.x0, example.target, steps, weights, generator)[2])
        finally:
            self.denoiser.train()

    # -- growing -------------------------------------------------------------------------------------------------------

    def grow(self, items: Iterable[str]) -> int:
        """Add columns for unknown items; returns how many. Old weights and their optimizer moments do not move.

        A new item starts with random input weights of the old ones' size and, so that it is neither pushed nor buried,
        with the mean output row and bias of the old ones. In the latent variants it joins the smallest cluster.
        """
        before = len(self.items)
        self.items = self.items.grown(items)
        added = len(self.items) - before
        if not added:
            return 0
        moments = {name: self.optimizer.state[parameter] for name, parameter in self.denoiser.named_parameters()}
        for model in (self.denoiser, self.average):
            for name, rows in self._newcomers(model, added).items():
                layer, _, kind = name.rpartition(".")
                owner = model.get_submodule(layer)
                old = getattr(owner, kind)
                wider = torch.cat([old.data, rows.to(old)], _CATALOGUE[name])
                setattr(owner, kind, nn.Parameter(wider, old.requires_grad) if isinstance(old, nn.Parameter) else wider)
            model.encode.in_features = model.decode.out_features = len(self.items)
        self.optimizer = self._optimizer()
        for name, parameter in self.denoiser.named_parameters():
            self.optimizer.state[parameter] = _widened(moments[name], parameter, _CATALOGUE.get(name))
        self._widen_neighbours(added)
        return added

    def _newcomers(self, model: Network, added: int) -> dict[str, Tensor]:
        encode, decode = model.encode.weight.detach(), model.decode
        random = torch.Generator().manual_seed(len(self.items))
        rows: dict[str, Tensor] = {}
        if encode.shape[1]:
            rows["encode.weight"] = torch.randn(len(encode), added, generator=random) * encode.std().cpu()
            rows["decode.weight"] = decode.weight.detach().mean(0, keepdim=True).expand(added, -1)
            rows["decode.bias"] = decode.bias.detach().mean().expand(added)
        else:  # the first items of all: Xavier-normal
            for name, shape in (
                ("encode.weight", (len(encode), added)),
                ("decode.weight", (added, decode.in_features)),
            ):
                rows[name] = torch.randn(shape, generator=random) * (2 / sum(shape)) ** 0.5
            rows["decode.bias"] = torch.zeros(added)
        if isinstance(model, LatentDenoiser):
            sizes = torch.bincount(model.clusters, minlength=model.config.clusters)
            rows["clusters"] = sizes.argmin().expand(added)
        return rows

    def _widen_neighbours(self, added: int) -> None:
        if self.neighbours is None or self.neighbour_weights is None:
            return
        shape = (added, self.neighbours.shape[1])
        self.neighbours = torch.cat([self.neighbours, self.neighbours.new_zeros(shape)])
        self.neighbour_weights = torch.cat([self.neighbour_weights, self.neighbour_weights.new_zeros(shape)])

    # -- serving -------------------------------------------------------------------------------------------------------

    @property
    def served(self) -> Network:
        """The averaged weights, or the last ones where none are averaged."""
        return self.average if self.config.ema else self.denoiser

    def recommender(self, version: str) -> Recommender:
        """A frozen copy of the weights that serve. Raises `ModelError` when they are not finite."""
        served = copy.deepcopy(self.served)
        return Recommender(version, self.items, self.config, served, self.neighbours, self.neighbour_weights)


def _widened(state: dict, parameter: nn.Parameter, dimension: int | None) -> dict:
    if dimension is None or "exp_avg" not in state:
        return state
    wider = dict(state)
    for moment in ("exp_avg", "exp_avg_sq"):
        grown = torch.zeros_like(parameter.data)
        grown.narrow(dimension, 0, state[moment].shape[dimension]).copy_(state[moment])
        wider[moment] = grown
    return wider


def _gathered(*values: Tensor) -> list[Tensor]:
    """Each tensor joined with those of the other processes, in the order of their ranks."""
    if process_count() == 1:
        return list(values)
    joined = []
    for value in values:
        parts = [torch.empty_like(value) for _ in range(process_count())]
        distributed.all_gather(parts, value.contiguous())
        joined.append(torch.cat(parts))
    return joined
