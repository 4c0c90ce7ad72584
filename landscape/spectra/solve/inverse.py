"""(A + damping I)^-1 as an operator, whose products are solves."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from landscape.operators.linear import CombinedOperator, LinearOperator
from landscape.spectra.solve.rounds import Method
from landscape.spectra.solve.solve import solve


def inverse(
    A: LinearOperator,
    damping: float = 0.0,
    *,
    tol: float = 1e-6,
    method: Method = "auto",
    preconditioner: LinearOperator | Tensor | None = None,
    max_matvecs: int | None = None,
) -> LinearOperator:
    """(A + damping I)^-1, an operator as any other: each product is a `solve`, all columns of a block in one.

    Its `noise` is tol: residuals are at most tol ||v||, so that a product is off by tol ||(A + damping I)^-1|| ||v|| at
    most, which is relative to the largest |eigenvalue| of the inverse, as algorithms take noise. With a damping of -s
    the largest |eigenvalues| of the inverse are those of A next to s: 1 / (lambda - s).

    `A.matvecs` counts what the solves take. A factored matrix has an inverse in closed form: `KFAC.inverse(damping)`.

    Args:
        damping: added to the diagonal; a negative one is possible.
        tol, method, preconditioner, max_matvecs: of each solve, as there.

    Raises:
        ValueError: where `solve` raises it, at the first product.
        RuntimeError: by a product, when a solve has not converged: it says how far it came.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import eigsh, inverse
        >>> A = MatrixOperator(torch.diag(torch.tensor([5.0, 3.0, 1.0, -7.0], dtype=torch.float64)))
        >>> (inverse(A, damping=8.0) @ torch.tensor([13.0, 0.0, 0.0, 2.0])).round(decimals=4).tolist()
        [1.0, 0.0, 0.0, 2.0]
        >>> nearest = eigsh(inverse(A, damping=-2.5), k=1, which="LM")
        >>> round(2.5 + 1 / float(nearest.values[0]), 4)  # the eigenvalue next to 2.5
        3.0
    """
    return _Inverse(A, damping, tol, method, preconditioner, max_matvecs)


class _Inverse(CombinedOperator):
    def __init__(
        self,
        A: LinearOperator,
        damping: float,
        tol: float,
        method: Method,
        preconditioner: LinearOperator | Tensor | None,
        max_matvecs: int | None,
    ) -> None:
        super().__init__(A)
        self.A, self.damping, self.tol, self.method = A, damping, tol, method
        self.preconditioner, self.max_matvecs = preconditioner, max_matvecs
        self.positive_semidefinite = A.positive_semidefinite and damping >= 0

    @override
    def _measured_noise(self) -> float:
        return self.tol

    @override
    def _matmat(self, V: Tensor) -> Tensor:
        found = solve(
            self.A,
            V,
            damping=self.damping,
            method=self.method,
            preconditioner=self.preconditioner,
            tol=self.tol,
            max_matvecs=self.max_matvecs,
        )
        if not found.converged:
            raise RuntimeError(
                f"no product with the inverse of A + {self.damping:g} I to {self.tol:g}: {found}; a larger damping, "
                "tol or max_matvecs, or a preconditioner may help"
            )
        return found.x

    def __repr__(self) -> str:
        return f"inverse({self.A!r}, damping={self.damping:g}, tol={self.tol:g})"
