"""Condition numbers, and how fast a preconditioned method descends: on the local quadratic, and on the loss itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from landscape import Objective

SHARE = 1e-3  # of the gap to the quadratic's minimum, that is to be left


def kappas(G_root: Tensor, S: Tensor, ranks: Sequence[int]) -> list[float]:
    """Of G^(1/2) S G^(1/2): the largest eigenvalue over the r-th largest, for each r."""
    values = torch.linalg.eigvalsh(G_root @ S @ G_root).flip(0)
    return [float(values[0] / values[r - 1]) for r in ranks]


def quadratic(values: Tensor, vectors: Tensor, S: Tensor, g: Tensor) -> dict[str, float]:
    """Steps d <- d - eta S (g + A d) from 0 on the model g.d + d.A d / 2, A = U diag(values) U^T, g in the span of U.

    In z = A^(1/2) d they are z <- z - eta B (h + z) with B = A^(1/2) S A^(1/2) `(r, r)` and h = values^(-1/2) U^T g,
    and the gap to the minimum is |z + h|^2 / 2. With the eigenvalues l of B and the best constant
    eta = 2 / (l_1 + l_r) it shrinks by ((kappa - 1) / (kappa + 1))^2 a step at least, kappa = l_1 / l_r. Returns
    "kappa", "largest" (l_1), "taken" (steps after which `SHARE` of the gap is left, by the eigenvectors of B, so that
    none need be made) and "predicted" (after which it is at the latest).
    """
    root = vectors * values.sqrt()
    B = root.T @ S @ root
    own, V = torch.linalg.eigh(0.5 * (B + B.T))
    low, high = float(own[0]), float(own[-1])
    weights = (V.T @ (vectors.T @ g / values.sqrt())).square()
    factors = (1.0 - 2.0 / (low + high) * own).square()

    def left(steps: int) -> float:
        return float((weights * factors**steps).sum() / weights.sum())

    least, most = 0, 1
    while left(most) > SHARE:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if left(middle) > SHARE else (least, middle)
    kappa = high / low
    slowest = 2.0 * math.log1p(2.0 / (kappa - 1.0)) if kappa > 1.0 else math.inf
    return {"kappa": kappa, "largest": high, "taken": most, "predicted": math.log(1.0 / SHARE) / slowest}


def descent(objective: Objective, S: Tensor, largest: float, steps: int) -> float | None:
    """The loss after steps with a preconditioner that stays, of size 1 / largest; None where it is not finite."""
    theta = objective.theta()
    for _ in range(steps):
        with objective.at(theta):
            theta = theta - S @ objective.gradient() / largest
    with objective.at(theta):
        end = objective.value()
    return end if math.isfinite(end) else None
