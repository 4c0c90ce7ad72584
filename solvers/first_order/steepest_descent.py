"""Steepest descent in norms of the layers: steps to the oracle's point, as long as the gradient in the dual norm.

    d <- (1 - momentum) g + momentum d
    theta <- (1 - lr weight_decay) theta - lr ||d||_* N(d)              the minimiser of <d, s> + ||s||^2 / (2 lr)

Near a minimum steps get shorter, other than those of `Scion` and `Muon`: where ||grad f(x) - grad f(y)||_* is at most
L ||x - y||, of one layer, lr = 1 / L lowers f by ||g||_*^2 / (2 L) at least. In the operator norm, where the step is
(sum of S) U V^T of d = U S V^T, this is stochastic spectral descent (Carlson et al. 2015), with momentum the
momentum-first form of PolarGrad (arXiv 2505.21799); in the Euclidean norm gradient descent. ||d||_* is <d, N(d)>.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from typing_extensions import override

from landscape.norms import resolve
from solvers.base import Parameters, check
from solvers.first_order.base import Update
from solvers.first_order.oracle import OracleDescent, running_mean


class SteepestDescent(OracleDescent):
    """Steepest descent in the norm of each layer; see the module for the update.

    Args:
        params: parameters, or groups with settings of their own.
        lr: step size, >= 0.
        momentum: of the running mean of gradients, in [0, 1).
        weight_decay: >= 0, decoupled.
        norm: "auto", the operator norm for matrices and convolutions and the Euclidean one for vectors; or one of
            `landscape.norms`.
        exact: U V^T by an SVD; otherwise by five Newton-Schulz steps, with singular values in [0.68, 1.21] in place of
            1 and small ones below, so that steps differ in length by the square of that.
        maximize: climb in place of descending, as in torch.

    Raises:
        ValueError: settings that are not possible, such as a norm of matrices for a group that has vectors.

    Example:
        >>> import torch
        >>> from solvers import SteepestDescent
        >>> W = torch.tensor([[3.0, 0.0], [0.0, 0.5]], requires_grad=True)
        >>> loss = SteepestDescent([W], lr=0.1).step(lambda: 0.5 * W.square().sum())
        >>> [round(w, 2) for w in W.diagonal().tolist()]  # both by 0.1 (3 + 0.5)
        [2.65, 0.15]
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        norm: str = "auto",
        exact: bool = True,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"norm": norm, "exact": exact, "maximize": maximize})

    @override
    def _check_group(self, group: dict[str, Any]) -> None:
        lr, momentum, decay = float(group["lr"]), group["momentum"], group["weight_decay"]
        check(lr=(lr, lr >= 0), momentum=(momentum, 0 <= momentum < 1), weight_decay=(decay, decay >= 0))
        super()._check_group(group)

    @override
    def _kind(self, group: dict[str, Any], shape: Sequence[int]) -> str:
        if group["norm"] == "auto":
            return "operator" if len(shape) > 1 else "euclidean"
        return resolve(group["norm"], shape)

    @override
    def _directions(self, update: Update) -> list[Tensor]:
        momentum = update.group["momentum"]
        return running_mean(update, 1.0 - momentum) if momentum else update.gradients

    @override
    def _lengthened(self, d: Tensor, Z: Tensor) -> Tensor:
        return Z * (d * Z).sum()
