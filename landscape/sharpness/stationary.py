"""A certificate of a second-order stationary point: the gradient's norm and the Hessian's smallest eigenvalue.

theta is an (eps_g, eps_h) second-order stationary point of f when ||grad f|| <= eps_g and lambda_min(H) >= -eps_h,
which is what cubic Newton methods promise (Nesterov and Polyak 2006). A Ritz value never lies below lambda_min, so the
smallest one that was found only refutes; what certifies is how far below it lambda_min may be. That is bounded by the
search itself: when it has converged and was confirmed, by its tolerance times ||H|| (see `landscape.spectra.eigsh`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from landscape.objective.objective import Objective
from landscape.operators.hessian import Hessian
from landscape.operators.linear import LinearOperator
from landscape.spectra import Callback, eigsh

_NORM_TOL = 1e-2


@dataclass(frozen=True)
class Stationary:
    """Where a point stands.

    Attributes:
        gradient_norm: ||grad f||.
        lambda_min: the smallest eigenvalue found; never below the true one, but for rounding.
        residual: ||H v - lambda_min v||.
        error: lambda_min is at most this far above the true one; inf where the search did not settle that.
        norm: ||H||, within one percent.
        confirmed: the search has converged, and a random chain has shown that nothing lower was missed.
        direction: v, `(n,)`, unit: where f curves down most, when lambda_min < 0.
        matvecs: products with the Hessian.
        seed: of the generator.

    Example:
        >>> import torch
        >>> from landscape.sharpness import Stationary
        >>> point = Stationary(1e-4, -0.01, 1e-6, 1e-3, 1.0, True, torch.ones(1), 10, 0)
        >>> point.holds(eps_g=1e-3, eps_h=0.1), point.holds(eps_g=1e-3, eps_h=0.01)
        (True, False)
    """

    gradient_norm: float
    lambda_min: float
    residual: float
    error: float
    norm: float
    confirmed: bool
    direction: torch.Tensor
    matvecs: int
    seed: int

    @property
    def bound(self) -> float:
        """Above which the true smallest eigenvalue is certain to lie; -inf where nothing is known."""
        return self.lambda_min - self.error

    def holds(self, eps_g: float, eps_h: float) -> bool:
        """Whether the point is certainly (eps_g, eps_h) stationary: ||grad f|| <= eps_g and lambda_min >= -eps_h.

        False for what was not confirmed. Raises `ValueError` for a negative eps.
        """
        if not (eps_g >= 0 and eps_h >= 0):
            raise ValueError(f"eps_g and eps_h must not be negative, not {eps_g} and {eps_h}")
        return self.confirmed and self.gradient_norm <= eps_g and self.bound >= -eps_h

    def __str__(self) -> str:
        doubt = "" if self.confirmed else ", not confirmed"
        return (
            f"|gradient| {self.gradient_norm:.3g}, smallest eigenvalue {self.lambda_min:.3g} - {self.error:.1g}{doubt}"
        )


def second_order_stationary(
    objective: Objective,
    *,
    tol: float = 1e-4,
    operator: LinearOperator | None = None,
    max_matvecs: int | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Stationary:
    """How close the parameters are to a second-order stationary point of an objective.

    Args:
        objective: f.
        tol: of the smallest eigenvalue, relative to ||H||: a certificate for eps_h needs tol below eps_h / ||H||.
        operator: the Hessian, where one is at hand or another product is wanted (finite differences).
        max_matvecs: of each of the two searches, for ||H|| and for the smallest eigenvalue; default as `eigsh`.
        generator: for the random starts; None takes a fresh seed.
        callback: as in `eigsh`.

    Returns:
        `Stationary`. A search that did not converge gives what there is, confirmed=False and an error of inf.

    Raises:
        ValueError, FloatingPointError, MemoryError: those of `eigsh`.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.sharpness import second_order_stationary
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> with f.at(torch.zeros(1)):  # f = w^2
        ...     found = second_order_stationary(f)
        >>> found.confirmed, round(found.lambda_min, 4), found.holds(eps_g=1e-6, eps_h=1e-3)
        (True, 2.0, True)
    """
    A = Hessian(objective) if operator is None else operator
    rng, seed = A.space.generator(generator)
    g = objective.gradient().double().unsqueeze(-1)
    gradient = math.sqrt(float(A.space.inner(g, g)))
    largest = eigsh(
        A, 1, which="LM", tol=_NORM_TOL, max_matvecs=max_matvecs, confirm=False, generator=rng, callback=callback
    )
    smallest = eigsh(A, 1, which="SA", tol=tol, max_matvecs=max_matvecs, generator=rng, callback=callback)
    lowest, residual = float(smallest.values[0]), float(smallest.residuals[0])
    norm = max(abs(float(largest.values[0])), abs(lowest))
    confirmed = smallest.converged and smallest.confirmed and math.isfinite(norm)
    # what the search may have missed is measured by the largest Ritz value that it saw itself, at most ||H||
    error = max(residual, tol * norm * (1.0 + _NORM_TOL)) if confirmed else math.inf
    matvecs = largest.matvecs + smallest.matvecs
    return Stationary(gradient, lowest, residual, error, norm, confirmed, smallest.vectors[:, 0], matvecs, seed)
