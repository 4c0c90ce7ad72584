"""Gradient descent with the heavy ball and either kind of weight decay.

    coupled     v <- momentum v + g + weight_decay theta      theta <- theta - lr v
    decoupled   v <- momentum v + g                           theta <- (1 - lr weight_decay) theta - lr v

Without momentum the two are the same. With it, coupled decay acts about 1 / (1 - momentum) times as fast
(arXiv 2602.16642, theorems on SGD). lr multiplies the velocity, so that schedules act at once.
"""

from __future__ import annotations

import torch

from solvers.base import Parameters
from solvers.first_order.base import FirstOrder, Update, add_decay, buffers, momentum_settings


class SGD(FirstOrder):
    """Stochastic gradient descent with heavy-ball momentum; see the module for the update.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0.
        momentum: in [0, 1).
        weight_decay: >= 0.
        decoupled: False adds the decay to the gradient, as `torch.optim.SGD`; True takes it off the parameters.
        maximize: climb in place of descending, as in torch.

    Example:
        >>> import torch
        >>> from solvers import SGD
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = SGD([x], lr=0.1, momentum=0.5)
        >>> losses = [float(solver.step(lambda: x.square().sum())) for _ in range(50)]
        >>> losses[0], losses[-1] < 1e-6
        (13.0, True)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, momentum_settings(lr, momentum, weight_decay, decoupled, maximize))

    def _move(self, update: Update) -> None:
        group, parameters, gradients, states = update
        lr, decay = float(group["lr"]), group["weight_decay"]
        if not group["decoupled"]:
            gradients = add_decay(gradients, parameters, decay)
        elif decay:
            torch._foreach_mul_(parameters, 1.0 - lr * decay)
        if group["momentum"]:
            velocity = buffers(states, parameters, "velocity")
            torch._foreach_mul_(velocity, group["momentum"])
            torch._foreach_add_(velocity, gradients)
            gradients = velocity
        torch._foreach_add_(parameters, gradients, alpha=-lr)
