"""A hash of tensors: what tells whether two measurements are of the same thing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def hash_of(state: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of the names, dtypes, shapes and contents: the same for the same weights in any format."""
    import torch

    code = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, torch.Tensor):
            code.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
            code.update(bytes_of(value))
        else:
            code.update(repr((name, value)).encode())
    return code.hexdigest()[:32]


def bytes_of(tensor: torch.Tensor) -> Any:
    """`(bytes,)` uint8 on the host: the content of any dtype, not a copy where it lies there already."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
