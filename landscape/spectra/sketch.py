"""What the sketching estimators of a trace share: an orthonormal basis Q of the range of A S, and H = Q^T A Q."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products, require_finite
from landscape.operators.vectors import orthonormal
from landscape.spectra.basis.basis import Basis
from landscape.spectra.basis.place import Footprint, Where, together


class Sketch:
    """Q, `(n, r)`, and H, `(r, r)` float64 on the host; grown by `extend`, with products for new directions only.

    Q lies in the place `where`, and so does all that is kept beside it.
    """

    def __init__(self, A: LinearOperator, where: Where) -> None:
        self.A, self.where = A, where
        self._bases: list[Basis] = []
        self.Q = self.room()
        self.H = torch.zeros(0, 0, dtype=torch.float64)
        self._scale = 0.0

    def room(self) -> Basis:
        """Room for other vectors, any number of them, in the same place."""
        self._bases.append(Basis(self.A.space, self.A.shape[0], self.where))
        return self._bases[-1]

    @property
    def footprint(self) -> Footprint:
        """What all of them took."""
        return together(basis.footprint for basis in self._bases)

    def close(self) -> None:
        """Forget all vectors."""
        for basis in self._bases:
            basis.close()

    def extend(self, Y: Tensor) -> Tensor:
        """Take what is new in Y = A S into the basis; the new columns, with each of which a product was made."""
        A, m = self.A, self.Q.size
        squares = A.space.inner(Y, Y).diagonal()
        require_finite(A, squares)
        self._scale = max(self._scale, float(squares.max().sqrt()))
        floor = 10.0 * torch.finfo(A.dtype).eps * self._scale
        V = orthonormal(A.space, Y, self.Q.project, floor)[..., : A.shape[0] - m]
        if V.shape[-1] == 0:
            return V
        self.Q.append(V)
        columns = self.Q.inner(products(A, V))
        corner = 0.5 * (columns[m:] + columns[m:].T)
        top = torch.cat([self.H, columns[:m]], dim=1)
        self.H = torch.cat([top, torch.cat([columns[:m].T, corner], dim=1)])
        return V

    def grown(self, inner: Tensor, V: Tensor, kept: Basis, new: Tensor) -> Tensor:
        """Q^T X, `(r, j)` on the host, for a basis that has grown by V and vectors X = kept that are joined by new.

        `kept` has not got the new ones yet. Only what is new is computed.
        """
        rows = torch.cat([inner, kept.inner(V).T]) if V.shape[-1] else inner
        kept.append(new)
        return torch.cat([rows, self.Q.inner(new)], dim=1)

    @property
    def magnitude(self) -> float:
        """Sum of the absolute eigenvalues of H: what rounding in its trace is relative to."""
        return float(torch.linalg.eigvalsh(self.H).abs().sum())
