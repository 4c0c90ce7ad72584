"""Stochastic gradient descent: dX = -(grad f + decay X) dt + sqrt(eta) Sigma^{1/2} dW (arXiv 2411.15958, section 3).

With Gaussian noise, Euler-Maruyama at dt = eta is the solver itself: there is nothing to compare at that step.
"""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from solvers.base import check
from solvers.diffusion.problems import Problem
from solvers.diffusion.sde import SDE, Stochastic, Terms


class SGD(SDE):
    """x <- x - eta (g + weight_decay x).

    Example:
        >>> import torch
        >>> from solvers.diffusion import SGD, Quadratic, linearised
        >>> problem = Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([0.1, 0.1]))
        >>> sde = SGD(problem, eta=0.1)
        >>> sde.drift(torch.ones(1, 1, 2).double()).tolist()
        [[[-1.0, -4.0]]]
        >>> round(float(linearised(sde).covariance()[0, 0]), 4)  # where it settles: eta Sigma / (2 H)
        0.005
    """

    def __init__(self, problem: Problem, eta: float, *, weight_decay: float = 0.0) -> None:
        check(weight_decay=(weight_decay, weight_decay >= 0))
        super().__init__(problem, eta)
        self.weight_decay = weight_decay

    @override
    def terms(self, Y: Tensor, t: float) -> Terms:
        X = Y[0]
        law = self.problem.law(X)
        return Terms(-(law.gradient + self.weight_decay * X)[None], lambda xi: math.sqrt(self.eta) * law.root(xi)[None])

    @override
    def update(self, Y: Tensor, step: int, stochastic: Stochastic) -> Tensor:
        return Y - self.eta * (stochastic(Y[0]) + self.weight_decay * Y[0])
