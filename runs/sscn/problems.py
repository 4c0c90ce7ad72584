"""The problems of `runs.sscn`: linear models on real data, log-sum-exp, a small network on digits.

Logistic: -mean(y log p + (1 - y) log(1 - p)) + lambda sum_j w_j^2 / (1 + w_j^2), lambda = 0.1, w_0 uniform in [0, 1],
as in arXiv 2406.16666. The robust regressions (losses of Cauchy and of Geman and McClure, 0.01 ||w||^2 / 2) and the
non-linear least squares behind a sigmoid (the regulariser above, lambda = 0.01) are those of its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import Hessian
from landscape.spectra import eigsh
from probes.digits import build_network
from runs.sscn.data import DATA, read
from solvers import LinearModel, NonConvex, Ridge, linear_model
from solvers.second_order.margin_losses import Loss
from solvers.second_order.margins import Regulariser

WEIGHT, WEAK = 0.1, 1e-3  # lambda
DENSE = 1500  # coordinates up to which the smallest eigenvalue is that of the dense Hessian
DECAY = 5e-4  # of the network
LSE = {"lse": 0.05, "lse-hard": 0.01}  # mu

# by problem: data, loss, regulariser; every other name is that of data, or of a file, for logistic regression
_LINEAR: dict[str, tuple[str, Loss, Regulariser]] = {
    "weak": ("mnist", "logistic", NonConvex(WEAK)),
    "weak-digits": ("digits", "logistic", NonConvex(WEAK)),
    "cauchy": ("diabetes", "cauchy", Ridge(1e-2)),
    "geman-mcclure": ("diabetes", "geman-mcclure", Ridge(1e-2)),
    "squares": ("madelon", "squares-sigmoid", NonConvex(1e-2)),
}


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
        if isinstance(self.closure, LinearModel):
            return float(self.closure.gradient(torch.arange(self.n)).norm())
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
        found = eigsh(A, k=1, which="SA", tol=1e-4, generator=torch.Generator().manual_seed(0))
        sure = found.converged and found.confirmed
        return float(found.values[0]), float(found.residuals[0]) if sure else math.inf


def make(name: str, seed: int) -> Case:
    """The problem of that name from the start that the seed draws; the data are the same for every seed.

    A name that is a file's path stands for logistic regression on that file, in LIBSVM's format.
    """
    if name.startswith("mlp"):
        return _network(seed, saddle=name == "mlp-saddle")
    if name in LSE:
        return _log_sum_exp(LSE[name])
    data, loss, regulariser = _LINEAR.get(name, (name, "logistic", NonConvex(WEIGHT)))
    X, y = DATA[data]() if data in DATA else read(Path(data))
    start = np.random.default_rng((seed, 1)).random(X.shape[1])
    model = linear_model(X, y, loss, regulariser, start=start)
    most = {"logistic": 0.25, "cauchy": 1.0, "geman-mcclure": 1.0, "squares-sigmoid": 0.1}[
        loss
    ]  # of |second derivative|
    at_zero = float(regulariser.second(torch.zeros(1)))
    return Case(model, [model.weight], len(y), lambda: most * float(np.linalg.norm(X, 2)) ** 2 / len(y) + at_zero)


def _log_sum_exp(mu: float, n: int = 500) -> Case:
    """mu log sum exp((a_i . x - b_i) / mu) with the regulariser, m = 6 n, x_0 = 1; rows shifted: 0 is stationary."""
    rng = np.random.default_rng((0, 0))
    A, b = rng.uniform(-1, 1, (6 * n, n)), rng.uniform(-1, 1, 6 * n)
    p = np.exp((b.min() - b) / mu)
    A = A - (p / p.sum()) @ A
    model = linear_model(A, b, "log-sum-exp", NonConvex(WEIGHT), start=np.ones(n), mu=mu)
    return Case(model, [model.weight], 6 * n, lambda: float((A**2).sum(1).max()) / mu + 2 * WEIGHT)


def _network(seed: int, *, saddle: bool) -> Case:
    """64-8-10 with tanh on 500 digits, cross-entropy and 0.0005 ||w||^2, in float64: 610 coordinates.

    saddle: it starts where all weights are 0 and the biases of the output are the best ones for that: the gradient is
    0, the Hessian indefinite.
    """
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(X[:500] / 8 - 1, dtype=torch.float64), torch.tensor(y[:500])
    net = build_network(lambda: nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)), seed).double()
    parameters: list[Tensor] = list(net.parameters())
    if saddle:
        with torch.no_grad():
            for p in parameters:
                p.zero_()
            parameters[-1].copy_(_biases(labels.bincount().double() / len(labels)))

    def closure() -> Tensor:
        decay = torch.stack([p.square().sum() for p in parameters]).sum()
        return F.cross_entropy(net(inputs), labels) + DECAY * decay

    return Case(closure, parameters, 500, lambda: math.nan)


def _biases(share: Tensor) -> Tensor:
    """The minimiser of the loss in the output's biases alone, by Newton's method."""
    b = torch.zeros_like(share)
    for _ in range(30):
        p = torch.softmax(b, 0)
        H = torch.diag(p) - torch.outer(p, p) + 2 * DECAY * torch.eye(len(b), dtype=torch.float64)
        b = b - torch.linalg.solve(H, p - share + 2 * DECAY * b)
    return b
