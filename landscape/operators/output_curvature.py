"""Symmetric matrices B in the space of a batch's outputs: what stands between J^T and J in J^T B J.

Each function returns a `Curvature`, which takes a block U, shaped (k, *outputs.shape), to B U of the same shape. B is
the second derivative of the batch *mean* of the loss, or a positive semi-definite stand-in for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landscape.objective.evaluation import Evaluation
from landscape.objective.losses import PIECEWISE_LINEAR, KnownLoss, class_dim
from landscape.objective.objective import Objective
from landscape.operators.autograd import gradient_graph, stack, vjp

Curvature = Callable[[Tensor], Tensor]


def known_loss(objective: Objective) -> KnownLoss | None:
    """The torch loss that the loss is: given as such, or recognised where a model computes it from its logits."""
    criterion = objective.criterion
    if criterion.known is None and not criterion.asked:
        try:
            few = objective.alone().sample(8)
            with few.measuring(), torch.no_grad():
                e = few.evaluate(next(few.sweep()))
                if isinstance(e.outputs, Tensor) or e.form is None:
                    return None
        except (TypeError, ValueError, RuntimeError):  # what is wrong is said by the first product
            return None
    return criterion.known if criterion.form is None else criterion.form.known


def loss_hessian(e: Evaluation) -> Curvature:
    """d2 (batch mean) / d outputs2 at outputs without a graph (`Evaluation.detach`).

    A closed form for cross-entropy, mean squared error and binary cross-entropy, else the loss differentiated twice;
    `nothing` for a loss that is (piecewise) linear in the outputs.
    """
    known, outputs, targets = e.criterion.known, e.outputs, e.batch.targets
    if known is not None and known.reduction in ("mean", "sum"):
        scale = 1.0 / known.count(outputs, targets) if known.reduction == "mean" else 1.0
        if known.kind == "cross_entropy":
            return _softmax_curvature(known, outputs, targets, scale)
        if known.kind == "mse" and outputs.shape == targets.shape:
            return lambda U: (2.0 * scale) * U
        if known.kind == "bce_with_logits" and outputs.shape == targets.shape:
            p = outputs.sigmoid()
            d = known.times_weights(scale * p * (1 - p), targets)
            return lambda U: d * U
    if known is not None and known.kind in PIECEWISE_LINEAR:
        return nothing
    leaf = outputs.clone().requires_grad_(True)
    (slope,) = gradient_graph(e.criterion(leaf, targets), [leaf])
    if slope is None or not slope.requires_grad:
        return nothing
    return lambda U: stack([vjp([slope], [leaf], [u])[0] for u in U])


def nothing(U: Tensor) -> Tensor:
    """The curvature of a linear loss: zero."""
    return torch.zeros_like(U)


def _softmax_curvature(known: KnownLoss, outputs: Tensor, targets: Tensor, scale: float) -> Curvature:
    dim = class_dim(outputs)
    p = outputs.softmax(dim)
    a = known.softmax_weights(outputs, targets).unsqueeze(dim) * scale

    def apply(U: Tensor) -> Tensor:
        pU = p * U
        return a * (pU - p * pU.sum(dim + 1, keepdim=True))

    return apply


def outer_products(slopes: list[Tensor], weights: Tensor, unit_dims: tuple[int, ...]) -> Curvature:
    """U -> sum over slopes D of weights * D * <D, U>, the inner product taken within each unit's own outputs."""
    shifted = tuple(d + 1 for d in unit_dims)

    def apply(U: Tensor) -> Tensor:
        total = torch.zeros_like(U)
        for D in slopes:
            total += weights * D * (D * U).sum(shifted, keepdim=True) if shifted else weights * D * D * U
        return total

    return apply
