"""(A + damping I)^-1 b, with what the solution may be wrong by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.operators.gauss_newton import GaussNewton
from landscape.operators.hessian import Hessian
from landscape.operators.kronecker.operator import KroneckerOperator
from landscape.operators.linear import LinearOperator, error_floor
from landscape.spectra import Callback, solve

Matrix = str | LinearOperator
"""What is inverted: "hessian", "gauss-newton", or an operator: `KFAC` and `EKFAC` by their own inverse."""


@dataclass(frozen=True)
class Inverse:
    """x = (A + damping I)^-1 b for the columns of b.

    Attributes:
        x: `(n, k)`.
        residuals: `(k,)` ||(A + damping) x - b|| / ||b|| with what rounding adds; 0 for an inverse that is exact.
        error: `(k,)`, what ||x - exact x|| may be: a bound where A is known to be positive semi-definite and damping >
            0; else an estimate by the least curvature that was met, inf where that is not positive.
        converged: as the solve says.
        matvecs: products made.
        curvature: least Rayleigh quotient of A that was met; None for an inverse that is exact.
    """

    x: Tensor
    residuals: Tensor
    error: Tensor
    converged: bool
    matvecs: int
    curvature: float | None


def matrix_of(objective: Objective, given: Matrix) -> LinearOperator:
    """The operator that is meant. Raises `ValueError` for another name or an operator of another size."""
    if isinstance(given, LinearOperator):
        if given.shape[0] != objective.size:
            raise ValueError(f"the operator has n = {given.shape[0]}, the objective {objective.size} parameters")
        return given
    kinds: dict[str, Callable[[Objective], LinearOperator]] = {"hessian": Hessian, "gauss-newton": GaussNewton}
    if given not in kinds:
        raise ValueError(f'operator is "hessian", "gauss-newton" or a LinearOperator, not {given!r}')
    return kinds[given](objective)


def inverted(
    A: LinearOperator,
    b: Tensor,
    damping: float,
    tol: float,
    max_matvecs: int | None = None,
    preconditioner: LinearOperator | None = None,
    callback: Callback | None = None,
) -> Inverse:
    """By the operator's own inverse where it has one, else by `solve`."""
    if isinstance(A, KroneckerOperator):
        before = A.matvecs
        x = A.inverse(damping) @ b
        lengths = A.inner(x, x).diagonal().sqrt()
        zeros = torch.zeros_like(lengths)
        return Inverse(x, zeros, error_floor(A) * lengths, True, A.matvecs - before, None)
    found = solve(
        A, b, damping=damping, tol=tol, max_matvecs=max_matvecs, preconditioner=preconditioner, callback=callback
    )
    residuals = torch.as_tensor(found.residual) + torch.as_tensor(found.error)
    least = math.inf if found.curvature is None else found.curvature + damping
    least = damping if A.positive_semidefinite and damping > 0 else least
    norms = A.inner(b, b).diagonal().sqrt()
    error = residuals * norms / least if least > 0 else torch.where(norms > 0, math.inf, 0.0)
    return Inverse(found.x, residuals, error, found.converged, found.matvecs, found.curvature)


def indefinite_note(curvature: float | None, damping: float) -> list[str]:
    """What is to be said where A + damping I was seen not to be positive definite."""
    if curvature is None or curvature + damping > 0:
        return []
    return [
        f"A + {damping:g} I is not positive definite (a curvature of {curvature:.3g} was met): the parameters are no "
        f"minimum of what it belongs to, and the formula does not hold; take the Gauss-Newton matrix, or a damping "
        f"above {-curvature:.3g}"
    ]
