"""Cubic Newton with lazy Hessians (Doikov, Chayti and Jaggi, ICML 2023): one Hessian serves `period` steps.

    theta <- theta + argmin_h g_k.h + h.H_pi(k) h / 2 + (M / 6) ||h||^3,      pi(k) = k - k mod period

Gradients are fresh. The Hessian's decomposition is kept as well, so a step between two Hessians costs O(n^2); with
period = n the whole saves a factor sqrt(n) in arithmetic. The theory takes M = 6 period L for rule "fixed"; "doubling"
and "ratio" are those of `CubicNewton`, in which M follows how stale the Hessian is.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.second_order.acceptance import Rule
from solvers.second_order.cubic_newton import CubicNewton
from solvers.second_order.trial_point import Move, Point


class LazyCubicNewton(CubicNewton):
    """Cubic Newton with a Hessian that is made every `period` steps; see the module for the update.

    Args:
        params: one group, on one device, of at most 10,000 parameters.
        M: first weight of the cubic term, > 0.
        period: steps that one Hessian serves, those that were rejected included.
        rule: "doubling", "ratio" or "fixed".
        lr: scales the step, before its trial; what schedulers move.

    Memory beside the model: n^2, which `state_dict` includes.

    Example:
        >>> import torch
        >>> from solvers import LazyCubicNewton
        >>> x = torch.ones(5, dtype=torch.float64, requires_grad=True)
        >>> solver, products = LazyCubicNewton([x], period=3), []
        >>> for _ in range(6):
        ...     loss = solver.step(lambda: x.exp().sum() - x.sum())
        ...     products.append(solver.last.products)
        >>> round(float(loss), 3), products
        (5.0, [5, 0, 0, 5, 0, 0])
    """

    _memory: ClassVar[tuple[str, ...]] = ("kept", "age")

    def __init__(
        self, params: Parameters, M: float = 1.0, *, period: int = 10, rule: Rule = "doubling", lr: float = 1.0
    ) -> None:
        check(period=(period, period >= 1))
        super().__init__(params, M, rule=rule, lr=lr)
        self.period = period
        self._kept: tuple[Tensor, Tensor] | None = None
        self._age = 0

    @override
    def _curvature(self) -> bool:
        return self._kept is None or self._age >= self.period

    @override
    def _eigenbasis(self, point: Point) -> tuple[Tensor, Tensor]:
        if self._kept is None or self._age >= self.period:
            self._kept, self._age = super()._eigenbasis(point), 0
        return self._kept

    @override
    def _forget(self) -> None:
        self._kept = None

    @override
    def _finish(self, point: Point, move: Move, accepted: bool) -> None:
        self._age += 1
