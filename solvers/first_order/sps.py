"""Polyak's step on the loss of a batch: SPS_max and its decreasing form.

    SPS_max   gamma_k = min{ (f - f*) / (c ||g||^2), lr }                              (arXiv 2002.10542; Theorem 2 of
                                                                                        arXiv 2410.12455)
    DecSPS    gamma_k = (1/c_k) min{ (f - f*) / ||g||^2, c_(k-1) gamma_(k-1) },        (arXiv 2205.04583; Theorem 5 of
              c_k = c0 sqrt(k + 1), c_(-1) = c0, gamma_(-1) = lr                        arXiv 2410.12455)

f, g: loss and gradient of the step's batch, f* a lower bound of it. Groups with several lr have one model in the metric
diag(1 / lr): with N = sum over groups of lr ||g||^2, the step of a group is lr s, for SPS_max s = min{(f - f*) / (c N),
1}, and DecSPS is the recursion above for s, from s_(-1) = 1. One lr for all gives the published rules.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.first_order.base import LossFirstOrder, StepSize, Update, square_norm


class _Polyak(LossFirstOrder):
    """theta <- theta - lr s g in all groups."""

    def _move_all(self, loss: float, updates: list[Update]) -> None:
        gap = self.gap(loss, self.param_groups[0]["lower_bound"])
        square = sum(float(update.group["lr"]) * square_norm(update.gradients) for update in updates)
        if not math.isfinite(square):
            raise ValueError(f"the norm of the gradient is {math.sqrt(abs(square))}: nothing was moved")
        shrink = self._shrink(self.param_groups[0], gap, square)
        for update in updates:
            torch._foreach_add_(update.parameters, update.gradients, alpha=-float(update.group["lr"]) * shrink)
        self.last = StepSize(loss, math.sqrt(square), shrink)

    def _shrink(self, first: dict[str, Any], gap: float, square: float) -> float:
        """s by the first group's settings, f - f* and N."""
        raise NotImplementedError


class SPSMax(_Polyak):
    """The Polyak step with a largest one; see the module for the rule.

    Args:
        params: parameters, or groups with an `lr` of their own.
        lr: the largest step (gamma_b), >= 0.
        c: > 0. 1 is Polyak's step; convex losses need more than 1/2, the alpha-beta-condition more than
            1 / (2 (alpha - beta)). The one of the first group counts.
        lower_bound: f*, a lower bound of every batch's loss. The one of the first group counts.

    Raises:
        ValueError: settings that are not possible; at a step no loss, or a loss or gradient that is not finite, or a
            loss below `lower_bound`. Nothing is moved then.

    Example:
        >>> import torch
        >>> from solvers import SPSMax
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = SPSMax([x], lr=10.0)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(20)]
        >>> losses[0], losses[-1] < 1e-9, round(10.0 * solver.last.shrink, 2)  # the step that it chose
        (13.0, True, 0.25)
    """

    def __init__(self, params: Parameters, lr: float, *, c: float = 1.0, lower_bound: float = 0.0) -> None:
        bound = (lower_bound, math.isfinite(lower_bound))
        super().__init__(params, check(lr=(lr, lr >= 0), c=(c, c > 0), lower_bound=bound))

    @override
    def _shrink(self, first: dict[str, Any], gap: float, square: float) -> float:
        return gap / (first["c"] * square) if gap < first["c"] * square else 1.0


class DecSPS(_Polyak):
    """Polyak steps that decrease, for convergence without interpolation; see the module for the rule.

    c_k gamma_k never grows: a batch whose loss is `lower_bound` while its gradient is not 0 ends the descent for good.

    Args:
        params: parameters, or groups with an `lr` of their own.
        lr: the step before the first (gamma_b), >= 0.
        c0: > 0; the theorem asks for at least 1 / (alpha - beta), 1 for convex losses. Of the first group.
        lower_bound: f*, a lower bound of every batch's loss. Of the first group.

    Raises:
        ValueError: as `SPSMax`.

    Example:
        >>> import torch
        >>> from solvers import DecSPS
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = DecSPS([x], lr=10.0)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(20)]
        >>> losses[0], losses[-1] < 1.0
        (13.0, True)
    """

    def __init__(self, params: Parameters, lr: float, *, c0: float = 1.0, lower_bound: float = 0.0) -> None:
        bound = (lower_bound, math.isfinite(lower_bound))
        super().__init__(params, check(lr=(lr, lr >= 0), c0=(c0, c0 > 0), lower_bound=bound))

    @override
    def _shrink(self, first: dict[str, Any], gap: float, square: float) -> float:
        # the state is kept with the settings, which are saved and copied
        k, bound = first.get("recursion", (0, first["c0"]))  # bound = c_(k-1) s_(k-1)
        if gap < bound * square:
            bound = gap / square
        first["recursion"] = (k + 1, bound)
        return bound / (first["c0"] * math.sqrt(k + 1))
