"""Fitting on several devices or machines: `torchrun` starts one process per device, and these join one group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as distributed
from torch import Tensor

__all__ = ["gathered", "joined_by_torchrun", "process_count", "process_rank"]


@contextmanager
def joined_by_torchrun(device: torch.device) -> Iterator[torch.device]:
    """A context in which this process is in the group of its `torchrun`: NCCL between CUDA devices, gloo between CPUs.

    Yields this process's device (`cuda` becomes `cuda:LOCAL_RANK`). Without `torchrun` it yields `device`.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def process_count() -> int:
    """Processes that fit together, 1 without a group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_rank() -> int:
    """This process's place among them, from 0."""
    return distributed.get_rank() if process_count() > 1 else 0


def gathered(*values: Tensor) -> list[Tensor]:
    """Each tensor joined with those of the other processes, in the order of their ranks."""
    if process_count() == 1:
        return list(values)
    joined = []
    for value in values:
        parts = [torch.empty_like(value) for _ in range(process_count())]
        distributed.all_gather(parts, value.contiguous())
        joined.append(torch.cat(parts))
    return joined
