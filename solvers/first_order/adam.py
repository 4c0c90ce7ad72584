"""Adam with a coupled and a decoupled weight decay at once: from Adam to AdamW (arXiv 2602.16642, interpolation).

    g <- g + coupled theta
    m <- beta1 m + (1 - beta1) g             s <- beta2 s + (1 - beta2) g^2
    theta <- theta - lr m' / (sqrt(s') + eps)      with m' = m / (1 - beta1^t), s' = s / (1 - beta2^t)
    theta <- (1 - lr decoupled) theta

The decoupled part comes after the step, as in that paper's code; `torch.optim.AdamW` shrinks before it. With
decoupled = 0 this is `torch.optim.Adam` with weight_decay = coupled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.first_order.base import NOT_YET, FirstOrder, Update, adam_step, add_decay


class AdamCoupled(FirstOrder):
    """Adam with both kinds of weight decay; see the module for the update.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0.
        betas: of the two running means, in [0, 1).
        eps: > 0.
        coupled, decoupled: weight decays, >= 0.
        maximize: climb in place of descending, as in torch.

    Example:
        >>> import torch
        >>> from solvers import AdamCoupled
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = AdamCoupled([x], lr=0.1, coupled=1e-4, decoupled=1e-2)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(100)]
        >>> losses[0], losses[-1] < 0.01
        (13.0, True)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        coupled: float = 0.0,
        decoupled: float = 0.0,
        maximize: bool = False,
    ) -> None:
        settings = check(
            lr=(lr, lr >= 0),
            betas=(betas, all(0 <= b < 1 for b in betas) and len(betas) == 2),
            eps=(eps, eps > 0),
            coupled=(coupled, coupled >= 0),
            decoupled=(decoupled, decoupled >= 0),
            maximize=(maximize, True),
        )
        super().__init__(params, settings)

    def _move(self, update: Update) -> None:
        group, parameters, gradients, _ = update
        lr = float(group["lr"])
        adam_step(update._replace(gradients=add_decay(gradients, parameters, group["coupled"])), lr)
        if group["decoupled"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["decoupled"])

    @override
    def _preconditioned_one(self, group: Mapping[str, Any], v: Tensor, state: dict[str, Any]) -> Tensor:
        if "step" not in state:
            raise ValueError(NOT_YET)
        square = state["square"].to(v) / (1.0 - group["betas"][1] ** state["step"])
        return v / (square.sqrt() + group["eps"])
