"""x with (A + damping I) x = b, whose residual is what it says: by CG while that is possible, else by MINRES."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products
from landscape.spectra.callbacks import Callback
from landscape.spectra.carried import Measured, carries_check
from landscape.spectra.solve.recurrence import Apply
from landscape.spectra.solve.rounds import Method, Rounds


@dataclass(frozen=True)
class Solution(Measured):
    """A solution of (A + damping I) x = b, or the best that was found.

    Attributes:
        x: `(n,)` or `(n, k)`, as b, in the operator's dtype on its device.
        residual: `(k,)` float64 on the host, or a number for one b: ||(A + damping) x - b|| / ||b||, from a product
            with the x that is returned.
        error: as `residual`: how far rounding and noise may have taken it from its true value.
        converged: residual and error are together within tol, for every b; `converged_columns` for each.
        matvecs: products made, those that the residuals were computed with included.
        curvature: the least Rayleigh quotient of A that was met, an upper bound of its smallest eigenvalue; None where
            no step was made.
        direction: `(n,)`, the vector of it.
        damping, tol: that were asked for.
        method: "cg" or "minres", by which x was found; of a block "minres" where one column needed it.
    """

    x: Tensor = field(repr=False)
    residual: float | Tensor
    error: float | Tensor
    converged: bool
    matvecs: int
    curvature: float | None
    direction: Tensor | None = field(repr=False)
    damping: float
    method: str
    tol: float = field(default=0.0, repr=False)

    @property
    def converged_columns(self) -> Tensor:
        """`(k,)` bool, `(1,)` for one b: which columns have converged."""
        return (torch.as_tensor(self.residual) + torch.as_tensor(self.error) <= self.tol).reshape(-1)

    @property
    def indefinite(self) -> bool:
        """A + damping I was seen not to be positive definite: a larger damping than -curvature is needed for that."""
        return self.curvature is not None and self.curvature + self.damping <= 0

    def __str__(self) -> str:
        worst = float(torch.as_tensor(self.residual).max())
        state = "" if self.converged else ", not converged"
        parts = [f"residual {worst:.2g} by {self.method} ({self.matvecs} products{state})"]
        unknown = float(torch.as_tensor(self.error).max())
        if not self.converged and unknown > 0.1 * worst:
            parts.append(f"in this precision a residual is known to {unknown:.1g} only")
        if self.indefinite:
            parts.append(
                f"A + {self.damping:g} I is not positive definite: a direction of curvature {self.curvature:.3g} was "
                f"met, so that only a damping above {-float(self.curvature or 0.0):.3g} could make it so"
            )
        return "; ".join([*parts, *self._remarks()])


@carries_check
def solve(
    A: LinearOperator,
    b: Tensor | np.ndarray[Any, Any],
    *,
    damping: float = 0.0,
    method: Method = "auto",
    preconditioner: LinearOperator | Tensor | None = None,
    tol: float = 1e-6,
    max_matvecs: int | None = None,
    x0: Tensor | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Solve (A + damping I) x = b for one b `(n,)` or a block `(n, k)`, each column by a process of its own.

    While all pivots of the Lanczos process are positive the iterate of CG is taken, else that of MINRES of the same
    process. What recurrences say of their residuals is not believed: before it is said that x has converged, the
    residual is computed anew, and the process begins again from x where it is larger, as long as that helps. A column
    that has converged costs no more products.

    Args:
        damping: added to the diagonal; a negative one is possible.
        method: "cg" stops where the matrix is seen to be indefinite; "minres" takes no iterate of CG.
        preconditioner: positive definite, near the inverse of A + damping I: an operator, whose products are taken; or
            an estimate of the diagonal of A `(n,)`, which enters as 1 / (|d| + damping).
        tol: of ||(A + damping) x - b|| / ||b||. What rounding allows is about eps times the condition number.
        max_matvecs: of all columns together; default max(1000, 4 n) for each.
        x0: where to begin, as b; it costs a product.
        callback: `callback(matvecs, planned, estimate)` after each step, the estimate being the residual that the
            recurrences have; True stops with the best that is there.

    Raises:
        ValueError: b, x0 or a diagonal of another shape, b not finite, a tol that is not positive, a preconditioner
            that is not positive definite.
        FloatingPointError: a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import solve
        >>> A = MatrixOperator(torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64))
        >>> found = solve(A, torch.tensor([1.0, 2.0]))
        >>> found.x.round(decimals=4).tolist(), found.converged, found.matvecs
        ([0.0909, 0.6364], True, 3)
    """
    if not tol > 0 or method not in ("auto", "cg", "minres"):
        raise ValueError(f'tol is positive and method "auto", "cg" or "minres", not {tol} and {method!r}')
    B = A.space.columns(b)
    try:
        rounds = Rounds(A, B, damping, method, _applied(A, preconditioner, damping), tol, max_matvecs, callback)
        rounds.run(None if x0 is None else A.space.columns(x0))
        return _solution(rounds, single=np.ndim(b) == len(A.space.shape))
    finally:
        A.release()


def _solution(rounds: Rounds, *, single: bool) -> Solution:
    residual, error, curvature = rounds.residual, rounds.error, rounds.measured_curvature()
    return Solution(
        x=rounds.X[..., 0] if single else rounds.X,
        residual=float(residual[0]) if single else residual,
        error=float(error[0]) if single else error,
        converged=bool((residual + error <= rounds.tol).all()),
        matvecs=rounds.matvecs,
        curvature=curvature,
        direction=rounds.direction,
        damping=rounds.damping,
        method=rounds.found,
        tol=rounds.tol,
    )


def _applied(A: LinearOperator, given: LinearOperator | Tensor | None, damping: float) -> Apply | None:
    if given is None:
        return None
    if isinstance(given, LinearOperator):
        if given.shape != A.shape:
            raise ValueError(f"the preconditioner has shape {given.shape}, the operator {A.shape}")
        return lambda R: products(given, R.to(given.dtype)).to(R.dtype)
    diagonal = torch.as_tensor(given).detach().to(A.device)
    if diagonal.shape != A.space.shape:
        raise ValueError(f"a diagonal has the shape of a vector, {A.space.shape}, not {tuple(diagonal.shape)}")
    weights = diagonal.abs() + damping
    if not bool((weights > 0).all() & torch.isfinite(weights).all()):
        raise ValueError("|d| + damping has entries that are zero, negative or not finite: give a damping")
    inverse = (1.0 / weights).to(A.dtype).unsqueeze(-1)
    return lambda R: R * inverse
