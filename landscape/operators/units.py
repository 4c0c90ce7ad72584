"""What the loss of a batch is made of: the losses of its terms, or of its samples, as functions of the outputs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from landscape.objective.batch import Batch
from landscape.objective.criterion import Criterion
from landscape.objective.evaluation import Evaluation
from landscape.objective.losses import class_dim

Per = Literal["term", "sample"]


def unit_slopes(e: Evaluation, per: Per) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Gradients of the units' mean losses in the outputs, their weights, and the dimensions that belong to one unit.

    A unit is a loss term or a sample along the first dimension of the outputs, its weight that of its terms; of an
    evaluation whose outputs have no graph (`Evaluation.detach`).

    Raises `TypeError` where the loss is not made of such units.
    """
    leaf = e.outputs.clone().requires_grad_(True)
    losses, weights, dims = _units(leaf, e.criterion, e.batch, per)
    (slopes,) = torch.autograd.grad((losses * (weights > 0).to(losses.dtype)).sum(), leaf)
    weights = weights.detach()
    if e.criterion.known is None:
        _refuse_coupled(e, leaf, slopes, weights / e.weight)
    return slopes, weights, dims


def _units(outputs: Tensor, criterion: Criterion, batch: Batch, per: Per) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Mean loss and weight of every unit, and the dimensions of the outputs that belong to one unit."""
    known, targets = criterion.known, batch.targets
    if known is not None and known.separable and isinstance(targets, Tensor):
        losses, weights = known.terms(outputs, targets)
        if per == "term":
            return losses, weights, () if known.denominator == "elements" else (class_dim(outputs),)
        losses, weights = losses.reshape(len(outputs), -1), weights.reshape(len(outputs), -1)
        total = weights.sum(1)
        mean = (losses * weights).sum(1) / torch.where(total > 0, total, torch.ones_like(total))
        return mean, total, tuple(range(1, outputs.ndim))
    return _samples_one_by_one(outputs, criterion, batch, per)


def _samples_one_by_one(
    outputs: Tensor, criterion: Criterion, batch: Batch, per: Per
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    samples, targets = len(outputs), batch.targets
    if not isinstance(targets, Tensor) or len(targets) != samples:
        raise TypeError("per-sample losses need outputs and targets with one row per sample")
    rows = [slice(i, i + 1) for i in range(samples)]
    losses = torch.stack([criterion(outputs[i], targets[i]) for i in rows])
    if criterion.reduction == "sum" or criterion.counter is None:
        weights = torch.ones_like(losses)
    else:
        counts = [criterion.count(outputs[i].detach(), Batch(batch.index, None, targets[i])) for i in rows]
        weights = torch.tensor(counts, dtype=losses.dtype, device=losses.device)
        if per == "term" and bool((weights != 1).any()):
            raise TypeError('the terms of this loss cannot be told apart: use per="sample"')
    return losses, weights.detach(), tuple(range(1, outputs.ndim))


def _refuse_coupled(e: Evaluation, leaf: Tensor, slopes: Tensor, weights: Tensor) -> None:
    """Raises `TypeError` where the batch's loss is not the mean of the losses that its samples have alone."""
    (whole,) = torch.autograd.grad(e.criterion(leaf, e.batch.targets), leaf)
    apart = slopes * weights.reshape(-1, *[1] * (slopes.ndim - 1))
    if float((apart - whole).norm()) > torch.finfo(leaf.dtype).eps ** 0.5 * float(whole.norm()):
        raise TypeError(
            "the loss of a batch is not the mean of its samples' own losses (a contrastive loss, a ratio or a root of "
            "means), so single samples have no gradients to make a Fisher matrix of: use GaussNewton or Hessian"
        )
