"""Newton's method regularised by the gradient norm: theta <- theta - (H + lam I)^(-1) g with lam from ||g||.

    adaptive         lam = sqrt(H_k ||g||), H_k = max(H_{k-1} / 2, ||g_k - g_{k-1} - B dtheta|| / ||dtheta||^2) with
                     B the Hessian of the step before; every finite step is taken (Mishchenko, arXiv 2112.02089, AdaN+)
    line-search      lam = sqrt(H_k ||g||); from H_{k-1} / 2 on H_k doubles until f+ <= f - (2/3) lam ||h||^2 and
                     ||g+|| <= 2 lam ||h|| (the same paper, AdaN)
    super-universal  lam = H_k ||g||^alpha; H_k is multiplied by 4 until <g+, theta - theta+> >= ||g+||^2 / (4 lam) and
                     divided by 4 after a step (Doikov, Mishchenko and Nesterov, arXiv 2208.05888)
    fixed            lam = sqrt(H ||g||); every finite step is taken

These are methods for convex losses. Where the Hessian has a negative eigenvalue w_1 (in the space that is looked at),
-w_1 is added to lam, which no convex loss will notice; `last.indefinite` says so, and "adaptive" and "fixed" take such
a step only if f does not rise (H doubles until then, for this step alone). A saddle point where g = 0 is not left.

A step with another lr than 1 leaves (1 - lr) g even of an exact model. With s = lr h and r = g+ - (1 - lr) g "line-
search" asks for f+ <= f - (1 / lr - lr / 3) lam ||s||^2 and ||r|| <= 2 lam ||s||, "super-universal" for
<r, -s> >= ||r||^2 / (4 lam), and "adaptive" measures the model's error at s: bounds of the same proofs at that point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.second_order.acceptance import SMALLEST, Acceptance, ConvexFixed, gradient_left
from solvers.second_order.newton import NewtonSolver
from solvers.second_order.trial_point import Move, Point

_SMALLEST_UNIVERSAL = 1e-5  # of H_k in the published implementation


@dataclass(frozen=True)
class LineSearch(Acceptance):
    """Taken iff f+ <= f - (2/3) lam ||h||^2 and ||g+|| <= 2 lam ||h||; else H_k doubles. It is halved before a step."""

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        after, r = float(gradient_left(point, move).norm()), float(move.h.double().norm())
        share = 1.0 / move.lr - move.lr / 3.0
        accepted = new <= point.loss - share * move.shift * r**2 and after <= 2.0 * move.shift * r
        return accepted, used if accepted else self.growth * used


@dataclass(frozen=True)
class SuperUniversal(Acceptance):
    """Taken iff <g+, -h> >= ||g+||^2 / (4 lam), after which H_k is divided by 4; else it is multiplied by 4."""

    @override
    def judge(self, point: Point, move: Move, new: float, used: float) -> tuple[bool, float]:
        after = gradient_left(point, move)
        accepted = -float(after @ move.h.double().cpu()) >= float(after.square().sum()) / (4.0 * move.shift)
        return accepted, max(0.25 * used, _SMALLEST_UNIVERSAL) if accepted else 4.0 * used


# "adaptive" estimates H_k from the gradients, and takes what comes of it
_RULES: dict[str, Acceptance] = {
    "adaptive": ConvexFixed(),
    "line-search": LineSearch(),
    "super-universal": SuperUniversal(),
    "fixed": ConvexFixed(),
}


class GradientRegularizedNewton(NewtonSolver):
    """Gradient-regularised Newton; see the module for the updates.

    Args:
        params: one group, on one device.
        H: the first H_k, > 0.
        rule: "adaptive", "line-search", "super-universal" or "fixed".
        alpha: exponent of the gradient norm for "super-universal", in [2/3, 1].
        lr: scales the step, before its trial; what schedulers move.
        krylov: dimension of the Krylov space of g in which the system is solved; None for the dense Hessian, up to
            n = 10,000.

    Example:
        >>> import torch
        >>> from solvers import GradientRegularizedNewton
        >>> x = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
        >>> solver = GradientRegularizedNewton([x])
        >>> losses = [float(solver.step(lambda: (x.exp() - x).sum())) for _ in range(15)]
        >>> round(losses[0], 3), round(losses[-1], 3)
        (6.757, 2.0)
    """

    _memory: ClassVar[tuple[str, ...]] = ("predicted", "length")

    def __init__(
        self,
        params: Parameters,
        H: float = 1.0,
        *,
        rule: Literal["adaptive", "line-search", "super-universal", "fixed"] = "adaptive",
        alpha: float = 1.0,
        krylov: int | None = None,
        lr: float = 1.0,
    ) -> None:
        check(rule=(rule, rule in _RULES), alpha=(alpha, 2 / 3 <= alpha <= 1))
        super().__init__(params, ("H", H), _RULES[rule], krylov=krylov, lr=lr)
        self.rule, self.alpha = rule, alpha
        self._predicted: Tensor | None = None  # the gradient here by the last step's quadratic model
        self._length = 0.0
        self._next: tuple[Tensor, float] | None = None

    @override
    def _first(self, point: Point, constant: float) -> float:
        if self.rule == "line-search":
            return max(0.5 * constant, SMALLEST)
        if self.rule == "adaptive" and self._predicted is not None and self._length > 0:
            seen = float((point.g - self._predicted).norm()) / self._length**2
            return max(0.5 * constant, seen, SMALLEST)
        return constant

    @override
    def _model(self, point: Point) -> Callable[[float], Move]:
        space = self._space(point)
        size = float(point.g.norm())

        def propose(H: float) -> Move:
            lam = H * size**self.alpha if self.rule == "super-universal" else math.sqrt(H * size)
            step, move = space.newton_step(lam)
            if self.rule == "adaptive":
                self._next = space.image(step), float(step.norm())
            return move

        return propose

    @override
    def _forget(self) -> None:
        self._predicted = None

    @override
    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        if accepted and self._next is not None:
            image, length = self._next
            self._predicted, self._length = point.g + move.lr * image, move.lr * length
        elif not accepted:
            self._predicted = None
        self._next = None
