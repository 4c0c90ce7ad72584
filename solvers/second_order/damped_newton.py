"""Damped Newton steps whose length follows from the Newton decrement: theta <- theta - alpha n, n = H^(-1) g.

With G = sqrt(g.n):

    aicn    alpha = (sqrt(1 + 2 L G) - 1) / (L G)                         (Hanzely et al., NeurIPS 2022)
    root    alpha = 1 / (1 + theta), theta = (9 L)^(1 / (q - 1)) G^((q - 2) / (q - 1)), 2 <= q <= 4
                                                                          (root Newton, arXiv 2405.18926)

Neither changes when the parameters are transformed linearly, and alpha -> 1 near a minimum. Every finite step is
taken; L doubles where f was not finite. The methods are for strictly convex losses: where the Hessian is not positive
definite (to rounding) it is shifted until its smallest eigenvalue is `floor` times its largest in absolute value, and
`last.shift` is positive. Where it has a negative eigenvalue `last.indefinite` says so, and the step is taken only if f
does not rise: L doubles until then, for this step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from typing_extensions import override

from solvers.base import Parameters, check
from solvers.second_order.acceptance import ConvexFixed
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.space import Space
from solvers.second_order.trial_point import Move, Point


class DampedNewton(NewtonSolver):
    """Newton with a step length from the decrement; see the module for the updates.

    Args:
        params: one group, on one device.
        L: the semi-strong self-concordance constant for "aicn", M_q for "root"; > 0.
        rule: "aicn" or "root".
        q: for "root", in [2, 4]; 3 for a Lipschitz Hessian, 4 for a Lipschitz third derivative.
        floor: see the module; in (0, 1].
        lr: scales the step, before its trial; what schedulers move.
        krylov: dimension of the Krylov space of g in which the system is solved; None for the dense Hessian, up to
            n = 10,000.

    Example:
        >>> import torch
        >>> from solvers import DampedNewton
        >>> x = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
        >>> solver = DampedNewton([x])
        >>> losses = [float(solver.step(lambda: (x.exp() - x).sum())) for _ in range(15)]
        >>> round(losses[0], 3), round(losses[-1], 3)
        (6.757, 2.0)
    """

    def __init__(
        self,
        params: Parameters,
        L: float = 1.0,
        *,
        rule: Literal["aicn", "root"] = "aicn",
        q: float = 3.0,
        floor: float = 1e-3,
        krylov: int | None = None,
        lr: float = 1.0,
    ) -> None:
        check(rule=(rule, rule in ("aicn", "root")), q=(q, 2 <= q <= 4), floor=(floor, 0 < floor <= 1))
        super().__init__(params, ("L", L), ConvexFixed(), krylov=krylov, lr=lr)
        self.rule, self.q, self.floor = rule, q, floor

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        space = self._space(point)
        shift = _positive_shift(space, self.floor)
        n = space.solve(shift)  # minus the Newton direction
        squared = max(0.0, -float(space.c @ n))

        def propose(L: float) -> Move:
            alpha = self.length(L, math.sqrt(squared))
            decrease = (alpha - 0.5 * alpha**2) * squared
            h = space.lift(alpha * n)
            return Move(
                h, decrease, space.lowest, len(space.w), shift, slope=alpha * squared, indefinite=space.indefinite
            )

        return propose

    def length(self, L: float, decrement: float) -> float:
        """alpha for this decrement G."""
        if self.rule == "aicn":
            return 2.0 / (math.sqrt(1.0 + 2.0 * L * decrement) + 1.0)  # the same, without its 0 / 0
        theta = (9.0 * L) ** (1.0 / (self.q - 1.0)) * decrement ** ((self.q - 2.0) / (self.q - 1.0))
        return 1.0 / (1.0 + theta)


def _positive_shift(space: Space, floor: float) -> float:
    """What makes the Hessian positive definite; 0 where it is."""
    if not len(space.w):
        return 0.0
    if space.lowest > space.rounding:
        return 0.0
    return floor * float(space.w.abs().max()) - space.lowest
