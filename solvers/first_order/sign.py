"""Descent along the sign of the gradient, or of its running mean, with either kind of weight decay.

    coupled     m <- momentum m + (1 - momentum) (g + weight_decay theta)     theta <- theta - lr sign(m)
    decoupled   m <- momentum m + (1 - momentum) g         theta <- (1 - lr weight_decay) theta - lr sign(m)

SignSGD is the case without momentum. sign(0) = 0. The two decays lead to different places (arXiv 2602.16642, theorems
on SignGD: in the unconstrained-features model the column sums of the last layer vanish with coupled decay only).
"""

from __future__ import annotations

import torch

from solvers.base import Parameters
from solvers.first_order.base import FirstOrder, Update, add_decay, buffers, momentum_settings


class Signum(FirstOrder):
    """Sign of the running mean of gradients; see the module for the update.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0: what each entry moves by.
        momentum: in [0, 1).
        weight_decay: >= 0.
        decoupled: False puts the decay inside the sign, True takes it off the parameters.
        maximize: climb in place of descending, as in torch.

    Example:
        >>> import torch
        >>> from solvers import Signum
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = Signum([x], lr=0.1)
        >>> loss = solver.step(lambda: x.square().sum())
        >>> [round(v, 2) for v in x.tolist()]  # each entry moves by lr
        [2.9, -1.9]
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, momentum_settings(lr, momentum, weight_decay, decoupled, maximize))

    def _move(self, update: Update) -> None:
        group, parameters, gradients, states = update
        lr, decay, momentum = float(group["lr"]), group["weight_decay"], group["momentum"]
        if not group["decoupled"]:
            gradients = add_decay(gradients, parameters, decay)
        if momentum:
            mean = buffers(states, parameters, "mean")
            torch._foreach_lerp_(mean, gradients, 1.0 - momentum)
            gradients = mean
        signs = torch._foreach_sign(gradients)
        if group["decoupled"] and decay:
            torch._foreach_mul_(parameters, 1.0 - lr * decay)
        torch._foreach_add_(parameters, signs, alpha=-lr)


class SignSGD(Signum):
    """Sign of the gradient, `Signum` without momentum.

    Example:
        >>> import torch
        >>> from solvers import SignSGD
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> loss = SignSGD([x], lr=0.1).step(lambda: x.square().sum())
        >>> float(loss), [round(v, 2) for v in x.tolist()]
        (13.0, [2.9, -1.9])
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, momentum=0.0, weight_decay=weight_decay, decoupled=decoupled, maximize=maximize)
