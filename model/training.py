"""The size of batches and the loss of a pass over the users, and the report of a pass.

Legend: B users in a batch, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.config import ModelConfig
from model.diffusion import DiffusionObjective
from model.distributed import process_count
from model.latent import LatentDenoiser, LatentObjective
from model.network import Network
from model.schedule import NoiseSchedule

__all__ = ["EpochReport", "FitReport", "batch_users", "build_objective"]

_CELLS_PER_BATCH = 1 << 27  # of the dense users x items batch: 512 MiB a tensor


@dataclass(frozen=True)
class EpochReport:
    """Summary of one pass through the users."""

    epoch: int  # from 1
    loss: float  # squared error over that of predicting zero: with 1 the model has learnt nothing
    gradient_norm: float  # mean before clipping
    dropped_batches: int  # for a loss or gradient that was not finite


@dataclass(frozen=True)
class FitReport:
    """Summary of a call of `fit`, by epoch."""

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


def batch_users(config: ModelConfig, items: int, users: int) -> int:
    """Users per batch: the configured number, less where there are few users or many items."""
    wanted = min(config.batch_users, -(-users // config.least_batches))
    return max(min(wanted, _CELLS_PER_BATCH // max(items, 1)), 1)


def build_objective(network: Network, schedule: NoiseSchedule, config: ModelConfig) -> nn.Module:
    """The loss of the network; under `torchrun` averaged over processes."""
    objective: nn.Module
    if isinstance(network, LatentDenoiser):
        objective = LatentObjective(network, schedule, config.reweight)
    else:
        objective = DiffusionObjective(network, schedule, config)
    return DistributedDataParallel(objective, broadcast_buffers=False) if process_count() > 1 else objective
