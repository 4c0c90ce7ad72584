"""The covariance of SAM's steps to first order in its radius."""

from __future__ import annotations

import math

import torch

from runs.findings.finding import Finding, Seen
from runs.sde.saddles import step_covariances

PATHS = 200_000


def measure() -> Seen:
    """The eigenvalues of both covariances at the saddle of (x^2 - y^2) / 2, beside the variance of steps there."""
    squares, first, whole = step_covariances(PATHS, torch.Generator().manual_seed(0))
    variances, errors = squares.mean(0), squares.std(0) / math.sqrt(PATHS)
    rows = [
        (axis, *(f"{float(value):.5f}" for value in (variances[i], first[i, i], whole[i, i])))
        for i, axis in enumerate(("along x", "along y"))
    ]
    close = bool(((variances - whole.diagonal()).abs() < 4 * errors).all())
    again = float(torch.linalg.eigvalsh(first)[0]) < 0 and close
    return Seen(("", "of steps", "Σ + ρ (S + Sᵀ)", "Cov(g + ρ H g / ‖g‖)"), rows, again)


FINDING = Finding(
    "sam-covariance",
    "arXiv 2301.08203 (Compagnoni et al. 2023)",
    "the diffusion of SAM's SDE has the covariance Σ + ρ (S + Sᵀ)",
    "at a saddle, where ‖g‖ is no more than noise, that has a negative eigenvalue: what is left out, of the order of "
    "ρ², is as large as what is kept; the covariance of g + ρ H g / ‖g‖ agrees to the same order and is one",
    measure,
)
