"""Descent along the sign (arXiv 2411.15958, theorem 3.2 and corollary 3.3).

    dX = -E sign(g) dt + sqrt(eta) Cov(sign g)^{1/2} dW - decoupled X dt        E sign(g_i) = 1 - 2 P(g_i < 0)

With independent Gaussian noise and s = Sigma^{-1/2} grad f: E sign(g) = Erf(s / sqrt 2), Cov(sign g) =
I - diag(Erf(s / sqrt 2))^2. In Y = s / sqrt 2 there are three phases: |Y| > 3/2, the drift is -sign(grad f);
1 < |Y| < 3/2; |Y| < 1, the drift is about -sqrt(2/pi) Sigma^{-1/2} grad f. A coupled decay goes through the sign.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from landscape.randomness import fresh_generator
from solvers.base import check
from solvers.diffusion.finite_sum import FiniteSum
from solvers.diffusion.problems import Function, Problem, Spread
from solvers.diffusion.sde import SDE, Stochastic, Terms


class SignSGD(SDE):
    """x <- (1 - eta decoupled) x - eta sign(g + coupled x).

    Args:
        problem, eta: as every SDE.
        coupled, decoupled: weight decays, >= 0.
        draws: for a `FiniteSum`, how many batches the law of the sign is taken over (all of them where there are no
            more); with noise that is the same everywhere the law is exact.
        generator: chooses those batches.

    Example:
        >>> import torch
        >>> from solvers.diffusion import Quadratic, SignSGD
        >>> problem = Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 1.0]))
        >>> sde, X = SignSGD(problem, eta=0.1), torch.ones(1, 2, dtype=torch.float64)
        >>> [round(float(v), 3) for v in sde.drift(X[None])[0, 0]]  # -E sign(g)
        [-0.683, -1.0]
        >>> sde.phases(X).tolist()
        [[3, 1]]
    """

    def __init__(
        self,
        problem: Problem,
        eta: float,
        *,
        coupled: float = 0.0,
        decoupled: float = 0.0,
        draws: int = 256,
        generator: torch.Generator | None = None,
    ) -> None:
        check(coupled=(coupled, coupled >= 0), decoupled=(decoupled, decoupled >= 0), draws=(draws, draws >= 1))
        super().__init__(problem, eta)
        self.coupled, self.decoupled = coupled, decoupled
        if isinstance(problem, FiniteSum):
            self._draws = problem.balanced(draws, generator or fresh_generator())
            self.width = len(self._draws)

    def signs(self, X: Tensor) -> Spread:
        """The law of sign(g + coupled x) at X `(paths, n)`."""
        problem = self.problem
        if isinstance(problem, Function):
            mean = problem.gradient(X) + self.coupled * X
            return Spread(problem.noise.mean_sign(mean), lambda xi: problem.noise.sign_root(mean, xi))
        return Spread.of(torch.sign(problem.atoms(X, self._draws) + self.coupled * X))

    def phases(self, X: Tensor) -> Tensor:
        """1, 2 or 3 for each coordinate, `(paths, n)`: by |Y| > 3/2, in between, and < 1; for Gaussian noise."""
        law = self.problem.law(X)
        ratio = (law.gradient + self.coupled * X).abs() / (2 * law.variance()).sqrt()
        return 3 - (ratio >= 1).int() - (ratio > 1.5).int()

    @override
    def terms(self, Y: Tensor, t: float) -> Terms:
        signs = self.signs(Y[0])
        return Terms(-(signs.mean + self.decoupled * Y[0])[None], lambda xi: math.sqrt(self.eta) * signs.root(xi)[None])

    @override
    def update(self, Y: Tensor, step: int, stochastic: Stochastic) -> Tensor:
        signs = torch.sign(stochastic(Y[0]) + self.coupled * Y[0])
        return (1 - self.eta * self.decoupled) * Y - self.eta * signs
