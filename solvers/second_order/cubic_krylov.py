"""The cubic sub-problem when H is known by its products: exact on a Krylov space that grows as long as it must.

The basis starts from g. On it the problem is small and solved exactly; since A Q = Q T + (remainder), the residual of
the step in the whole space costs nothing (Cartis, Gould and Toint 2011). A Krylov space of g contains no eigenvector
to which g is orthogonal, and an eigenvalue below -lam that stays hidden makes the step a wrong one (the hard case). So
once the step has converged the search of `eigsh` for the smallest eigenvalue goes on in the same basis, with its random
chain, until it is sure that none is below -(lam + delta). With h* the minimiser and d = -m(h) the step then is short by
at most (delta / 2) ||h*||^2, where ||h*|| <= ||h|| + 2 delta / M, and delta is such that this is 1e-3 d.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, error_floor, products, rounding
from landscape.randomness import fresh_generator
from landscape.spectra.krylov import Krylov
from landscape.spectra.search import Search
from landscape.spectra.task import Task
from solvers.base import check
from solvers.second_order.cubic import CubicStep, assemble

# Of the decrease: what a hidden eigenvalue may have hidden.
_SHARE = 1e-3
# Of the largest |eigenvalue|: closer than this nothing is looked for.
_CLOSEST = 1e-6


def solve_cubic_krylov(
    g: Tensor,
    A: LinearOperator,
    M: float,
    *,
    tol: float = 1e-6,
    max_products: int | None = None,
    max_look: int | None = None,
    generator: torch.Generator | None = None,
) -> CubicStep:
    """The minimiser of g.h + h.A h / 2 + (M / 6) ||h||^3 for an operator.

    Args:
        g: `(n,)`.
        A: symmetric, any inertia.
        M: > 0.
        tol: on ||g + A h + lam h||, relative to the larger of ||g|| and lam ||h||; not below what products allow.
        max_products: default min(n, 500). What there is then comes back with converged=False.
        max_look: of those, how many may go into the search for an eigenvalue that g hides; None: what is left.
        generator: for the random vectors; None takes a fresh seed.

    Returns:
        `CubicStep` with `residual` relative as `tol` is, `lowest` the smallest Ritz value and `products` made. h is in
        A's dtype on its device. converged=True: the residual is below `tol`, and the decrease at most about 1e-3 of it
        short of the least of all (with a probability of 1e-4 to be wrong; nothing is seen of eigenvalues closer to
        -lam than 1e-6 of the largest, or the error of a product).

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
        return _Cubic(A, start, M, max(tol, 16.0 * rounding(A)), min(limit, room), max_look, rng).run()
    finally:
        A.release()


class _Cubic:
    def __init__(
        self, A: LinearOperator, g: Tensor, M: float, tol: float, limit: int, look: int | None, rng: torch.Generator
    ) -> None:
        self.A, self.g, self.M, self.tol, self.limit, self.rng = A, g, M, tol, limit, rng
        self.space, self.floor = Krylov(A, limit), error_floor(A)
        self.size = math.sqrt(max(0.0, float(A.inner(g, g))))
        self.left = limit if look is None else look  # products for the search beside g

    def run(self) -> CubicStep:
        X = self.space.inject(self.g)
        if X.shape[-1] == 0:  # g = 0: a random vector is all there is
            X = self.space.inject(self.A.random(1, "normal", self.rng))
        self.space.absorb(products(self.A, X))
        proved = -math.inf  # no eigenvalue is below this
        while True:
            step, residual = self._converge()
            if residual > self.tol or self.space.exhausted:
                return self._result(step, residual, converged=residual <= self.tol)
            if proved >= self._level(step):
                return self._result(step, residual, converged=True)
            if not self._look(self._level(step, 0.5), step):
                step, residual = self._converge()
                return self._result(step, residual, converged=self.space.exhausted and residual <= self.tol)
            proved = self._level(step, 0.5)

    def _converge(self) -> tuple[CubicStep, float]:
        """The step in the basis, which grows by what A h has outside of it; its residual in the whole space."""
        while True:
            step, y, residual = self._solve()
            if residual <= self.tol or self.space.exhausted or self.space.size >= self.limit:
                return step, residual
            outside = self.space.B @ y
            X = self.space.propose(outside / float(outside.norm()))
            if X.shape[-1] == 0:  # invariant to rounding
                return step, residual
            self.space.absorb(products(self.A, X))

    def _level(self, step: CubicStep, share: float = 1.0) -> float:
        """Below this no eigenvalue may be hidden: -(lam + share delta), a little below the smallest that was seen."""
        square = float(step.h @ step.h)
        allowed = _SHARE * step.decrease
        delta = min(allowed / (2.0 * square), math.cbrt(allowed * self.M**2 / 8.0)) if square > 0 else 0.0
        closest = max(_CLOSEST, 2.0 * self.floor) * step.largest
        return min(-step.multiplier - share * delta, step.lowest - share * closest)

    def _look(self, level: float, step: CubicStep) -> bool:
        """Whether a search from random vectors proves that no eigenvalue is below the level, or finds the smallest."""
        before = self.space.size
        limit = min(self.limit, before + self.left)
        tol = (step.lowest - level) / step.largest if step.largest > 0 else 1.0
        task = Task(1, "SA", tol, limit, 1, None, True, self.floor, enough=-level)
        state = Search(self.A, task, self.space, self.rng).settle()
        self.left -= self.space.size - before
        return state.stopped == "certified"

    def _solve(self) -> tuple[CubicStep, Tensor, float]:
        """The step in the basis, its coordinates `(m, 1)`, and its residual in the whole space, relative."""
        ritz = self.space.ritz()
        coordinates = self.space.basis.inner(self.g)[:, 0]
        step = assemble(coordinates, ritz.values, ritz.coefficients, ritz.coefficients.T @ coordinates, self.M)
        y = step.h.reshape(-1, 1)
        outside = self.space.B @ y
        left = math.sqrt(max(0.0, float((outside * (self.space.gram @ outside)).sum()))) if outside.numel() else 0.0
        scale = max(self.size, step.multiplier * float(y.norm()))
        return step, y, left / scale if scale > 0 else 0.0

    def _result(self, step: CubicStep, residual: float, *, converged: bool) -> CubicStep:
        h = self.space.combine(step.h.reshape(-1, 1))[..., 0]
        return replace(step, h=h, residual=residual, products=self.space.size, converged=converged)
