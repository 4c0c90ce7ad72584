"""Scales and shifts, entry by entry: the whole gradient of each sample, so that the block is exact.

A parameter may come through other functions before it meets the data (a slice of a table of positions, 1 + w): the
gradient is then pulled back through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.autograd import vjp
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.layers.use import Use


@dataclass(frozen=True)
class Operand:
    """What the output is linear in, entry by entry: `factor * value`, broadcast to the output; a factor None is 1.

    Attributes:
        value: a parameter, or what was made of some.
        shape: of the value as it is broadcast, aligned at the output's last dimension.
        leaves: the parameters by name.
        part: the dimension, start and size of the part of the output that it is in; None for all of it.
    """

    value: Tensor
    shape: torch.Size
    leaves: Mapping[str, Tensor]
    factor: Tensor | float | None = None
    part: tuple[int, int, int] | None = None


class ScaleUse(Use):
    """One call."""

    def __init__(
        self, layer: Layer, output: Tensor, shape: torch.Size, samples: int, operands: Sequence[Operand]
    ) -> None:
        super().__init__(layer, output, shape, samples)
        self._operands = operands

    @property
    def lead(self) -> tuple[int, ...]:
        """Every dimension along which no operand has entries of its own."""
        ndim = len(self.shape)
        own = {d + ndim - len(o.shape) for o in self._operands for d, size in enumerate(o.shape) if size > 1}
        own |= {o.part[0] for o in self._operands if o.part is not None}
        free = [-1 if d in own else size for d, size in enumerate(self.shape)]
        return tuple(free)

    def axes(self) -> list[int]:
        """Those of an operand are none."""
        return [d for d in super().axes() if d < 0 or self.lead[d] > 0]

    def slopes(self, g: Tensor) -> Tensor:
        """`(N, 1, 1, entries)`: gradients of samples in the parameters, whole."""
        found: dict[str, Tensor] = {}
        for o in self._operands:
            weighted = g if o.factor is None else g * o.factor
            by_sample = self.derivative_by_sample(weighted)
            if o.part is not None:
                by_sample = by_sample.narrow(o.part[0] - len(self.shape), *o.part[1:])
            by_value = self._summed(by_sample, o.shape).reshape(-1, *o.value.shape)
            leaves = list(o.leaves.values())
            pieces = [by_value] if o.value is leaves[0] else vjp([o.value], leaves, [by_value], batched=True)
            for name, piece in zip(o.leaves, pieces, strict=True):
                flat = piece.reshape(self.samples, -1)
                found[name] = found[name] + flat if name in found else flat
        return torch.cat([found[name] for name in self.layer.names], dim=1).reshape(self.samples, 1, 1, -1)

    def _summed(self, t: Tensor, shape: torch.Size) -> Tensor:
        """`(N, *shape)`: the sum over what `shape` is broadcast along."""
        lead = t.ndim - 1 - len(shape)
        dims = [*range(1, 1 + lead), *(1 + lead + d for d, size in enumerate(shape) if size == 1)]
        return (t.sum(dims) if dims else t).reshape(self.samples, *shape)

    def inputs(self, start: int, stop: int) -> Tensor:
        """1: the output side is all."""
        return self.output.new_ones(stop - start, 1, 1, 1)

    @property
    @override
    def positions(self) -> int:
        return 1
