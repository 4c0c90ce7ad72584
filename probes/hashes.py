"""A hash of tensors: what tells whether two measurements are of the same thing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def hash_of(state: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of the names, dtypes, shapes and contents: the same for the same weights in any format."""
    import torch

    code = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, torch.Tensor):
            code.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
            content: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            code.update(content)
        else:
            code.update(repr((name, value)).encode())
    return code.hexdigest()[:32]
