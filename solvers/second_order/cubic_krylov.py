"""The cubic sub-problem when H is known by its products: exact on a Krylov space that grows as long as it must.

The basis starts from g. On it the problem is small and solved exactly; since A Q = Q T + (remainder), the residual of
the step in the whole space costs nothing (Cartis, Gould and Toint 2011). A Krylov space of g contains no eigenvector
to which g is orthogonal, so once the step has converged a random vector joins the basis, until the lowest Ritz value
has settled: then the hard case is seen as well.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products, rounding
from landscape.randomness import fresh_generator
from landscape.spectra.krylov import Krylov, Ritz
from solvers.base import check
from solvers.second_order.cubic import CubicStep, assemble

# The lowest Ritz value has settled when its residual is below this share of the largest |Ritz value| ...
_SETTLED = 1e-2
# ... and the random vector has had so many products to show what g does not.
_LOOK = 5


def solve_cubic_krylov(
    g: Tensor,
    A: LinearOperator,
    M: float,
    *,
    tol: float = 1e-6,
    max_products: int | None = None,
    generator: torch.Generator | None = None,
) -> CubicStep:
    """The minimiser of g.h + h.A h / 2 + (M / 6) ||h||^3 for an operator.

    Args:
        g: `(n,)`.
        A: symmetric, any inertia.
        M: > 0.
        tol: on ||g + A h + lam h||, relative to the larger of ||g|| and lam ||h||; not below what products allow.
        max_products: default min(n, 500). What there is then comes back with converged=False.
        generator: for the random vector; None takes a fresh seed.

    Returns:
        `CubicStep` with `residual` relative as `tol` is, `lowest` the smallest Ritz value and `products` made. h is in
        A's dtype on its device.

    Raises:
        ValueError: M or tol not positive, a g that is not finite or misshapen.
        FloatingPointError: a product is not finite.
        MemoryError: not even four basis vectors fit `A.memory`.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from solvers import solve_cubic, solve_cubic_krylov
        >>> g, H = torch.ones(50), torch.diag(torch.linspace(-1, 10, 50))
        >>> step, exact = solve_cubic_krylov(g, MatrixOperator(H), M=1.0), solve_cubic(g, H, M=1.0)
        >>> step.converged, step.products < 50, bool((step.h - exact.h).norm() < 1e-3)
        (True, True, True)
    """
    check(M=(M, 0 < M < math.inf), tol=(tol, tol > 0))
    start, column = A.space.columns(g), A.space.column_bytes
    limit = min(A.shape[0], 500) if max_products is None else max_products
    room = A.memory // column - 4
    if room < min(4, A.shape[0]):
        raise MemoryError(f"four vectors of {column:,} bytes do not fit the budget of {A.memory:,} bytes")
    rng = generator or fresh_generator()
    try:
        return _Search(A, start, M, max(tol, 16.0 * rounding(A)), min(limit, room), rng).run()
    finally:
        A.release()


class _Search:
    def __init__(self, A: LinearOperator, g: Tensor, M: float, tol: float, limit: int, rng: torch.Generator) -> None:
        self.A, self.g, self.M, self.tol, self.limit, self.rng = A, g, M, tol, limit, rng
        self.space = Krylov(A, limit)
        self.size = math.sqrt(max(0.0, float(A.inner(g, g))))
        self.made = 0

    def run(self) -> CubicStep:
        X = self.space.inject(self.g)
        looked = X.shape[-1] == 0  # g = 0: the random vector is all there is
        if looked:
            X = self.space.inject(self.A.random(1, "normal", self.rng))
        since = 0
        while True:
            self.space.absorb(products(self.A, X))
            self.made += X.shape[-1]
            ritz = self.space.ritz()
            step, y, residual = self._solve(ritz)
            since += looked
            open_step = residual > self.tol
            settled = looked and since >= _LOOK and float(ritz.pending[0]) <= _SETTLED * float(ritz.values.abs().max())
            if self.space.exhausted or (settled and not open_step):
                return self._result(step, residual, converged=not open_step)
            if self.made >= self.limit:
                return self._result(step, residual, converged=False)
            if not open_step and not looked:
                looked, X = True, self.space.inject(self.A.random(1, "normal", self.rng))
                if X.shape[-1]:
                    continue
            outside = self.space.B @ (y if open_step else ritz.coefficients[:, :1])  # what A Q y has outside the basis
            norm = float(outside.norm()) if outside.numel() else 0.0
            X = self.space.propose(outside / norm if norm > 0 else None)
            if X.shape[-1] == 0:  # invariant to rounding: what is left is seen from a random start alone
                looked, X = True, self.space.inject(self.A.random(1, "normal", self.rng))
            if X.shape[-1] == 0:
                return self._result(step, residual, converged=not open_step)

    def _solve(self, ritz: Ritz) -> tuple[CubicStep, Tensor, float]:
        """The step in the basis, its coordinates `(m, 1)`, and its residual in the whole space, relative."""
        coordinates = self.A.inner(self.space.basis, self.g)[:, 0]
        step = assemble(coordinates, ritz.values, ritz.coefficients, ritz.coefficients.T @ coordinates, self.M)
        y = step.h.reshape(-1, 1)
        outside = self.space.B @ y
        left = math.sqrt(max(0.0, float((outside * (self.space.gram @ outside)).sum()))) if outside.numel() else 0.0
        scale = max(self.size, step.multiplier * float(y.norm()))
        return step, y, left / scale if scale > 0 else 0.0

    def _result(self, step: CubicStep, residual: float, *, converged: bool) -> CubicStep:
        h = self.space.combine(step.h.reshape(-1, 1))[..., 0]
        return replace(step, h=h, residual=residual, products=self.made, converged=converged)
