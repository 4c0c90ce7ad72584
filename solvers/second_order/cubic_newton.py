"""Cubic Newton: theta moves by the minimiser of g.h + h.H h / 2 + (M / 6) ||h||^3 (Nesterov and Polyak 2006).

The rules for M are those of `solvers.second_order.acceptance`. Saddle points are left, also where the gradient is zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.second_order.acceptance import RULES, Rule
from solvers.second_order.cubic import CubicStep, assemble
from solvers.second_order.cubic_krylov import solve_cubic_krylov
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.space import eigenbasis
from solvers.second_order.trial_point import Move, Point

# Products of a step that may go into the search for negative curvature that g hides.
_LOOK = 20


class CubicNewton(NewtonSolver):
    """Cubic Newton; see the module for the update.

    Args:
        params: one group, on one device.
        M: first weight of the cubic term, > 0.
        rule: "doubling", "ratio" or "fixed".
        krylov: False decomposes the dense Hessian, made by n products, up to n = 10,000. True solves the cubic
            sub-problem in a Krylov space that grows until its residual is below `tol`; a number bounds its products.
        tol: see `solve_cubic_krylov`.
        lr: scales the step, before its trial; what schedulers move.
        generator: for the second, random start of the Krylov space; its state is part of `state_dict`.

    With krylov each further trial point of "doubling" calls the closure once more and searches anew.

    Example:
        >>> import torch
        >>> from solvers import CubicNewton
        >>> x = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # a saddle point
        >>> solver = CubicNewton([x])
        >>> losses = [float(solver.step(lambda: x[0] ** 2 - x[1] ** 2 + x[1] ** 4)) for _ in range(20)]
        >>> losses[0], round(losses[-1], 3), solver.last.lowest > 0
        (0.0, -0.25, True)
    """

    def __init__(
        self,
        params: Parameters,
        M: float = 1.0,
        *,
        rule: Rule = "doubling",
        krylov: bool | int = False,
        tol: float = 1e-6,
        lr: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check(rule=(rule, rule in RULES), tol=(tol, tol > 0), krylov=(krylov, krylov >= 0))
        super().__init__(params, ("M", M), RULES[rule](), dense=not krylov, lr=lr, generator=generator)
        self.rule, self.tol = rule, tol
        self._max_products = None if isinstance(krylov, bool) else krylov

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        if not self._dense:
            return lambda M: self._search(point, M)
        w, U = self._eigenbasis(point)
        c = U.T @ point.g

        def propose(M: float) -> Move:
            step = assemble(point.g, w, U, c, M)
            return _move(step, len(c))

        return propose

    def _eigenbasis(self, point: Point) -> tuple[Tensor, Tensor]:
        return eigenbasis(point.dense())

    def _search(self, point: Point, M: float) -> Move:
        found = solve_cubic_krylov(
            point.g,
            point.operator(),
            M,
            tol=self.tol,
            max_products=self._max_products,
            max_look=_LOOK,
            generator=self.generator,
        )
        point.products += found.products
        return _move(found, found.products)


def _move(step: CubicStep, size: int) -> Move:
    cubic = step.multiplier / 3.0 * float(step.h.double().square().sum())
    return Move(
        step.h,
        step.decrease,
        step.lowest,
        size,
        step.multiplier,
        step.hard_case,
        cubic=cubic,
        indefinite=step.indefinite,
    )
