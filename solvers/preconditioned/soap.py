"""SOAP: Adam in the eigenbasis of Shampoo's factors (arXiv 2409.11321, Algorithms 3 and 4).

    m <- beta1 m + (1 - beta1) G                     G~ = Q_L^T G Q_R,  m~ = Q_L^T m Q_R
    v <- beta2 v + (1 - beta2) G~ * G~
    theta <- (1 - lr weight_decay) theta - lr Q_L [ m~' / (sqrt(v') + eps) ] Q_R^T          ' corrects the bias of means
    L <- beta L + (1 - beta) G G^T,  R <- beta R + (1 - beta) G^T G
    every k steps:  Q <- the orthogonal factor of L Q, one step of orthogonal iteration, columns by falling eigenvalue

As in the authors' code the first step finds the bases, by an eigendecomposition, and moves nothing: in the basis of its
own singular vectors G~ is diagonal, and Adam would take the rounding off the diagonal for gradients. Columns of Q move
together with their entries of v. Vectors, and sides longer than `limit`, keep the identity: there it is Adam.
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


class SOAP(Preconditioned):
    """SOAP; see the module for the update.

    `step(closure)`, or `loss.backward(); step()` as usual.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0.
        betas: of the two running means, in [0, 1).
        factor_beta: of the factors, in [0, 1); None is the second of `betas`.
        eps: > 0.
        weight_decay: >= 0, decoupled.
        every: steps from one refresh of the bases to the next, >= 1.
        limit: the longest side that has a factor, >= 0.
        maximize: climb in place of descending, as in torch.

    Example:
        >>> import torch
        >>> from solvers import SOAP
        >>> W = torch.tensor([[3.0, 1.0], [1.0, -2.0]], requires_grad=True)
        >>> solver = SOAP([W], lr=0.1)
        >>> losses = [float(solver.step(lambda: W.square().sum())) for _ in range(200)]
        >>> losses[0], losses[1], losses[-1] < 0.1  # the first step finds the bases
        (15.0, 15.0, True)
    """

    takes_complex = False

    def __init__(
        self,
        params: Parameters,
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        factor_beta: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        every: int = 10,
        limit: int = 10_000,
        maximize: bool = False,
    ) -> None:
        settings = check(
            lr=(lr, lr >= 0),
            betas=(betas, len(betas) == 2 and all(0 <= b < 1 for b in betas)),
            factor_beta=(factor_beta, factor_beta is None or 0 <= factor_beta < 1),
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
        for p, G, state in zip(parameters, gradients, states, strict=True):
            direction = self._direction(group, G, state)
            if direction is not None:
                p.mul_(1.0 - lr * group["weight_decay"]).add_(direction, alpha=-lr)
            _update_factors(group, G, state)

    def _direction(self, group: Any, G: Tensor, state: dict[str, Any]) -> Tensor | None:
        """Adam's in the bases, turned back; None in the first step of a parameter that has bases."""
        if "step" not in state:
            state["step"], state["mean"], state["square"] = 0, torch.zeros_like(G), torch.zeros_like(G)
            if G.ndim > 1 and sides(G, group["limit"]):
                return None
        beta1, beta2 = group["betas"]
        for name in ("mean", "square"):
            state[name] = state[name].to(G)
        step = state["step"] = state["step"] + 1
        turned = multiplied(G, _bases(G, state), transposed=True)
        mean = state["mean"].lerp_(G, 1.0 - beta1)
        state["square"].mul_(beta2).addcmul_(turned, turned, value=1.0 - beta2)
        return self._preconditioned_one(group, mean, state).div_(1.0 - beta1**step)

    @override
    def _preconditioned_one(self, group: Any, v: Tensor, state: dict[str, Any]) -> Tensor:
        if not state.get("step"):
            raise ValueError(NOT_YET)
        bases = _bases(v, state)
        root = (state["square"].to(v) / (1.0 - group["betas"][1] ** state["step"])).sqrt_().add_(group["eps"])
        return multiplied(multiplied(v, bases, transposed=True) / root, bases)


def _bases(G: Tensor, state: dict[str, Any]) -> list[Tensor | None]:
    return [Q.to(G) if Q is not None else None for Q in state.get("bases", ())]


def _update_factors(group: Any, G: Tensor, state: dict[str, Any]) -> None:
    """Take the gradient into the factors, and refresh the bases where it is time."""
    kept = sides(G, group["limit"]) if G.ndim > 1 else []
    if not kept:
        return
    beta = group["betas"][1] if group["factor_beta"] is None else group["factor_beta"]
    factors = state.setdefault("factors", [None] * G.ndim)
    for i in kept:
        new = gram(G, i)
        factors[i] = (1.0 - beta) * new if factors[i] is None else factors[i].to(G).lerp_(new, 1.0 - beta)
    if "bases" not in state:
        state["bases"] = [None if L is None else torch.linalg.eigh(L.double())[1].flip(1).to(G) for L in factors]
    elif state["step"] % group["every"] == 0:
        for i in kept:
            Q = state["bases"][i].to(G)
            image = factors[i] @ Q
            order = (Q * image).sum(0).argsort(descending=True, stable=True)
            state["square"] = state["square"].index_select(i, order)
            state["bases"][i] = torch.linalg.qr(image[:, order])[0]
