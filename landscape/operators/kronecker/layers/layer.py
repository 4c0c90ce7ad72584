"""A layer: parameters that share one block of the matrix, as a matrix with an output side and an input side.

The flat vector holds weights by rows, so that with X the layer's part of it as a matrix `(out, in)` the product of a
block is B X A: B of the derivatives after the layer, A of what goes into it. A bias is one more column of X, for which
a 1 goes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Slices = Mapping[str, slice]


@dataclass(frozen=True)
class Layer:
    """The shape of a block: `groups` matrices `(out, inner)`.

    Attributes:
        exact: one side only: the block is made of the whole gradients of samples, not of two factors.
        diagonal_input: one entry of what goes in is 1 and all others 0, so that its outer products are diagonal.
    """

    groups: int
    out: int
    inner: int
    exact: bool = False
    diagonal_input: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of its parameters."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """In words."""
        return " and ".join(self.names)

    def gather(self, rows: Tensor, slices: Slices) -> Tensor:
        """This layer's part of vectors `(k, n)`: `(k, groups, out, inner)`."""
        raise NotImplementedError

    def add(self, X: Tensor, rows: Tensor, slices: Slices) -> None:
        """Adds `(k, groups, out, inner)` to this layer's part of `(k, n)`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Affine(Layer):
    """A weight, a bias or both: s = W a + b.

    Attributes:
        weight, bias: their names; None for what is not chosen, or has a block of its own.
        transposed: the weight is held as `(inner, out)`.
    """

    weight: str | None = None
    bias: str | None = None
    transposed: bool = False

    @classmethod
    def of(
        cls,
        weight: str | None,
        bias: str | None,
        out: int,
        inner: int,
        groups: int = 1,
        transposed: bool = False,
        diagonal_input: bool = False,
    ) -> Affine:
        """`inner` features go into each group; a bias adds one."""
        width = inner * (weight is not None) + (bias is not None)
        return cls(groups, out, width, False, diagonal_input, weight, bias, transposed)

    @property
    def names(self) -> tuple[str, ...]:
        """Weight before bias."""
        return tuple(name for name in (self.weight, self.bias) if name is not None)

    @property
    def _columns(self) -> int:
        return self.inner - (self.bias is not None)

    def gather(self, rows: Tensor, slices: Slices) -> Tensor:
        """A view where there is no bias."""
        parts = []
        if self.weight is not None:
            W = rows[:, slices[self.weight]]
            if self.transposed:
                parts.append(W.reshape(len(rows), self.groups, self._columns, self.out).mT)
            else:
                parts.append(W.reshape(len(rows), self.groups, self.out, self._columns))
        if self.bias is not None:
            parts.append(rows[:, slices[self.bias]].reshape(len(rows), self.groups, self.out, 1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def add(self, X: Tensor, rows: Tensor, slices: Slices) -> None:
        """Weight and bias each to its place."""
        if self.weight is not None:
            W = X[..., : self._columns]
            rows[:, slices[self.weight]] += (W.mT if self.transposed else W).reshape(len(rows), -1)
        if self.bias is not None:
            rows[:, slices[self.bias]] += X[..., -1].reshape(len(rows), -1)


@dataclass(frozen=True)
class Stacked(Layer):
    """Parameters whose entries are the rows of one column: scales, shifts, positions.

    Attributes:
        pieces: their names and sizes.
    """

    pieces: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, pieces: tuple[tuple[str, int], ...]) -> Stacked:
        """In the order given."""
        return cls(1, sum(size for _, size in pieces), 1, True, False, pieces)

    @property
    def names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(name for name, _ in self.pieces)

    def gather(self, rows: Tensor, slices: Slices) -> Tensor:
        """The pieces one below the other."""
        parts = [rows[:, slices[name]] for name in self.names]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).reshape(len(rows), 1, self.out, 1)

    def add(self, X: Tensor, rows: Tensor, slices: Slices) -> None:
        """Each piece to its place."""
        parts = X.reshape(len(rows), self.out).split([size for _, size in self.pieces], dim=1)
        for name, part in zip(self.names, parts, strict=True):
            rows[:, slices[name]] += part
