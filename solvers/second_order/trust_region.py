"""Trust-region Newton-CG: Steihaug's step in a ball, whose radius follows how well the model foretold the loss.

    h ~ argmin g.h + h.H h / 2  over ||h|| <= radius              by truncated CG, see `solvers.second_order.steihaug`
    rho = (f - f+) / -m(h):  taken iff rho >= 0.05 and f does not rise
    rho < 1/4: radius <- ||h|| / 4;      rho > 3/4 and ||h|| = radius: radius <- min(2 radius, largest)

(Nocedal and Wright, Numerical Optimization, Algorithms 4.1 and 7.2.) CG stops at a residual of ||g|| min(forcing,
sqrt(||g||)), which makes the local convergence superlinear. H may be that of another batch than f and g, a smaller one:
the ratio then also measures how well the sub-sample stands for the batch (sub-sampled Newton, arXiv 1609.08502).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Closure, Parameters, check
from solvers.repeatable import Repeatable
from solvers.second_order.acceptance import ACCEPT, Acceptance
from solvers.second_order.block_point import BlockModel
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.steihaug import Way, steihaug
from solvers.second_order.trial_point import GraphPoint, Move, Point

POOR, GOOD = 0.25, 0.75  # of the ratio; the first is also what a ball shrinks by


@dataclass(frozen=True)
class Radius(Acceptance):
    """Taken iff rho >= 0.05 and f does not rise; else tried again in a ball of a quarter of the step's length."""

    growth: float = 0.5  # where f is not finite
    tries: int = 15
    largest: float = math.inf

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        ratio = (point.loss - new) / move.decrease
        length = float(move.h.double().norm()) / move.lr
        following = used
        if not ratio >= POOR:
            following = POOR * min(used, length)
        elif ratio > GOOD and length >= (1.0 - 1e-6) * used:
            following = min(2.0 * used, self.largest)
        return ratio >= ACCEPT and new <= point.loss, following


class TrustRegionNewton(NewtonSolver):
    """Trust-region Newton-CG; see the module for the update.

    `step(closure)`, or `step(closure, hessian=other)` with a closure of the loss of another batch, whose Hessian it is
    then; it is called once and meets the same random numbers. A trial point in a smaller ball costs no product.

    Args:
        params: parameters, or groups of them, on one device.
        radius: of the first ball, > 0.
        largest: radius, >= radius.
        forcing: the largest relative residual of CG, in (0, 1).
        max_products: of a step; None is as many as there are parameters.
        lr: scales the step, before its trial; what schedulers move.

    Attributes:
        exit: why CG ended in the last step: "residual", "boundary", "curvature" or "products".

    Example:
        >>> import torch
        >>> from solvers import TrustRegionNewton
        >>> x = torch.tensor([1.0, 0.01], dtype=torch.float64, requires_grad=True)  # near a saddle point
        >>> solver = TrustRegionNewton([x], radius=0.5)
        >>> losses = [float(solver.step(lambda: x[0] ** 2 - x[1] ** 2 + x[1] ** 4)) for _ in range(12)]
        >>> round(losses[0], 3), round(losses[-1], 3)
        (1.0, -0.25)
    """

    def __init__(
        self,
        params: Parameters,
        radius: float = 1.0,
        *,
        largest: float = 1e3,
        forcing: float = 0.5,
        max_products: int | None = None,
        lr: float = 1.0,
    ) -> None:
        check(
            largest=(largest, radius <= largest),
            forcing=(forcing, 0 < forcing < 1),
            max_products=(max_products, max_products is None or max_products >= 1),
        )
        super().__init__(params, ("radius", radius), Radius(largest=largest), dense=False, lr=lr)
        self.forcing, self.max_products = forcing, max_products
        self.exit: str | None = None
        self._sample: Closure | None = None

    @override
    def step(self, closure: Closure | BlockModel | None = None, *, hessian: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; the loss at the point where it began, of `closure`. Raises as `NewtonSolver.step`."""
        self._sample = hessian
        try:
            return super().step(closure)
        finally:
            self._sample = None

    @override
    def _point(self, closure: Closure | BlockModel, leaves: list[Tensor]) -> Point:
        if self._sample is None:
            return super()._point(closure, leaves)
        return SampledPoint(self.repeatable(closure), leaves, self._sample)  # type: ignore[arg-type]

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        size = float(point.g.norm())
        ways: list[Way] = []

        def propose(radius: float) -> Move:
            if not ways:  # the first ball of a step is the largest
                tol, most = min(self.forcing, math.sqrt(size)), self.max_products or len(point.g)
                ways.append(steihaug(point.operator(), point.g, radius, tol=tol, max_products=most))
                point.products += ways[0].products
                self.exit = ways[0].exit
            (way,) = ways
            h, decrease, _ = way.to(radius)
            step = torch.zeros_like(point.g) if h is None else h[:, 0].double().cpu()
            return Move(step, max(0.0, decrease), way.lowest, way.products, indefinite=way.exit == "curvature")

        return propose


class SampledPoint(GraphPoint):
    """A point of a closure whose Hessian is that of another one, at the same parameters."""

    def __init__(self, closure: Repeatable, leaves: list[Tensor], sample: Closure) -> None:
        super().__init__(closure, leaves, False)
        self._sampled: Closure = lambda: closure.aside(sample)

    @override
    def _curved(self) -> Tensor:
        return self._evaluate(self._sampled)
