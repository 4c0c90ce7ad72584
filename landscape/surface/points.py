"""Points in parameter space by their coordinates: a grid on a plane, a line, a path between nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TOGETHER = 1 << 26  # numbers in the vectors that are made at a time


@dataclass(frozen=True)
class Points:
    """theta_p = sum over m of coefficients[p, m] basis[m].

    Attributes:
        coefficients: `(points, m)` float64 on the host.
        basis: m vectors `(n,)` in the objective's dtype on its device.
    """

    coefficients: Tensor
    basis: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.coefficients)

    def rows(self, which: Sequence[int]) -> Tensor:
        """`(len(which), n)`: these points. A vector whose coefficient is 1, the others' being 0, comes out as it is."""
        chosen = self.coefficients[list(which)]
        made = self.basis[0].new_zeros(len(chosen), len(self.basis[0]))
        for m, vector in enumerate(self.basis):
            there = chosen[:, m].nonzero()[:, 0]
            if len(there) == len(chosen):
                made += chosen[:, m, None].to(vector) * vector
            elif len(there):
                made[there] += chosen[there, m, None].to(vector) * vector
        return made

    def __getitem__(self, p: int) -> Tensor:
        """`(n,)`: a point."""
        return self.rows([p])[0]

    def blocks(self, which: Sequence[int]) -> list[Sequence[int]]:
        """`which` in parts that may be made at a time."""
        size = max(1, _TOGETHER // len(self.basis[0]))
        return [which[i : i + size] for i in range(0, len(which), size)]


def grid(x: Tensor, y: Tensor | None, centre: Tensor, directions: Tensor) -> Points:
    """centre + x[i] d1 + y[j] d2, row-major; centre + x[i] d1 without y."""
    if y is None:
        coefficients = torch.stack([torch.ones_like(x), x], dim=1)
    else:
        coefficients = torch.stack([torch.ones(len(x) * len(y)).double(), *_both(x, y)], dim=1)
    return Points(coefficients, [centre, *directions.T.contiguous()])


def _both(x: Tensor, y: Tensor) -> list[Tensor]:
    return [t.reshape(-1) for t in torch.meshgrid(x, y, indexing="ij")]


def coarse_to_fine(shape: Sequence[int]) -> list[int]:
    """The points of a grid (row-major numbers): ends and middle of each axis first, then the middles between them."""
    levels = [_levels(size) for size in shape]
    total = torch.zeros(tuple(shape), dtype=torch.long)
    for axis, level in enumerate(levels):
        spread = [1] * len(shape)
        spread[axis] = -1
        total = torch.maximum(total, torch.tensor(level).reshape(spread))
    order: list[int] = torch.argsort(total.reshape(-1), stable=True).tolist()
    return order


def _levels(size: int) -> list[int]:
    """How often a range has to be halved until each point is an end of a part."""
    levels = [0] * size
    parts, depth = [(0, size - 1)], 0
    while parts:
        depth, halves = depth + 1, []
        for low, high in parts:
            if high - low > 1:
                middle = (low + high) // 2
                levels[middle] = depth
                halves += [(low, middle), (middle, high)]
        parts = halves
    return levels
