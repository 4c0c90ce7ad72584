"""The two factors of each layer's block, summed over the data.

A = mean of a a^T over what goes in, B = (1 / M) sum of b b^T over the derivatives b in what comes out, M the number of
the loss's terms, so that B (x) A has the scale of the exact block (1503.05671). A layer that is applied at several
positions of a sample has two ways (2311.00636): "expand" takes each position for a sample of its own, "reduce" the mean
of the inputs and the sum of the derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from landscape.operators.kronecker.layers.embedding import EmbeddingUse
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.layers.use import Use
from landscape.operators.kronecker.passes import Seen

Share = Literal["expand", "reduce"]
PIECE = 1 << 26  # bytes of inputs that are held at a time
_EXACT = 4  # a block without factors is kept whole up to the limit over this


def whole_sides(layer: Layer, limit: int) -> tuple[bool, bool]:
    """Whether the output side and the input side are kept whole, or as their diagonals."""
    return layer.out <= (limit // _EXACT if layer.exact else limit), layer.inner <= limit and not layer.diagonal_input


@dataclass
class Sums:
    """Of one layer.

    Attributes:
        A: sum of weights times a a^T, `(groups, inner, inner)`, or its diagonal `(groups, inner)`.
        B: sum of b b^T, `(groups, out, out)` or `(groups, out)`.
        mass: sum of the weights in A, `(1,)` float64.
    """

    layer: Layer
    share: Share
    A: Tensor
    B: Tensor
    mass: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    @classmethod
    def blank(cls, layer: Layer, share: Share, limit: int, dtype: torch.dtype, device: torch.device) -> Sums:
        """Zeros."""
        B, A = (
            torch.zeros(layer.groups, *[size] * (1 + whole), dtype=dtype, device=device)
            for size, whole in zip((layer.out, layer.inner), whole_sides(layer, limit), strict=True)
        )
        return cls(layer, "reduce" if layer.exact else share, A, B)

    def add_slopes(self, slopes: Sequence[Tensor]) -> None:
        """Adds b b^T of one column; an item `(N, R, groups, out)` for each use."""
        if self.share == "reduce":
            slopes = [torch.stack([b.sum(1, keepdim=True) for b in slopes]).sum(0)]
        for b in slopes:
            _add_outer_products(self.B, b.flatten(0, 1))

    def add_inputs(self, uses: Sequence[Use], weights: Tensor, counted: Sequence[Tensor | None]) -> None:
        """Adds a a^T; `counted` `(N, R)` are the positions of each use that count, None for all."""
        total = torch.stack([_positions(use, some) for use, some in zip(uses, counted, strict=True)]).sum(0)
        share = torch.where(total > 0, weights / total.clamp_min(1), torch.zeros_like(weights))
        self.mass += float((share * total).sum())
        if self.share == "reduce":
            self._add_mean_inputs(uses, weights, counted, total)
            return
        for use, some in zip(uses, counted, strict=True):
            if isinstance(use, EmbeddingUse):
                by_row = share.unsqueeze(1).expand_as(use.tokens)
                self.A[0].index_add_(0, use.tokens.reshape(-1), (by_row if some is None else by_row * some).reshape(-1))
                continue
            for where, a in use.chunks(PIECE):
                root = share[where].sqrt().reshape(-1, 1, 1, 1)
                root = root if some is None else root * some[where, :, None, None]
                _add_outer_products(self.A, (a.to(self.A.dtype) * root).flatten(0, 1))

    def _add_mean_inputs(
        self, uses: Sequence[Use], weights: Tensor, counted: Sequence[Tensor | None], total: Tensor
    ) -> None:
        """The mean of each sample's inputs."""
        means: list[Tensor] = []
        for use, some in zip(uses, counted, strict=True):
            parts = [_sum_of(a, None if some is None else some[where]) for where, a in use.chunks(PIECE)]
            means.append(torch.cat(parts).to(self.A.dtype))
        mean = torch.stack(means).sum(0) / total.clamp_min(1).reshape(-1, 1, 1)
        _add_outer_products(self.A, mean * weights.sqrt().reshape(-1, 1, 1))

    def tensors(self) -> list[Tensor]:
        """What ranks add up."""
        return [self.A, self.B, self.mass]


def _positions(use: Use, counted: Tensor | None) -> Tensor:
    """`(N,)`, how many of the use's positions count."""
    if counted is not None:
        return counted.sum(1).to(use.output.device)
    return torch.full((use.samples,), use.positions, device=use.output.device)


def _sum_of(a: Tensor, counted: Tensor | None) -> Tensor:
    return a.sum(1) if counted is None else (a * counted[:, :, None, None]).sum(1)


def _add_outer_products(total: Tensor, rows: Tensor) -> None:
    """Adds the sum of outer products of rows `(m, groups, size)`, or their diagonals."""
    if total.ndim == 2:
        total += rows.square().sum(0)
        return
    by_group = rows.movedim(1, 0)
    total.baddbmm_(by_group.mT, by_group)


def collect(seen: Seen, sums: dict[Layer, Sums]) -> None:
    """Adds a batch to the sums of its layers."""
    places = seen.by_layer()
    reached: list[Tensor | None] = [None] * len(seen.uses)
    for slopes in seen.slopes():
        for layer, where in places.items():
            sums[layer].add_slopes([slopes[i] for i in where])
        if seen.live is not None:
            for i, b in enumerate(slopes):
                here = (b != 0).any(-1).any(-1)
                before = reached[i]
                reached[i] = here if before is None else before | here
    for layer, where in places.items():
        uses = [seen.uses[i] for i in where]
        sums[layer].add_inputs(
            uses, seen.weights, [_counted(seen, use, reached[i]) for i, use in zip(where, uses, strict=True)]
        )


def _counted(seen: Seen, use: Use, reached: Tensor | None) -> Tensor | None:
    """Positions count but for those whose own term is ignored and which no derivative reaches: padding."""
    kept = use.kept
    if seen.live is None or reached is None or seen.live.shape != reached.shape:
        return kept
    found = seen.live.to(reached.device) | reached
    return found if kept is None else found & kept
