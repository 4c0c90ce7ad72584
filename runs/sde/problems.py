"""The problems of `runs.sde` and the SDEs on them, each made by name.

Quadratics in two and three dimensions with Gaussian noise, commuting with H and not, and with Cauchy noise; logistic
regression on 12 cases of breast cancer (three principal components, batches of 2 without replacement: 66 of them, so
that expectations over batches are exact); a network 4-4-3 with tanh on 60 iris flowers, the full gradient with Gaussian
noise.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from solvers.diffusion import (
    DNSAM,
    SAM,
    SDE,
    SGD,
    USAM,
    Adam,
    FiniteSum,
    Function,
    GaussianNoise,
    Problem,
    Quadratic,
    RMSprop,
    SignSGD,
    StudentNoise,
)

R1, R2 = 2.0, 1.0  # (1 - beta_i) / eta of Adam; RMSprop has R2
DECAY = 0.5  # of RMSpropW and AdamW
RADIUS = 0.5  # rho = RADIUS sqrt(eta): the SDEs hold for rho of that order
DRAWS = 64  # over which the law of an ascended gradient is taken where it is not exact
SAM_FAMILY = ("sam", "usam", "dnsam")
BATCHES = 66  # all of "cancer"
_HIDDEN, _CLASSES = 4, 3


def make(name: str) -> tuple[Problem, Tensor]:
    """The problem of that name, and where its paths start."""
    if name == "commuting":
        return Quadratic(vector(2.0, 0.5), GaussianNoise(vector(0.25, 1.0))), vector(1.5, -1.5)
    if name == "rotated":
        H = _rotate(vector(2.0, 1.0, 0.5), 1)
        return Quadratic(H, GaussianNoise(_rotate(vector(0.1, 0.5, 1.0), 2))), vector(1.5, -1.5, 1.0)
    if name == "cauchy":
        return Quadratic(vector(2.0, 0.5), StudentNoise(vector(0.5, 1.0), dof=1)), vector(1.5, -1.5)
    if name == "cancer":
        features, labels = _cancer()
        return FiniteSum(_logistic, (features, labels), features.shape[1], batch_size=2), vector(1.0, -1.0, 1.0)
    if name == "network":
        features, labels = _iris()
        n = _HIDDEN * (features.shape[1] + 1) + _CLASSES * (_HIDDEN + 1)
        noise = GaussianNoise(torch.full((n,), 0.1**2, dtype=torch.float64))
        start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
        return Function(lambda x: F.cross_entropy(_network(x, features), labels), noise), start
    raise ValueError(f"unknown problem {name!r}")


def model(rule: str, problem: Problem, eta: float, **changed: Any) -> SDE:
    """The SDE of that name with the settings of this module; r_i and rho / sqrt(eta) are the same for all eta."""
    draws = BATCHES if isinstance(problem, FiniteSum) else DRAWS
    made: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "draws": draws}
    kinds: dict[str, type[SDE]] = {"sam": SAM, "usam": USAM, "dnsam": DNSAM}
    if rule in kinds:
        return kinds[rule](problem, eta, **({"rho": RADIUS * math.sqrt(eta)} | made | changed))
    if rule == "sgd":
        return SGD(problem, eta, **changed)
    if rule == "sign":
        return SignSGD(problem, eta, **(made | changed))
    decoupled = {"decoupled": DECAY if rule.endswith("w") else 0.0}
    if rule.startswith("rmsprop"):
        return RMSprop(problem, eta, **({"beta": 1 - eta * R2} | decoupled | changed))
    if rule.startswith("adam"):
        return Adam(problem, eta, **({"betas": (1 - eta * R1, 1 - eta * R2)} | decoupled | changed))
    raise ValueError(f"unknown rule {rule!r}")


def _logistic(x: Tensor, features: Tensor, label: Tensor) -> Tensor:
    return F.softplus(-label * (features @ x))


def _network(x: Tensor, features: Tensor) -> Tensor:
    d = features.shape[1]
    first, bias, second, last = x.split((_HIDDEN * d, _HIDDEN, _CLASSES * _HIDDEN, _CLASSES))
    hidden = torch.tanh(features @ first.view(_HIDDEN, d).T + bias)
    return hidden @ second.view(_CLASSES, _HIDDEN).T + last


@cache
def _cancer() -> tuple[Tensor, Tensor]:
    """Three principal components of unit variance, labels 1 and -1."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    U = np.linalg.svd(X, full_matrices=False)[0][:, :3] * math.sqrt(len(X))
    chosen = np.random.default_rng(0).permutation(len(X))[:12]
    signs = np.sign(U[np.abs(U).argmax(0), np.arange(3)])  # those of a singular vector are arbitrary
    return torch.from_numpy((U * signs)[chosen]), torch.from_numpy(2.0 * y[chosen] - 1)


@cache
def _iris() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    chosen = np.random.default_rng(0).permutation(len(X))[:60]
    return torch.from_numpy(X[chosen]), torch.from_numpy(y[chosen])


def _rotate(values: Tensor, seed: int) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    basis = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    Q = torch.linalg.qr(basis).Q
    rotated = Q @ torch.diag(values) @ Q.T
    return (rotated + rotated.T) / 2


def vector(*values: float) -> Tensor:
    """In float64, as all of these problems."""
    return torch.tensor(values, dtype=torch.float64)
