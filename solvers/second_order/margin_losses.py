"""Losses of the margin z of a sample with label y, with their first and second derivatives in z.

Those of the experiments on SSCN (arXiv 2406.16666) and of their code: logistic regression, the robust losses of Cauchy
and of Geman and McClure, least squares, and non-linear least squares (phi(z) - y)^2 / 2 with phi a sigmoid or one of
these two losses of z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal[
    "logistic",
    "least-squares",
    "cauchy",
    "geman-mcclure",
    "squares-sigmoid",
    "squares-cauchy",
    "squares-geman-mcclure",
    "log-sum-exp",
]


@dataclass(frozen=True)
class MarginLoss:
    """A loss of each sample's margin and label, with its first and second derivative in the margin."""

    value: Callable[[Tensor, Tensor], Tensor]
    first: Callable[[Tensor, Tensor], Tensor]
    second: Callable[[Tensor, Tensor], Tensor]


def _squares_behind(phi: MarginLoss) -> MarginLoss:
    """(phi(z) - y)^2 / 2, for phi as a loss of z and 0."""

    def first(z: Tensor, y: Tensor) -> Tensor:
        zero = torch.zeros_like(y)
        return (phi.value(z, zero) - y) * phi.first(z, zero)

    def second(z: Tensor, y: Tensor) -> Tensor:
        zero = torch.zeros_like(y)
        return phi.first(z, zero).square() + (phi.value(z, zero) - y) * phi.second(z, zero)

    return MarginLoss(lambda z, y: 0.5 * (phi.value(z, torch.zeros_like(y)) - y).square(), first, second)


def _sigmoid_slope(z: Tensor, y: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


_SIGMOID = MarginLoss(
    lambda z, y: torch.sigmoid(z), _sigmoid_slope, lambda z, y: _sigmoid_slope(z, y) * (1.0 - 2.0 * torch.sigmoid(z))
)
# Each a mean over samples. Logistic labels are 0 and 1. The Geman-McClure derivatives have the square in the
# denominator that a published implementation lacks.
LOSSES: dict[str, MarginLoss] = {
    "logistic": MarginLoss(
        lambda z, y: F.softplus(z) - y * z,
        lambda z, y: torch.sigmoid(z) - y,
        lambda z, y: torch.sigmoid(z) * torch.sigmoid(-z),
    ),
    "least-squares": MarginLoss(
        lambda z, y: 0.5 * (z - y).square(), lambda z, y: z - y, lambda z, y: torch.ones_like(z)
    ),
    "cauchy": MarginLoss(
        lambda z, y: torch.log1p(0.5 * (z - y).square()),
        lambda z, y: 2.0 * (z - y) / (2.0 + (z - y).square()),
        lambda z, y: 2.0 * (2.0 - (z - y).square()) / (2.0 + (z - y).square()).square(),
    ),
    "geman-mcclure": MarginLoss(
        lambda z, y: 2.0 * (z - y).square() / ((z - y).square() + 4.0),
        lambda z, y: 16.0 * (z - y) / ((z - y).square() + 4.0).square(),
        lambda z, y: 16.0 * (4.0 - 3.0 * (z - y).square()) / ((z - y).square() + 4.0) ** 3,
    ),
}
LOSSES |= {f"squares-{name}": _squares_behind(LOSSES[name]) for name in ("cauchy", "geman-mcclure")}
LOSSES["squares-sigmoid"] = _squares_behind(_SIGMOID)
