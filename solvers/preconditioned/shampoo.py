"""Shampoo: a preconditioner for each side of a parameter (arXiv 1802.09568, Algorithms 1 and 2).

    L <- beta L + G G^T            R <- beta R + G^T G                          beta = 1, the sums, in the paper
    m <- momentum m + (1 - momentum) (L + eps I)^(-1/4) G (R + eps I)^(-1/4)
    theta <- (1 - lr weight_decay) theta - lr m

In general each of the k sides of a tensor that have a factor has the power -1 / (2 k): vectors have one side, and -1/2.
With beta < 1 they are running means, L <- beta L + (1 - beta) G G^T divided by 1 - beta^t. A side longer than `limit`
has no factor; where no side has one, entries are scaled apart, G / sqrt(v + eps), as AdaGrad (or RMSprop) does it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.first_order.base import NOT_YET, Update
from solvers.preconditioned.base import Preconditioned
from solvers.preconditioned.kronecker import gram, multiplied, sides


class Shampoo(Preconditioned):
    """Shampoo; see the module for the update.

    `step(closure)`, or `loss.backward(); step()` as usual.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0.
        momentum: of the running mean of preconditioned gradients, in [0, 1).
        beta: 1 for sums, else of running means, in (0, 1).
        eps: what is added to the factors, > 0.
        weight_decay: >= 0, decoupled.
        every: steps from one computation of the roots to the next, >= 1; each is an eigendecomposition in float64.
        limit: the longest side that has a factor, >= 0.
        maximize: climb in place of descending, as in torch.

    Raises:
        ValueError: settings that are not possible; a gradient that is not finite when roots are computed.

    Example:
        >>> import torch
        >>> from solvers import Shampoo
        >>> W = torch.tensor([[3.0, 0.0], [0.0, 0.5]], requires_grad=True)
        >>> solver = Shampoo([W], lr=0.1, momentum=0.0, eps=1e-12)
        >>> loss = solver.step(lambda: W.square().sum())  # the first step makes all singular values of G alike
        >>> [round(w, 2) for w in W.diagonal().tolist()]
        [2.9, 0.4]
    """

    takes_complex = False

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        momentum: float = 0.9,
        beta: float = 1.0,
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        every: int = 1,
        limit: int = 1024,
        maximize: bool = False,
    ) -> None:
        settings = check(
            lr=(lr, lr >= 0),
            momentum=(momentum, 0 <= momentum < 1),
            beta=(beta, 0 < beta <= 1),
            eps=(eps, eps > 0),
            weight_decay=(weight_decay, weight_decay >= 0),
            every=(every, every >= 1),
            limit=(limit, limit >= 0),
            maximize=(maximize, True),
        )
        super().__init__(params, settings)

    @override
    def _move(self, update: Update) -> None:
        group, parameters, gradients, states = update
        lr = float(group["lr"])
        directions = [self._direction(group, g, state) for g, state in zip(gradients, states, strict=True)]
        if group["momentum"]:
            for state, d in zip(states, directions, strict=True):
                mean = state["mean"] = state["mean"].to(d) if "mean" in state else torch.zeros_like(d)
                mean.lerp_(d, 1.0 - group["momentum"])
            directions = [state["mean"] for state in states]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, directions, alpha=-lr)

    def _direction(self, group: Any, G: Tensor, state: dict[str, Any]) -> Tensor:
        """G preconditioned, after it was taken into the factors."""
        beta, kept = group["beta"], sides(G, group["limit"])
        new = 1.0 if beta == 1.0 else 1.0 - beta
        step = state["step"] = state.get("step", 0) + 1
        if not kept:
            square = state["square"] = state["square"].to(G) if "square" in state else torch.zeros_like(G)
            square.mul_(beta).addcmul_(G, G, value=new)
            return self._preconditioned_one(group, G, state)
        factors: dict[int, Tensor] = state.setdefault("factors", {})
        for i in kept:
            factors[i] = factors[i].to(G).mul_(beta) if i in factors else G.new_zeros(G.shape[i], G.shape[i])
            factors[i].add_(gram(G, i), alpha=new)
        if (step - 1) % group["every"] == 0:
            power, scale = -0.5 / len(kept), _scale(beta, step)
            state["roots"] = {i: _power(factors[i] * scale, group["eps"], power) for i in kept}
        state["roots"] = {i: root.to(G) for i, root in state["roots"].items()}
        return self._preconditioned_one(group, G, state)

    @override
    def _preconditioned_one(self, group: Any, v: Tensor, state: dict[str, Any]) -> Tensor:
        if "step" not in state:
            raise ValueError(NOT_YET)
        if "roots" not in state:
            return v / (state["square"].to(v) * _scale(group["beta"], state["step"]) + group["eps"]).sqrt()
        roots = state["roots"]
        return multiplied(v, [roots[i].to(v) if i in roots else None for i in range(v.ndim)])


def _scale(beta: float, step: int) -> float:
    """What a sum or a running mean is multiplied by after so many steps."""
    return 1.0 if beta == 1.0 else 1.0 / (1.0 - beta**step)


def _power(A: Tensor, eps: float, power: float) -> Tensor:
    """(A + eps I)^power of a positive semi-definite matrix, by its eigendecomposition in float64."""
    if not bool(torch.isfinite(A).all()):
        raise ValueError("the gradient is not finite: Shampoo's factors have no roots any more")
    w, Q = torch.linalg.eigh(A.double())
    return ((Q * (w.clamp_min(0.0) + eps) ** power) @ Q.T).to(A.dtype)
