"""SANIA: Polyak's step in a metric without a root, so that scales of parameters play no part (arXiv 2312.17369).

    N = g^T B^(-1) g                        s = 1 - sqrt(1 - 2 (f - f*) / N),  1 where 2 (f - f*) >= N
    theta <- theta - lr s B^(-1) g

    metric "adagrad"    B = the sum of g^2 so far (AdaGrad-SQR)
           "adam"       B = v / (1 - beta^t), v <- beta v + (1 - beta) g^2 (Adam-SQR)
           "hessian"    B = |D|, D <- beta D + (1 - beta) z * (H z), z Rademacher, the first D being z * (H z)

each entry of B at least `eps`. f and g are of the step's batch, f* a lower bound of it. Groups with several lr have one
model in all: N is summed over them. For "hessian" scales play no part in the mean of D alone, not in each estimate.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Closure, Parameters, check
from solvers.first_order.base import LossFirstOrder, StepSize, Update, buffers, inner_products, square_norm
from solvers.preconditioned.base import Preconditioned
from solvers.preconditioned.hutchinson import HessianDiagonal

METRICS = ("adagrad", "adam", "hessian")


class SANIA(HessianDiagonal, LossFirstOrder):
    """SANIA; see the module for the update.

    `step(closure)`, or for metrics of gradients `loss.backward(); step(loss=loss)` too.

    Args:
        params: parameters, or groups with an `lr` of their own.
        lr: scales the step, >= 0; the rule needs none.
        metric: "adagrad", "adam" or "hessian".
        beta: of the running mean, in [0, 1).
        eps: the least entry of B, > 0, as in the authors' package. Below it scales do play a part.
        lower_bound: f*, a lower bound of every batch's loss.
        every, probes, generator: of the estimates of "hessian", see `AdaHessian`.

    Attributes:
        last: the loss, sqrt(N) and s of the last step, None before the first.

    Raises:
        ValueError: settings that are not possible; at a step no loss, or a loss or gradient that is not finite, or a
            loss below `lower_bound`. Nothing is moved then.

    Example:
        >>> import torch
        >>> from solvers import SANIA
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = SANIA([x], metric="hessian", eps=1e-8)
        >>> losses = [float(solver.step(lambda: x[0] ** 2 + 50 * x[1] ** 2)) for _ in range(2)]
        >>> losses  # Newton's step, for 2 f = N
        [209.0, 0.0]
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        *,
        metric: Literal["adagrad", "adam", "hessian"] = "adam",
        beta: float = 0.999,
        eps: float = 0.1,
        lower_bound: float = 0.0,
        every: int = 1,
        probes: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check(metric=(metric, metric in METRICS))
        settings = check(
            lr=(lr, lr >= 0),
            beta=(beta, 0 <= beta < 1),
            eps=(eps, eps > 0),
            lower_bound=(lower_bound, math.isfinite(lower_bound)),
        )
        super().__init__(params, settings, every=every, probes=probes, generator=generator)
        self.metric = metric

    @override
    def step(self, closure: Closure | None = None, *, loss: Tensor | float | None = None) -> Any:  # type: ignore[override]
        """One step; the loss at the point where it began. Raises `ValueError`, see the class."""
        if self.metric != "hessian":
            return Preconditioned.step(self, closure, loss=loss)
        return super().step(closure, loss=loss)

    @override
    def evaluate(self, closure: Closure) -> tuple[Any, dict[Tensor, Tensor]]:
        """As of the base class; second derivatives for metric "hessian" alone."""
        return super().evaluate(closure) if self.metric == "hessian" else Preconditioned.evaluate(self, closure)

    @override
    def _move_all(self, loss: float, updates: list[Update]) -> None:
        gap = self.gap(loss, self.param_groups[0]["lower_bound"])
        size = square_norm([g for update in updates for g in update.gradients])
        if not math.isfinite(size):
            raise ValueError(f"the norm of the gradient is {math.sqrt(size)}: nothing was moved")
        if self.metric == "hessian":
            updates = self._with_curvature(updates)
        directions = [torch._foreach_div(update.gradients, self._metric(update)) for update in updates]
        square = sum(
            float(inner_products(update.gradients, list(d)).sum())
            for update, d in zip(updates, directions, strict=True)
        )
        s = 1.0 - math.sqrt(1.0 - 2.0 * gap / square) if 2.0 * gap < square else 1.0
        for update, direction in zip(updates, directions, strict=True):
            torch._foreach_add_(update.parameters, direction, alpha=-float(update.group["lr"]) * s)
        self.last = StepSize(loss, math.sqrt(square), s)

    def _metric(self, update: Update) -> list[Tensor]:
        """B of a group, after this step's gradient."""
        group, parameters, gradients, states = update
        if self.metric == "hessian":
            B = list(torch._foreach_abs(buffers(states, parameters, "curvature")))
        else:
            square = buffers(states, parameters, "square")
            for state in states:
                state["step"] = state.get("step", 0) + 1
            if self.metric == "adagrad":
                torch._foreach_addcmul_(square, gradients, gradients)
                B = [one.clone() for one in square]
            else:
                torch._foreach_mul_(square, group["beta"])
                torch._foreach_addcmul_(square, gradients, gradients, 1.0 - group["beta"])
                B = list(torch._foreach_div(square, [1.0 - group["beta"] ** state["step"] for state in states]))
        torch._foreach_clamp_min_(B, group["eps"])
        return B
