"""AdaHessian: Adam with the Hessian's diagonal in the place of the gradient (arXiv 2006.00719, Algorithm 1).

    m <- beta1 m + (1 - beta1) g                     v <- beta2 v + (1 - beta2) D^2
    theta <- (1 - lr weight_decay) theta - lr m' / (sqrt(v')^power + eps)
    with m' = m / (1 - beta1^t), v' = v / (1 - beta2^s), s the estimates so far (t where one is made at each step)

D is z * (H z) of Rademacher z, in each kernel of a convolution replaced by the mean of |D| there, as in the published
code; the paper's (10) prints the mean of D.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.first_order.base import Update, buffers
from solvers.preconditioned.hutchinson import HessianDiagonal


class AdaHessian(HessianDiagonal):
    """AdaHessian; see the module for the update.

    Only `step(closure)`: the closure returns the loss with its graph, which is differentiated twice where an estimate
    is due; see `solvers.preconditioned`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0.
        betas: of the two running means, in [0, 1).
        eps: > 0.
        power: the exponent k of the root, in (0, 1].
        weight_decay: >= 0, decoupled.
        every: steps from one estimate to the next; the paper's experiments have 1 to 5.
        probes: vectors z of an estimate.
        average: whether |D| is averaged over each kernel, in parameters of more than two dimensions.
        generator: for z; its state is part of `state_dict`. None: a fresh seed.

    Example:
        >>> import torch
        >>> from solvers import AdaHessian
        >>> x = torch.tensor([3.0, -2.0], requires_grad=True)
        >>> solver = AdaHessian([x], lr=0.1, betas=(0.0, 0.0))
        >>> loss = solver.step(lambda: x[0] ** 2 + 50 * x[1] ** 2)  # Newton's step times lr
        >>> [round(v, 2) for v in x.tolist()]
        [2.7, -1.8]
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.15,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        power: float = 1.0,
        weight_decay: float = 0.0,
        every: int = 1,
        probes: int = 1,
        average: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        settings = check(
            lr=(lr, lr >= 0),
            betas=(betas, len(betas) == 2 and all(0 <= b < 1 for b in betas)),
            eps=(eps, eps > 0),
            power=(power, 0 < power <= 1),
            weight_decay=(weight_decay, weight_decay >= 0),
            average=(average, True),
        )
        super().__init__(params, settings, every=every, probes=probes, generator=generator)

    @override
    def _absorb(self, update: Update, estimates: list[Tensor]) -> None:
        beta = update.group["betas"][1]
        if update.group["average"]:
            estimates = [_averaged(d) for d in estimates]
        square = buffers(update.states, update.parameters, "square")
        torch._foreach_mul_(square, beta)
        torch._foreach_addcmul_(square, estimates, estimates, 1.0 - beta)

    @override
    def _move(self, update: Update) -> None:
        group, parameters, gradients, states = update
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        mean, square = buffers(states, parameters, "mean"), buffers(states, parameters, "square")
        torch._foreach_lerp_(mean, gradients, 1.0 - beta1)
        for state in states:
            state["step"] = state.get("step", 0) + 1
        root = list(torch._foreach_div(square, [1.0 - beta2 ** state["estimates"] for state in states]))
        if group["power"] == 1.0:
            torch._foreach_sqrt_(root)
        else:
            torch._foreach_pow_(root, 0.5 * group["power"])
        torch._foreach_add_(root, group["eps"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, mean, root, [-lr / (1.0 - beta1 ** state["step"]) for state in states])


def _averaged(d: Tensor) -> Tensor:
    """The mean of |D| over each kernel in all of its entries; other tensors as they are."""
    return d.abs().mean(tuple(range(2, d.ndim)), keepdim=True).expand_as(d) if d.ndim > 2 else d
