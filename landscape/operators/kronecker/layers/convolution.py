"""Convolutions in one to three dimensions: what goes in at a position is the patch under the kernel (1602.01407)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from landscape.operators.kronecker.layers.layer import Affine
from landscape.operators.kronecker.layers.use import SHARED, Use, with_one


class ConvolutionUse(Use):
    """One call with inputs `(batch, channels, ...)`."""

    def __init__(
        self,
        layer: Affine,
        output: Tensor,
        shape: torch.Size,
        samples: int,
        x: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: str | Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        super().__init__(layer, output, shape, samples)
        self._kernel, self._stride, self._dilation = kernel, stride, dilation
        self._places = shape[2:]
        self._bias = layer.bias is not None
        self._x = x.detach()
        self._patches = self._under_the_kernel(self._x, padding) if layer.weight is not None else None

    @property
    def lead(self) -> tuple[int, ...]:
        """The batch."""
        return (self.shape[0],)

    def _under_the_kernel(self, x: Tensor, padding: str | Sequence[int]) -> Tensor:
        """A view `(batch, places..., channels, kernel...)`."""
        edges = [
            _edges(padding if isinstance(padding, str) else padding[d], self._kernel[d], self._dilation[d])
            for d in range(len(self._kernel))
        ]
        x = F.pad(x, [side for pair in reversed(edges) for side in pair]).contiguous()
        batch, channel, *steps = x.stride()
        places = [step * s for step, s in zip(steps, self._stride, strict=True)]
        inside = [step * s for step, s in zip(steps, self._dilation, strict=True)]
        return x.as_strided((x.shape[0], *self._places, x.shape[1], *self._kernel), (batch, *places, channel, *inside))

    @property
    @override
    def largest(self) -> float:
        return max(1.0, float(self._x.abs().max())) if self._x.numel() else 1.0

    def slopes(self, g: Tensor) -> Tensor:
        """Positions in one row, channels last."""
        b = self.derivative_by_sample(g).movedim(2, -1).flatten(1, -2)
        return b.unflatten(-1, (self.layer.groups, self.layer.out))

    def inputs(self, start: int, stop: int) -> Tensor:
        """Patches in torch's order of the kernel."""
        groups, dims = self.layer.groups, len(self._kernel)
        if self._patches is None:
            return self._x.new_ones(stop - start, self.positions, groups, 1)
        some = self.by_sample(self._patches)[start:stop]
        a = some.flatten(-1 - dims).flatten(1, -2).unflatten(-1, (groups, -1))
        return with_one(a, self._bias)

    @property
    @override
    def positions(self) -> int:
        return self.shape[0] * self._places.numel() // (1 if self.axis == SHARED else self.samples)


def _edges(padding: str | int, kernel: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after, where an odd number of them has one more after."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = dilation * (kernel - 1)
        return total // 2, total - total // 2
    assert isinstance(padding, int)
    return padding, padding
