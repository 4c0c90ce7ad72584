"""MoMo: momentum with a step size from a model of the loss that is cut off at a lower bound (arXiv 2305.07583).

Running means of the loss, of <g, theta> and of the gradient, f', q and d, add up to a model of the loss: with rho the
sum of their weights, m(y) = (f' - q + <d, y>) / rho. A step minimises

    max{m(y), lower_bound} + sum over groups of ||y - theta||_D^2 / (2 lr) + (weight_decay / 2) ||y||_D^2.

MoMo has D = 1, MoMo-Adam D = eps + sqrt(v') with Adam's v' (bias-corrected). With lambda = weight_decay the minimiser
is

    theta <- (theta - (lr s / rho) D^-1 d) / (1 + lr lambda),    s = min{1, (rho B / N)_+},
    B = f' - rho lower_bound - q + sum of <d, theta> / (1 + lr lambda),
    N = sum of lr ||d||_(D^-1)^2 / (1 + lr lambda),

sums over groups. For one group this is the rule of the paper; for several, the same minimisation with their lr's.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from solvers.base import Parameters, check
from solvers.first_order.base import LossFirstOrder, StepSize, Update, adam_root, buffers, inner_products


class MoMo(LossFirstOrder):
    """Momentum with an adaptive step; see the module for the update.

    `last.shrink` is s. A parameter without a gradient stays where it is, with its means, and counts as fixed.

    Args:
        params: parameters, or groups with an `lr` and `weight_decay` of their own; the rest is the first group's.
        lr: the largest step, >= 0.
        beta: of the running means, in [0, 1).
        lower_bound: of the loss. Where it is above the smallest loss, steps stop too early; where it is far below,
            they are those of momentum with the constant step lr.
        weight_decay: >= 0.
        bias_correction: False starts the means at their first value (rho = 1), True at 0 (rho = 1 - beta^k).

    Raises:
        ValueError: settings that are not possible; at a step no loss, or a loss or gradient that is not finite:
            nothing is moved then.

    Example:
        >>> import torch
        >>> from solvers import MoMo
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = MoMo([x], lr=10.0)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(50)]
        >>> losses[0], losses[-1] < 1.0, solver.last.shrink < 1  # of the lr, which is too large
        (13.0, True, True)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        *,
        beta: float = 0.9,
        lower_bound: float = 0.0,
        weight_decay: float = 0.0,
        bias_correction: bool = False,
    ) -> None:
        settings = _settings(lr, lower_bound, weight_decay) | check(beta=(beta, 0 <= beta < 1))
        super().__init__(params, settings | {"bias_correction": bias_correction})

    def _move_all(self, loss: float, updates: list[Update]) -> None:
        first = self.param_groups[0]
        beta, corrected = self._mean_of(first)
        inner = [inner_products(update.gradients, update.parameters).tolist() for update in updates]
        if not all(map(math.isfinite, itertools.chain(*inner))):
            raise ValueError("the gradient is not finite: nothing was moved")
        k, mean_loss = first.get("means", (0, 0.0 if corrected else loss))
        k, mean_loss = k + 1, beta * mean_loss + (1.0 - beta) * loss
        rho = 1.0 - beta**k if corrected else 1.0
        rises, square, directions = mean_loss - rho * first["lower_bound"], 0.0, []
        for update, products in zip(updates, inner, strict=True):
            shrink = 1.0 / (1.0 + float(update.group["lr"]) * update.group["weight_decay"])
            mean, q = self._means(update, products, beta, corrected)
            directions.append(self._directions(update, mean))
            rises += shrink * sum(inner_products(mean, update.parameters).tolist()) - sum(q)
            square += float(update.group["lr"]) * shrink * sum(inner_products(mean, directions[-1]).tolist())
        share = min(1.0, max(0.0, rho * rises / square)) if square > 0 else 1.0
        for update, direction in zip(updates, directions, strict=True):
            lr = float(update.group["lr"])
            torch._foreach_add_(update.parameters, direction, alpha=-lr * share / rho)
            if update.group["weight_decay"]:
                torch._foreach_div_(update.parameters, 1.0 + lr * update.group["weight_decay"])
        first["means"] = (k, mean_loss)
        self.last = StepSize(loss, math.sqrt(square), share)

    def _means(
        self, update: Update, inner: list[float], beta: float, corrected: bool
    ) -> tuple[list[Tensor], list[float]]:
        """d and q of each parameter, after this step's gradient and its <g, theta>."""
        for state, g, product in zip(update.states, update.gradients, inner, strict=True):
            if "inner" not in state:
                state["mean"] = torch.zeros_like(g) if corrected else g.clone()
                state["inner"] = 0.0 if corrected else product
            state["inner"] = beta * state["inner"] + (1.0 - beta) * product
        mean = buffers(update.states, update.parameters, "mean")
        torch._foreach_lerp_(mean, update.gradients, 1.0 - beta)
        return mean, [state["inner"] for state in update.states]

    def _mean_of(self, group: dict[str, Any]) -> tuple[float, bool]:
        """beta, and whether the means start at 0."""
        return group["beta"], group["bias_correction"]

    def _directions(self, update: Update, mean: list[Tensor]) -> list[Tensor]:
        """D^-1 d."""
        return mean


class MoMoAdam(MoMo):
    """Adam with an adaptive step; see the module for the update.

    Weight decay is the proximal one, theta / (1 + lr weight_decay) (the paper's code also has a factor 1 - lr
    weight_decay, the same to first order in lr).

    Args:
        params: parameters, or groups with an `lr`, `eps` and `weight_decay` of their own.
        lr: the largest step, >= 0.
        betas: of the two running means, in [0, 1); the first is the first group's.
        eps: > 0.
        lower_bound: as in `MoMo`.
        weight_decay: >= 0.

    Raises:
        ValueError: as `MoMo`.

    Example:
        >>> import torch
        >>> from solvers import MoMoAdam
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = MoMoAdam([x], lr=0.5)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(50)]
        >>> losses[0], losses[-1] < 0.1
        (13.0, True)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        lower_bound: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        means = check(betas=(betas, len(betas) == 2 and all(0 <= b < 1 for b in betas)), eps=(eps, eps > 0))
        LossFirstOrder.__init__(self, params, _settings(lr, lower_bound, weight_decay) | means)

    def _mean_of(self, group: dict[str, Any]) -> tuple[float, bool]:
        return group["betas"][0], True

    def _directions(self, update: Update, mean: list[Tensor]) -> list[Tensor]:
        root = adam_root(update, update.group["betas"][1])
        torch._foreach_reciprocal_(root)
        torch._foreach_mul_(root, mean)
        return root


def _settings(lr: float, lower_bound: float, weight_decay: float) -> dict[str, Any]:
    return check(
        lr=(lr, lr >= 0),
        lower_bound=(lower_bound, math.isfinite(lower_bound)),
        weight_decay=(weight_decay, weight_decay >= 0),
    )
