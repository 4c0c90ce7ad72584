"""Linear layers, `s = W a + b` along the last dimension: `torch.nn.functional.linear`, `x @ W`, `addmm`."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.kronecker.layers.layer import Affine
from landscape.operators.kronecker.layers.use import Use, with_one


class LinearUse(Use):
    """One call with inputs `(..., inner)`."""

    def __init__(self, layer: Affine, output: Tensor, shape: torch.Size, samples: int, a: Tensor) -> None:
        super().__init__(layer, output, shape, samples)
        self._bias = layer.bias is not None
        self._a = a.detach() if layer.weight is not None else a.detach()[..., :0]

    @property
    def lead(self) -> tuple[int, ...]:
        """All but the features."""
        return tuple(self.shape[:-1])

    @property
    @override
    def largest(self) -> float:
        return max(1.0, float(self._a.abs().max())) if self._a.numel() else 1.0

    def slopes(self, g: Tensor) -> Tensor:
        """Positions in one row."""
        return self.derivative_by_sample(g).flatten(1, -2).unsqueeze(2)

    def inputs(self, start: int, stop: int) -> Tensor:
        """Positions in one row."""
        return with_one(self.by_sample(self._a)[start:stop].flatten(1, -2), self._bias).unsqueeze(2)
