"""torch's fused weight normalisation, replaced by the same formula in differentiable operations.

`torch._weight_norm` keeps the norms that its forward pass found and takes them for constants in the second derivative:
products with the Hessian come out wrong and not symmetric. Written out, v * (g / |v|) is differentiated rightly.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / |v|, norms over all dimensions but `dim` (-1: over all), as `torch._weight_norm`."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


@contextmanager
def unfused_weight_norm() -> Iterator[None]:
    """Inside, both kinds of `weight_norm` in `torch.nn.utils` and calls of `torch._weight_norm` are written out.

    Example:
        >>> import torch
        >>> from landscape import unfused_weight_norm
        >>> v = torch.tensor([[3.0, 4.0]], requires_grad=True)
        >>> with unfused_weight_norm():
        ...     w = torch._weight_norm(v, torch.ones(1, 1), 0)
        >>> [round(x, 2) for x in w[0].tolist()]
        [0.6, 0.8]
    """
    places = (torch, sys.modules["torch.nn.utils.weight_norm"])
    fused = [vars(place)["_weight_norm"] for place in places]
    try:
        for place in places:
            vars(place)["_weight_norm"] = weight_norm
        yield
    finally:
        for place, function in zip(places, fused, strict=True):
            vars(place)["_weight_norm"] = function
