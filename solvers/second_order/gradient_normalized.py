"""Newton's method by gradient-normalised smoothness (Semenov, Jaggi and Doikov, arXiv 2506.13710, algorithm 1).

    theta <- theta - (H~ + lam I)^(-1) g,      lam = ||g|| / gamma

H~ is the Hessian or an approximation with H~ >= 0, such as the Gauss-Newton or the Fisher matrix. The step is taken if
f - f+ >= ||g+||^2 / (8 lam), after which gamma doubles (and is at least 1e-9); else gamma halves. gamma is the radius
in which the gradient field is linear to the accuracy that the method needs. Where H~ has a negative eigenvalue w_1,
-w_1 is added to lam; a saddle point where g = 0 is not left. A step with another lr than 1 leaves (1 - lr) g even of an
exact model: it is taken if f - f+ >= ||g+ - (1 - lr) g||^2 / (8 lr lam).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from landscape.operators.linear import LinearOperator
from solvers.base import Parameters
from solvers.second_order.acceptance import Acceptance, gradient_left
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.space import Space, krylov_space, whole_space
from solvers.second_order.trial_point import Move, Point

_SMALLEST = 1e-9


@dataclass(frozen=True)
class GradientDecrease(Acceptance):
    """Taken iff f - f+ >= ||g+||^2 / (8 lam), after which gamma doubles; else it halves. For lr see the module."""

    growth: float = 0.5

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        after = float(gradient_left(point, move).square().sum())
        accepted = point.loss - new >= after / (8.0 * move.lr * move.shift)
        return accepted, max(2.0 * used, _SMALLEST) if accepted else self.growth * used


class GradientNormalizedNewton(NewtonSolver):
    """Newton by gradient-normalised smoothness; see the module for the update.

    Args:
        params: one group, on one device.
        gamma: the first radius, > 0.
        curvature: `curvature() -> LinearOperator`, H~ at the parameters as they stand, on the same flat vector as
            `params`; it is called once a step. None: the Hessian of the closure's loss.
        lr: scales the step, before its trial; what schedulers move.
        krylov: dimension of the Krylov space of g in which the system is solved; None for a dense matrix, up to
            n = 10,000.

    Example:
        >>> import torch
        >>> from solvers import GradientNormalizedNewton
        >>> x = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
        >>> solver = GradientNormalizedNewton([x])
        >>> losses = [float(solver.step(lambda: (x.exp() - x).sum())) for _ in range(15)]
        >>> round(losses[0], 3), round(losses[-1], 3)
        (6.757, 2.0)
    """

    def __init__(
        self,
        params: Parameters,
        gamma: float = 1.0,
        *,
        curvature: Callable[[], LinearOperator] | None = None,
        krylov: int | None = None,
        lr: float = 1.0,
    ) -> None:
        super().__init__(params, ("gamma", gamma), GradientDecrease(), krylov=krylov, lr=lr)
        self.curvature = curvature

    @override
    def _curvature(self) -> bool:
        return self.curvature is None

    @override
    def _whole(self) -> bool:
        return self.curvature is not None

    @override
    def _space(self, point: Point) -> Space:
        if self.curvature is None:
            return super()._space(point)
        A = self.curvature()
        if A.shape[0] != len(point.g):
            raise ValueError(f"curvature() is of size {A.shape[0]}, the parameters are {len(point.g)}")
        if self.krylov is not None:
            return krylov_space(point, A, self.krylov)
        B = A.to_dense().double().cpu()
        A.release()
        point.products += len(B)
        return whole_space(point.g, B)

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        space = self._space(point)
        size = float(point.g.norm())
        return lambda gamma: space.newton_step(size / gamma)[1]
