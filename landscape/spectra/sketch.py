"""What the sketching estimators of a trace share: an orthonormal basis Q of the range of A S, and H = Q^T A Q."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products, require_finite
from landscape.operators.vectors import orthonormal
from landscape.spectra.basis.basis import Basis


class Sketch:
    """Q, `(n, r)`, and H, `(r, r)` float64 on the host; grown by `extend`, with products for new directions only."""

    def __init__(self, A: LinearOperator) -> None:
        self.A = A
        self.Q = Basis(A.space, A.shape[0])
        self.H = torch.zeros(0, 0, dtype=torch.float64)
        self._scale = 0.0

    def extend(self, Y: Tensor) -> int:
        """Take what is new in Y = A S into the basis; the products made."""
        A, m = self.A, self.Q.size
        squares = A.space.inner(Y, Y).diagonal()
        require_finite(A, squares)
        self._scale = max(self._scale, float(squares.max().sqrt()))
        floor = 10.0 * torch.finfo(A.dtype).eps * self._scale
        V = orthonormal(A.space, Y, self.Q.project, floor)[..., : A.shape[0] - m]
        k = V.shape[-1]
        if k == 0:
            return 0
        self.Q.append(V)
        columns = self.Q.inner(products(A, V))
        corner = 0.5 * (columns[m:] + columns[m:].T)
        top = torch.cat([self.H, columns[:m]], dim=1)
        self.H = torch.cat([top, torch.cat([columns[:m].T, corner], dim=1)])
        return k

    @property
    def magnitude(self) -> float:
        """Sum of the absolute eigenvalues of H: what rounding in its trace is relative to."""
        return float(torch.linalg.eigvalsh(self.H).abs().sum())
