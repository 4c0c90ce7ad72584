"""The problems of `runs.sscn`: regularised logistic regression, log-sum-exp, a small network on digits.

Logistic: -mean(y log p + (1 - y) log(1 - p)) + lambda sum_j w_j^2 / (1 + w_j^2), lambda = 0.1, features centred and
scaled to unit standard deviation (constant ones left out), w_0 uniform in [0, 1], as in arXiv 2406.16666. The data of
the shapes of "duke" and (reduced) "gisette" are random: normal features, labels of a noisy linear rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import Hessian
from landscape.spectra import eigsh
from probes.digits import build_network
from solvers import LinearModel, NonConvex, linear_model

Array = NDArray[np.float64]
WEIGHT = 0.1  # lambda
MU = 0.1  # of log-sum-exp
DENSE = 1500  # coordinates up to which the smallest eigenvalue is that of the dense Hessian
SHAPES = {"duke": (44, 7129), "gisette": (1200, 1000), "tiny": (20, 60)}


@dataclass(frozen=True)
class Case:
    """A loss to minimise.

    Attributes:
        closure: the loss with its graph; a `LinearModel` where there is one.
        parameters: in which it is minimised.
        samples: of the data.
        bound: finds `smoothness`.
    """

    closure: Callable[[], Tensor]
    parameters: list[Tensor]
    samples: int
    bound: Callable[[], float]

    @property
    def n(self) -> int:
        """Coordinates."""
        return sum(p.numel() for p in self.parameters)

    @property
    def smoothness(self) -> float:
        """An upper bound of the largest eigenvalue of the Hessian anywhere; nan where none is known."""
        return self.bound()

    def gradient_norm(self) -> float:
        """Of the whole gradient, as it stands."""
        pieces = torch.autograd.grad(self.closure(), self.parameters)
        return float(torch.cat([g.reshape(-1) for g in pieces]).norm())

    def lowest(self) -> tuple[float, float]:
        """The smallest eigenvalue of the whole Hessian, and how far below it the true one may lie."""
        A = Hessian.from_loss(self.closure(), self.parameters)
        if self.n <= DENSE:
            if isinstance(self.closure, LinearModel):
                H = self.closure.blocks(torch.arange(self.n))[1]
            else:
                H = A.to_dense().double()
            values = torch.linalg.eigvalsh(0.5 * (H + H.T))
            return float(values[0]), 1e-14 * self.n * float(values.abs().max())
        found = eigsh(A, k=1, which="SA", tol=1e-8, generator=torch.Generator().manual_seed(0))
        sure = found.converged and found.confirmed
        return float(found.values[0]), float(found.residuals[0]) if sure else math.inf


def make(name: str, seed: int, *, data_seed: int = 0) -> Case:
    """The problem of that name from the start that the seed draws; synthetic data depend on `data_seed` alone.

    A name that is a file's path stands for logistic regression on that file, in LIBSVM's format.
    """
    if name == "mlp":
        return _network(seed)
    rng = np.random.default_rng((seed, 1))
    if name == "lse":
        return _log_sum_exp(rows=1200, n=200, seed=data_seed)
    X, y = _data(name, data_seed)
    model = linear_model(X, y, "logistic", NonConvex(WEIGHT), start=rng.random(X.shape[1]))
    return Case(model, [model.weight], len(y), lambda: float(np.linalg.norm(X, 2)) ** 2 / (4 * len(y)) + 2 * WEIGHT)


def _data(name: str, seed: int) -> tuple[Array, Array]:
    if name in ("cancer", "digits"):
        from sklearn.datasets import load_breast_cancer, load_digits

        X, y = load_digits(return_X_y=True) if name == "digits" else load_breast_cancer(return_X_y=True)
        return standardise(X), np.asarray(y % 2, dtype=np.float64)
    if name in SHAPES:
        samples, n = SHAPES[name]
        rng = np.random.default_rng((seed, 0))
        X = standardise(rng.standard_normal((samples, n)))
        noise = 0.5 * rng.standard_normal(samples)
        return X, (X @ rng.standard_normal(n) / math.sqrt(n) + noise > 0).astype(np.float64)
    return read(Path(name))


def read(path: Path) -> tuple[Array, Array]:
    """Standardised features and labels 0 and 1 of a file in LIBSVM's format, dense.

    Raises `ValueError` for a file that is none, or that has not exactly two labels.
    """
    from sklearn.datasets import load_svmlight_file

    try:
        X, y = load_svmlight_file(str(path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not in LIBSVM's format: {error}") from error
    labels = np.unique(y)
    if len(labels) != 2:
        raise ValueError(f"{path} has {len(labels)} different labels: logistic regression needs two")
    return standardise(X.toarray()), (y == labels[1]).astype(np.float64)


def standardise(X: Any) -> Array:
    """Each feature centred, of unit standard deviation; those that are constant are left out."""
    X = np.asarray(X, dtype=np.float64)
    X = X - X.mean(0)
    spread = X.std(0)
    kept = spread > 1e-12 * max(float(np.abs(X).max(initial=0.0)), 1e-300)
    if not kept.any():
        raise ValueError("every feature is constant")
    return np.asarray(X[:, kept] / spread[kept])


def _log_sum_exp(rows: int, n: int, seed: int) -> Case:
    """mu log sum exp((a_i . x - b_i) / mu) with the regulariser; rows shifted so that 0 is stationary; x_0 = 1."""
    rng = np.random.default_rng((seed, 0))
    A, b = rng.uniform(-1, 1, (rows, n)), rng.uniform(-1, 1, rows)
    p = np.exp((b.min() - b) / MU)
    A = A - (p / p.sum()) @ A
    model = linear_model(A, b, "log-sum-exp", NonConvex(WEIGHT), start=np.ones(n), mu=MU)
    return Case(model, [model.weight], rows, lambda: float((A**2).sum(1).max()) / MU + 2 * WEIGHT)


def _network(seed: int) -> Case:
    """64-8-10 with tanh on 500 digits, cross-entropy and 0.0005 ||w||^2, in float64: 610 coordinates."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(X[:500] / 8 - 1, dtype=torch.float64), torch.tensor(y[:500])
    net = build_network(lambda: nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)), seed).double()
    parameters: list[Tensor] = list(net.parameters())

    def closure() -> Tensor:
        decay = torch.stack([p.square().sum() for p in parameters]).sum()
        return F.cross_entropy(net(inputs), labels) + 5e-4 * decay

    return Case(closure, parameters, 500, lambda: math.nan)
