"""What is in tensors and arrays: copies, comparison, and putting back what was written into."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def version(t: Tensor) -> int:
    """How often the tensor was written into; -1 where torch does not count."""
    return -1 if t.is_inference() else t._version


def copy_of(value: Any) -> Any:
    """A tensor's copy without its graph, or an array's."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad and value.is_floating_point())
    return value.copy()


def copy_of_tensor(value: Any) -> Any:
    """A tensor's copy without its graph; everything else as it is."""
    return copy_of(value) if isinstance(value, Tensor) else value


def overlap(a: Any, b: Any) -> bool:
    """Whether two tensors, or two arrays, may lie in the same memory."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _storage(a) is not None and _storage(a) == _storage(b)
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b)


def _storage(t: Tensor) -> int | None:
    try:
        return t.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):  # sparse tensors, wrappers
        return None


def put_back(value: Any, copy: Any) -> bool:
    """Whether the contents were others than the copy's; now they are the same."""
    if isinstance(value, np.ndarray):
        if value.tobytes() == copy.tobytes():
            return False
        value[...] = copy
        return True
    if torch.equal(value.detach(), copy) or (
        value.is_floating_point() and torch.equal(value.detach().nan_to_num(), copy.nan_to_num())
    ):
        return False
    with torch.no_grad():  # its version counter moves: a graph that has saved it is of no use any more
        value.copy_(copy)
    return True
