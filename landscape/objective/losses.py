"""The loss functions of torch that are known by heart: their count of terms, their terms, and weights of terms.

A known loss is a torch loss module, its function in `torch.nn.functional`, or a `functools.partial` of one.
For these the batch mean's denominator is exact (ignored targets, class weights, elements).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# kind -> (module, function, what its mean divides by)
_KNOWN: dict[str, tuple[type[nn.Module], Callable[..., Tensor], str]] = {
    "cross_entropy": (nn.CrossEntropyLoss, F.cross_entropy, "classes"),
    "nll": (nn.NLLLoss, F.nll_loss, "classes"),
    "mse": (nn.MSELoss, F.mse_loss, "elements"),
    "l1": (nn.L1Loss, F.l1_loss, "elements"),
    "smooth_l1": (nn.SmoothL1Loss, F.smooth_l1_loss, "elements"),
    "huber": (nn.HuberLoss, F.huber_loss, "elements"),
    "bce": (nn.BCELoss, F.binary_cross_entropy, "elements"),
    "bce_with_logits": (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, "elements"),
    "poisson_nll": (nn.PoissonNLLLoss, F.poisson_nll_loss, "elements"),
    "kl_div": (nn.KLDivLoss, F.kl_div, "elements"),
    "soft_margin": (nn.SoftMarginLoss, F.soft_margin_loss, "elements"),
    "hinge_embedding": (nn.HingeEmbeddingLoss, F.hinge_embedding_loss, "elements"),
    "multi_margin": (nn.MultiMarginLoss, F.multi_margin_loss, "batch"),
    "multilabel_margin": (nn.MultiLabelMarginLoss, F.multilabel_margin_loss, "batch"),
    "multilabel_soft_margin": (nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss, "vectors"),
}
CONVEX = ("cross_entropy", "nll", "mse", "l1", "smooth_l1", "huber", "bce", "bce_with_logits", "kl_div", "soft_margin")
PIECEWISE_LINEAR = ("nll", "kl_div", "l1")  # in the outputs
_OPTIONS = (
    "weight",
    "pos_weight",
    "ignore_index",
    "label_smoothing",
    "reduction",
    "beta",
    "delta",
    "log_input",
    "full",
    "eps",
    "log_target",
    "p",
    "margin",
)


@dataclass(frozen=True)
class KnownLoss:
    """A torch loss with its options; `function` is its form in `torch.nn.functional`."""

    kind: str
    function: Callable[..., Tensor]
    denominator: str
    options: dict[str, Any]

    @property
    def separable(self) -> bool:
        """Whether the loss is a sum over elements, or over positions that have a class each."""
        return self.denominator in ("elements", "classes") and self.reduction in ("mean", "sum")

    @property
    def reduction(self) -> str:
        """What the loss itself returns: "mean", "sum", "none" or "batchmean"."""
        return str(self.options.get("reduction", "mean"))

    def count(self, outputs: Tensor, targets: Tensor) -> float:
        """The denominator of the batch mean: how many loss terms (or their total weight) the batch has."""
        if self.reduction == "batchmean":
            return float(outputs.shape[0]) if outputs.ndim else 1.0
        if self.denominator == "batch":
            return float(outputs.shape[0]) if outputs.ndim > 1 else 1.0
        if self.denominator == "vectors":  # the last dimension is averaged within each term
            return float(outputs.shape[:-1].numel())
        if self.denominator == "elements":
            return float(torch.broadcast_shapes(outputs.shape, targets.shape).numel())
        return float(self.class_weights(outputs, targets).sum(dtype=torch.float64))

    def class_weights(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Weight of each class-index term in the mean's denominator, shaped like the targets (ignored: 0)."""
        if targets.is_floating_point():  # class probabilities: the mean divides by the number of positions
            return torch.ones_like(targets.select(class_dim(targets), 0))
        kept = targets != self.options.get("ignore_index", -100)
        weight = self.options.get("weight")
        if weight is None:
            return kept.to(outputs.dtype)
        return weight.to(outputs)[targets.where(kept, torch.zeros_like(targets))] * kept

    def terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Un-averaged losses and their weights: batch mean = sum(weights * losses) / sum(weights)."""
        options = {key: value for key, value in self.options.items() if key != "reduction"}
        raw = self.function(outputs, targets, reduction="none", **options)
        if self.denominator != "classes":
            return raw, torch.ones_like(raw)
        weights = self.class_weights(outputs, targets).to(raw.dtype)
        return raw / torch.where(weights > 0, weights, torch.ones_like(weights)), weights

    # -- second derivative in the outputs ------------------------------------------------------------------

    def softmax_weights(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """a_t such that d2(sum of terms)/d outputs2 of term t is a_t (diag(p_t) - p_t p_t^T).

        Cross-entropy is sum_c b_tc (-log p_tc) for some b that does not depend on the outputs; the curvature
        of the log-partition is taken sum_c b_tc times, whatever the labels, weights and smoothing are.
        """
        smoothing = float(self.options.get("label_smoothing", 0.0))
        weight = self.options.get("weight")
        classes = outputs.shape[class_dim(outputs)]
        if targets.is_floating_point():
            dim = class_dim(outputs)
            b = targets * (1 - smoothing) + smoothing / classes
            shape = [classes if d == dim else 1 for d in range(outputs.ndim)]
            return (b if weight is None else b * weight.to(outputs).reshape(shape)).sum(dim)
        total = self.class_weights(outputs, targets)
        if weight is None or smoothing == 0.0:
            return total
        kept = (targets != self.options.get("ignore_index", -100)).to(outputs.dtype)
        return (1 - smoothing) * total + smoothing / classes * weight.to(outputs).sum() * kept

    def times_weights(self, values: Tensor, targets: Tensor) -> Tensor:
        """A value for each element times its weights in binary cross-entropy (the positive part has `pos_weight`)."""
        positive, weight = self.options.get("pos_weight"), self.options.get("weight")
        if positive is not None:
            values = values * (1 + (positive.to(values) - 1) * targets)
        return values if weight is None else values * weight.to(values)


def class_dim(outputs: Tensor) -> int:
    """Where torch expects the classes in outputs (or in targets that are probabilities)."""
    return 0 if outputs.ndim == 1 else 1


@functools.cache
def _options_of(kind: str) -> tuple[str, ...]:
    """Those that a loss module has: the same for all of a kind, and dear to ask for where they are missing."""
    loss = _KNOWN[kind][0]()
    return tuple(name for name in _OPTIONS if hasattr(loss, name))


def recognise(loss: object) -> KnownLoss | None:
    """The known form of a loss, or None for any other callable (subclasses with a forward of their own too)."""
    options: dict[str, Any] = {}
    while isinstance(loss, functools.partial):
        if loss.args:
            return None
        options = {**loss.keywords, **options}
        loss = loss.func
    for kind, (module, function, denominator) in _KNOWN.items():
        if type(loss) is module:
            found = {name: getattr(loss, name) for name in _options_of(kind)}
            return KnownLoss(kind, function, denominator, {**found, **options})
        if loss is function:
            odd = sorted(set(options) - set(_OPTIONS))
            if odd or (kind in ("mse", "l1", "huber") and options.get("weight") is not None):
                raise ValueError(
                    f"the number of loss terms of F.{function.__name__} with {odd or ['weight']} is not known "
                    "here: wrap the loss in a function of your own and pass count="
                )
            return KnownLoss(kind, function, denominator, options)
    return None
