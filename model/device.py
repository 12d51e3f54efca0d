"""Chooses the device that a model runs on."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["multiplies_bfloat16", "pick_device"]


def pick_device(preference: str | None, environment: Mapping[str, str]) -> torch.device:
    """The device of `preference`, else of FRESHET_DEVICE, else CUDA if there is a CUDA device, else the CPU.

    Raises ValueError when CUDA is asked for and there is none.
    """
    name = preference or environment.get("FRESHET_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch sees no CUDA device; use cpu")
    return torch.device(name)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has units for matrix products in bfloat16: tensor cores, or AMX on a CPU."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch has none
    return device.type == "cpu" and bool(capabilities.get("amx_bf16", False))
