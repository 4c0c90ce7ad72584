"""Scion: steps to the steepest point of a ball of layer norms, by its linear minimisation oracle (arXiv 2502.07529).

    d <- (1 - momentum) d + momentum g                      (d = 0 at first)
    unconstrained   theta <- theta - lr scale N(d)
    constrained     theta <- (1 - lr) theta - lr scale N(d)        so that ||theta|| <= scale is kept (Frank-Wolfe)

N(d) is the Z of ||Z|| <= 1 with the largest <d, Z>, for a norm of each layer's own: see `landscape.norms`. The
length of the gradient plays no part, so lr is how far a layer moves, in its norm and in units of its radius `scale`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.first_order.base import Update
from solvers.first_order.oracle import OracleDescent, running_mean


class Scion(OracleDescent):
    """Steps of a given length in the norm of each layer; see the module for the update.

    "auto" takes the spectral norm for matrices and convolutions and rms for vectors. The paper gives embeddings of
    one-hot inputs "column" or "sign" and output layers "sign", each in a group of its own:
    `[{"params": hidden, "scale": 50.0}, {"params": head, "norm": "sign", "scale": 3000.0}]`.

    Args:
        params: parameters, or groups with settings of their own.
        lr: >= 0, at most 1 for constrained groups.
        momentum: the share of the new gradient in (0, 1], 1 minus what other solvers call momentum.
        scale: radius of the ball, > 0.
        norm: "auto", "spectral", "sign", "euclidean", "rms", "column", "row" or "operator".
        constrained: keep within the ball; from outside, (||theta|| - scale)_+ shrinks by 1 - lr a step at least.
        exact: the spectral norm by an SVD. Otherwise by five Newton-Schulz steps, whose singular values end in
            about [0.7, 1.2] in place of 1, so that the constrained ball is 1.21 scale.
        maximize: climb in place of descending, as in torch.

    Raises:
        ValueError: settings that are not possible, such as a norm of matrices for a group that has vectors.

    Example:
        >>> import torch
        >>> from solvers import Scion
        >>> W = torch.ones(3, 3, requires_grad=True)
        >>> solver = Scion([W], lr=0.1, exact=True)
        >>> loss = solver.step(lambda: W.square().sum())
        >>> round(float(torch.linalg.matrix_norm(W.detach() - 1, 2)), 3)  # lr, in the spectral norm
        0.1
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        momentum: float = 0.1,
        scale: float = 1.0,
        norm: str = "auto",
        constrained: bool = False,
        exact: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "scale": scale,
                "norm": norm,
                "constrained": constrained,
                "exact": exact,
                "maximize": maximize,
            },
        )

    @override
    def _check_group(self, group: dict[str, Any]) -> None:
        lr, momentum, scale = float(group["lr"]), group["momentum"], group["scale"]
        possible = lr >= 0 and not (group["constrained"] and lr > 1)
        check(lr=(lr, possible), momentum=(momentum, 0 < momentum <= 1), scale=(scale, scale > 0))
        super()._check_group(group)

    @override
    def _directions(self, update: Update) -> list[Tensor]:
        return running_mean(update, update.group["momentum"])

    @override
    def _decay(self, group: Any) -> float:
        return 1.0 if group["constrained"] else 0.0

    @override
    def _radius(self, group: Any, kind: str, shape: Sequence[int]) -> float:
        return float(group["scale"])
