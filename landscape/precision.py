"""Float64 wherever a device has it, on the host where it has none (Apple's MPS)."""

from __future__ import annotations

import torch
from torch import Tensor

_WITHOUT = {"mps"}


def has_float64(device: torch.device) -> bool:
    """Whether tensors on the device may be float64."""
    return device.type not in _WITHOUT


def accurate(t: Tensor) -> Tensor:
    """The tensor in float64: on its own device, or on the host."""
    return t.double() if has_float64(t.device) else t.cpu().double()
