"""One side of a Kronecker product: a matrix for each group, or its diagonal, and its eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.precision import accurate


@dataclass(frozen=True)
class Side:
    """A positive semi-definite `(groups, size, size)`, or a diagonal `(groups, size)`."""

    matrix: Tensor

    @property
    def whole(self) -> bool:
        """Whether it is more than its diagonal."""
        return self.matrix.ndim == 3

    @property
    def trace(self) -> Tensor:
        """`(groups,)` float64."""
        diagonal = self.matrix.diagonal(dim1=1, dim2=2) if self.whole else self.matrix
        return accurate(diagonal).sum(1)

    def from_left(self, X: Tensor) -> Tensor:
        """This times `(k, groups, size, m)`."""
        return self.matrix @ X if self.whole else self.matrix.unsqueeze(-1) * X

    def from_right(self, X: Tensor) -> Tensor:
        """`(k, groups, m, size)` times this."""
        return X @ self.matrix if self.whole else X * self.matrix.unsqueeze(-2)

    def eigen(self) -> Basis:
        """Eigenvalues, which rounding does not make negative, and eigenvectors, found in float64."""
        if not self.whole:
            return Basis(accurate(self.matrix).clamp_min(0.0), None)
        values, vectors = torch.linalg.eigh(accurate(self.matrix))
        return Basis(values.clamp_min(0.0), vectors.to(self.matrix.device, self.matrix.dtype))


@dataclass(frozen=True)
class Basis:
    """Eigenvalues `(groups, size)` float64, eigenvectors as columns `(groups, size, size)`; None for unit vectors."""

    values: Tensor
    vectors: Tensor | None

    def into(self, X: Tensor) -> Tensor:
        """Rows `(N, R, groups, size)` in terms of the eigenvectors."""
        if self.vectors is None:
            return X
        return torch.einsum("nrgi,gij->nrgj", X.to(self.vectors.dtype), self.vectors)
