"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024).

    m <- momentum m + (1 - momentum) g          d = m, or with Nesterov's look-ahead momentum m + (1 - momentum) g
    W <- (1 - lr weight_decay) W - lr scale(W) U V^T                  of d = U S V^T, `(out, in k ...)` of convolutions

U V^T is the step of length 1 in the operator norm that goes down most steeply: `Scion` with another unit. scale(W):

    "original"   sqrt(max(1, out / fan_in)), of the publication
    "rms"        0.2 sqrt(max(out, fan_in)): entries as large as those of Adam's steps (arXiv 2502.16982)
    "spectral"   sqrt(out / in) / k ..., of Scion: the same as unconstrained Scion but for look-ahead and decay
    "none"       1

Vectors, and what is given `norm="adam"`, are AdamW's: with lr `adam_lr` times that of the group, and the same decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from landscape.norms import fan_in, resolve, spectral_factor
from solvers.base import Parameters, check
from solvers.first_order.base import Update, adam_step
from solvers.first_order.oracle import OracleDescent, running_mean

SCALES = ("original", "rms", "spectral", "none")


class Muon(OracleDescent):
    """Muon; see the module for the update. `muon_groups` tells hidden matrices from embeddings and output layer.

    Args:
        params: parameters, or groups with settings of their own.
        lr: of matrices, >= 0.
        momentum: in [0, 1).
        nesterov: whether the gradient looks ahead.
        weight_decay: >= 0, decoupled.
        scale: "original", "rms", "spectral" or "none".
        norm: "auto", orthogonal matrices and AdamW for vectors; "adam"; or one of `landscape.norms`, such as "sign" for
            an output layer, whose steps have the length lr in it.
        exact: U V^T by an SVD. Otherwise by five Newton-Schulz steps with the publication's coefficients: singular
            values above 0.003 of the Frobenius norm end in [0.68, 1.21] in place of 1, smaller ones below.
        adam_lr: of AdamW over `lr`; the publication has 3e-4 / 0.02, and 1 goes with scale="rms".
        betas, eps: of AdamW.
        maximize: climb in place of descending, as in torch.

    Raises:
        ValueError: settings that are not possible, such as a norm of matrices for a group that has vectors.

    Example:
        >>> import torch
        >>> from solvers import Muon
        >>> W = torch.tensor([[3.0, 0.0], [0.0, 0.5]], requires_grad=True)
        >>> solver = Muon([W], lr=0.1, exact=True, weight_decay=0.0)
        >>> loss = solver.step(lambda: W.square().sum())  # the singular values of the step are all lr
        >>> [round(w, 2) for w in W.diagonal().tolist()]
        [2.9, 0.4]
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.02,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        scale: str = "original",
        norm: str = "auto",
        exact: bool = False,
        adam_lr: float = 0.015,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "scale": scale}
        defaults |= {"norm": norm, "exact": exact, "adam_lr": adam_lr, "betas": betas, "eps": eps, "maximize": maximize}
        super().__init__(params, defaults)

    @override
    def _check_group(self, group: dict[str, Any]) -> None:
        lr, betas, scale = float(group["lr"]), group["betas"], group["scale"]
        check(
            lr=(lr, lr >= 0),
            momentum=(group["momentum"], 0 <= group["momentum"] < 1),
            weight_decay=(group["weight_decay"], group["weight_decay"] >= 0),
            scale=(scale, scale in SCALES),
            adam_lr=(group["adam_lr"], group["adam_lr"] >= 0),
            betas=(betas, len(betas) == 2 and all(0 <= b < 1 for b in betas)),
            eps=(group["eps"], group["eps"] > 0),
        )
        super()._check_group(group)

    @override
    def _kind(self, group: dict[str, Any], shape: Sequence[int]) -> str:
        given = group["norm"]
        if given == "adam" or (given == "auto" and len(shape) < 2):
            return "adam"
        return "operator" if given == "auto" else resolve(given, shape)

    @override
    def _move(self, update: Update) -> None:
        group: Any = update.group
        by_adam = [i for i, p in enumerate(update.parameters) if self._kind(group, p.shape) == "adam"]
        rest = [i for i in range(len(update.parameters)) if i not in set(by_adam)]
        if by_adam:
            lr, adams = float(group["lr"]) * group["adam_lr"], update.part(by_adam)
            if group["weight_decay"]:
                torch._foreach_mul_(adams.parameters, 1.0 - lr * group["weight_decay"])
            adam_step(adams, lr)
        if rest:
            super()._move(update.part(rest))

    @override
    def _directions(self, update: Update) -> list[Tensor]:
        return running_mean(update, 1.0 - update.group["momentum"], nesterov=update.group["nesterov"])

    @override
    def _radius(self, group: Any, kind: str, shape: Sequence[int]) -> float:
        scale, out, entries = group["scale"], shape[0] if shape else 1, max(fan_in(shape), 1)
        if kind != "operator" or scale == "none":
            return 1.0
        if scale == "spectral":
            return spectral_factor(shape)
        return math.sqrt(max(1.0, out / entries)) if scale == "original" else 0.2 * math.sqrt(max(out, entries))


def muon_groups(model: nn.Module, *, head: str | None = None) -> list[dict[str, Any]]:
    """Two groups of the model's parameters: hidden matrices and convolutions, and the rest with `norm="adam"`.

    The rest are vectors, embeddings and the output layer, as in the publication. Weights that are tied come once.

    Args:
        model: whose parameters they are, frozen ones too: they move when they require grad.
        head: the name of the output layer, as in `named_modules`; None: the last Linear layer of those.

    Raises:
        ValueError: no layer has the name.

    Example:
        >>> from torch import nn
        >>> from solvers import Muon, muon_groups
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 9))
        >>> hidden, rest = muon_groups(model)
        >>> len(hidden["params"]), len(rest["params"])
        (1, 4)
        >>> solver = Muon([hidden, rest | {"lr": 3e-4, "adam_lr": 1.0}], lr=0.02)
    """
    modules = dict(model.named_modules())
    if head is not None and head not in modules:
        raise ValueError(f"the model has no layer {head!r}")
    linear = [module for module in modules.values() if isinstance(module, nn.Linear)]
    last = linear[-1:] if head is None else [modules[head]]
    outer = [module for module in modules.values() if isinstance(module, nn.Embedding | nn.EmbeddingBag)] + last
    apart = {id(p) for module in outer for p in module.parameters()}
    hidden = [p for p in model.parameters() if p.ndim > 1 and id(p) not in apart]
    kept = {id(p) for p in hidden}
    return [{"params": hidden}, {"params": [p for p in model.parameters() if id(p) not in kept], "norm": "adam"}]
