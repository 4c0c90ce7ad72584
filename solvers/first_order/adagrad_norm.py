"""AdaGrad-norm: one step size for all parameters, which shrinks as gradients add up (arXiv 1806.01811).

    sum   b_k^2 = b_(k-1)^2 + ||g_k||^2                                        theta <- theta - (lr / b_k) g_k
    max   c_k^2 = max(c_(k-1)^2, ||g_k||^2),  b_k^2 = b_(k-1)^2 + c_k^2        (Theorem 7 of arXiv 2410.12455)

b_(-1) = b0, c_(-1) = 0; ||g_k|| is over all groups, each of which moves with its own lr.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solvers.base import Parameters, check
from solvers.first_order.base import FirstOrder, Update, square_norm


class AdaGradNorm(FirstOrder):
    """Gradient descent with the step lr / b_k; see the module for b_k.

    `scale` is b_k after the last step.

    Args:
        params: parameters, or groups with an `lr` of their own.
        lr: >= 0.
        b0: > 0. The theorem asks for at least 2 L lr / (alpha - beta). Of the first group, as `variant`.
        variant: "sum", or "max" with the largest gradient so far in place of each.
        maximize: climb in place of descending, as in torch.

    Raises:
        ValueError: settings that are not possible, or a gradient that is not finite at a step: nothing is moved then.

    Example:
        >>> import torch
        >>> from solvers import AdaGradNorm
        >>> x = torch.tensor([3.0, -4.0], requires_grad=True)
        >>> solver = AdaGradNorm([x], lr=5.0)
        >>> losses = [float(solver.step(lambda: x.square().sum() / 2)) for _ in range(30)]
        >>> losses[0], losses[-1] < 1e-3, solver.scale > 5.0  # the step is lr / scale
        (12.5, True, True)
    """

    def __init__(
        self, params: Parameters, lr: float, *, b0: float = 0.1, variant: str = "sum", maximize: bool = False
    ) -> None:
        possible = variant in ("sum", "max")
        settings = check(lr=(lr, lr >= 0), b0=(b0, 0 < b0 < math.inf), variant=(variant, possible))
        super().__init__(params, settings | {"maximize": maximize})

    @property
    def scale(self) -> float:
        """b_k, b0 before the first step."""
        return math.sqrt(self._sums()[0])

    def _sums(self) -> tuple[float, float]:
        """b^2 and c^2."""
        first = self.param_groups[0]  # what is kept with the settings is saved and copied with them
        return first.get("sums", (first["b0"] ** 2, 0.0))

    def _apply(self, loss: Tensor | float | None, updates: list[Update]) -> None:
        if not updates:
            return
        square = sum(square_norm(update.gradients) for update in updates)
        if not math.isfinite(square):
            raise ValueError(f"the norm of the gradient is {math.sqrt(abs(square))}: nothing was moved")
        first = self.param_groups[0]
        b, c = self._sums()
        c = max(c, square)
        b += square if first["variant"] == "sum" else c
        first["sums"] = (b, c)
        for update in updates:
            torch._foreach_add_(update.parameters, update.gradients, alpha=-float(update.group["lr"]) / math.sqrt(b))
