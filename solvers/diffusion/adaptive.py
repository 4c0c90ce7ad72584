"""RMSprop(W) and Adam(W) (arXiv 2411.15958). With beta = 1 - eta r, P = diag(V)^{1/2} + eps and G = grad f + coupled X:

    RMSprop  dX = -P^{-1} (G dt + sqrt(eta) Sigma^{1/2} dW) - decoupled X dt
             dV = r (G^2 + diag Sigma - V) dt
    Adam     dX = -sqrt(c_2) / c_1 P^{-1} (M + eta r_1 (G - M)) dt - decoupled X dt     c_i = 1 - exp(-r_i t)
             dM = r_1 (G - M) dt + sqrt(eta) r_1 Sigma^{1/2} dW
             dV = r_2 (G^2 + diag Sigma - V) dt                                      P = diag(V)^{1/2} + eps sqrt(c_2)

In that form V carries no noise, and the paths' band is too wide: with noise, V rises where the gradients that move the
paths are large. `moment_noise=True` adds to dV what g^2 = (G + z)^2 has of it, with the same dW:
sqrt(eta) r (2 diag(G) Sigma^{1/2} dW + (2 Sigma o Sigma)^{1/2} dB).

Adam's own step uses its means after they have taken in the new gradient; of that the published form has the drift of M.
`lookahead=True` takes all of it, at the same order: the noise eta r_1 sqrt(eta) Sigma^{1/2} dW of M, V + eta r_2 (G^2 +
diag Sigma - V), and c_i at t + eta. Without it V can be near 0 at first, and a few paths fly off.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from solvers.base import check
from solvers.diffusion.problems import Law, Problem
from solvers.diffusion.sde import SDE, Stochastic, Terms


class _Adaptive(SDE):
    """What both have: decays, eps and a running mean V of squared gradients, the last row of the state."""

    def __init__(
        self,
        problem: Problem,
        eta: float,
        eps: float,
        coupled: float,
        decoupled: float,
        moment_noise: bool,
        noise_dominates: bool,
    ) -> None:
        check(eps=(eps, eps >= 0), coupled=(coupled, coupled >= 0), decoupled=(decoupled, decoupled >= 0))
        super().__init__(problem, eta)
        self.eps, self.coupled, self.decoupled = eps, coupled, decoupled
        self.moment_noise, self.noise_dominates = moment_noise, noise_dominates
        self.width = problem.width + (problem.n if moment_noise else 0)

    def _second(self, G: Tensor, law: Law) -> Tensor:
        """What V runs after: E g^2, or the variance alone."""
        return law.variance() + (0.0 if self.noise_dominates else G.square())

    def _noises(self, xi: Tensor, G: Tensor, law: Law) -> tuple[Tensor, Tensor]:
        """The noise of g and that of g^2, each `(paths, n)`."""
        z = law.root(xi[:, : self.problem.width])
        if not self.moment_noise:
            return z, torch.zeros_like(z)
        return z, 2 * G * z + law.squares(xi[:, self.problem.width :])

    def repair(self, Y: Tensor) -> Tensor:
        """V is a mean of squares: reflected at 0."""
        return torch.cat([Y[:-1], Y[-1:].abs()])


class RMSprop(_Adaptive):
    """v <- beta v + (1 - beta) g^2, x <- (1 - eta decoupled)(x - eta g / (sqrt(v) + eps)), g with coupled x added.

    It starts from v = E g^2 at x0, not from 0 as `torch.optim.RMSprop`: there the SDE is 0/0.

    Args:
        problem, eta: as every SDE.
        beta: 1 - eta r, in [0, 1). To compare step sizes keep r = (1 - beta) / eta fixed.
        eps: >= 0.
        coupled, decoupled: weight decays, >= 0; decoupled is RMSpropW.
        moment_noise: whether V carries noise; False is the published SDE.
        noise_dominates: leave (grad f)^2 out of dV, as arXiv 2205.10287 does where noise dominates.

    Example:
        >>> import torch
        >>> from solvers.diffusion import Quadratic, RMSprop, integrate
        >>> problem = Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([0.1, 0.1]))
        >>> sde = RMSprop(problem, eta=0.01, beta=0.9, decoupled=0.1)
        >>> paths = integrate(sde, torch.ones(2), dt=0.01, steps=100, paths=50, every=10)
        >>> paths.final.shape, bool(paths.statistics["loss"].mean[-1] < 1.0)  # x and v of each path
        (torch.Size([2, 50, 2]), True)
    """

    parts: ClassVar[tuple[str, ...]] = ("x", "v")

    def __init__(
        self,
        problem: Problem,
        eta: float,
        *,
        beta: float = 0.99,
        eps: float = 1e-8,
        coupled: float = 0.0,
        decoupled: float = 0.0,
        moment_noise: bool = True,
        noise_dominates: bool = False,
    ) -> None:
        check(beta=(beta, 0 <= beta < 1))
        super().__init__(problem, eta, eps, coupled, decoupled, moment_noise, noise_dominates)
        self.beta, self.r = beta, (1 - beta) / eta

    def begin(self, X: Tensor) -> Tensor:
        """Points, and E g^2 there."""
        law = self.problem.law(X)
        return torch.stack([X, law.variance() + (law.gradient + self.coupled * X).square()])

    @override
    def terms(self, Y: Tensor, t: float) -> Terms:
        X, V = Y
        law = self.problem.law(X)
        G = law.gradient + self.coupled * X
        P = V.sqrt() + self.eps

        def diffuse(xi: Tensor) -> Tensor:
            z, square = self._noises(xi, G, law)
            return math.sqrt(self.eta) * torch.stack([-z / P, self.r * square])

        return Terms(torch.stack([-G / P - self.decoupled * X, self.r * (self._second(G, law) - V)]), diffuse)

    @override
    def update(self, Y: Tensor, step: int, stochastic: Stochastic) -> Tensor:
        X, V = Y
        g = stochastic(X) + self.coupled * X
        V = self.beta * V + (1 - self.beta) * g.square()
        return torch.stack([(1 - self.eta * self.decoupled) * (X - self.eta * g / (V.sqrt() + self.eps)), V])


class Adam(_Adaptive):
    """Adam with bias correction, decoupled decay after the step (as `solvers.AdamCoupled`).

    The SDE starts at t = eta from the solver's own first step, which each path takes with its own noise: at t = 0 it
    is 0/0.

    Args:
        problem, eta: as every SDE.
        betas: 1 - eta r_i, in [0, 1). To compare step sizes keep r_i = (1 - beta_i) / eta fixed.
        eps: >= 0.
        coupled, decoupled: weight decays, >= 0; decoupled is AdamW.
        moment_noise: whether V carries noise.
        lookahead: the means as the step uses them; the published SDE is `moment_noise=False, lookahead=False`.
        noise_dominates: leave (grad f)^2 out of dV, as arXiv 2205.10287 does where noise dominates.

    Example:
        >>> import torch
        >>> from solvers.diffusion import Adam, Quadratic, integrate
        >>> problem = Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([0.1, 0.1]))
        >>> sde = Adam(problem, eta=0.01, betas=(0.9, 0.99))
        >>> paths = integrate(sde, torch.ones(2), dt=0.01, steps=100, paths=50, every=10)
        >>> paths.final.shape, bool(paths.statistics["loss"].mean[-1] < 1.0)  # x, m and v of each path
        (torch.Size([3, 50, 2]), True)
    """

    parts: ClassVar[tuple[str, ...]] = ("x", "m", "v")

    def __init__(
        self,
        problem: Problem,
        eta: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        coupled: float = 0.0,
        decoupled: float = 0.0,
        moment_noise: bool = True,
        lookahead: bool = True,
        noise_dominates: bool = False,
    ) -> None:
        check(betas=(betas, len(betas) == 2 and all(0 <= b < 1 for b in betas)))
        super().__init__(problem, eta, eps, coupled, decoupled, moment_noise, noise_dominates)
        self.betas, self.r = betas, ((1 - betas[0]) / eta, (1 - betas[1]) / eta)
        self.ahead = eta if lookahead else 0.0

    def begin(self, X: Tensor) -> Tensor:
        """Points, and running means of 0."""
        return torch.stack([X, torch.zeros_like(X), torch.zeros_like(X)])

    def start(self, X: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
        """The state after the solver's first step, and t = eta."""
        draws = self.problem.sample(len(X), generator)
        return self.update(self.begin(X), 0, lambda at: self.problem.stochastic(at, draws)), self.eta

    def terms(self, Y: Tensor, t: float) -> Terms:
        """As the base class. Raises `ValueError` at t = 0."""
        if t <= 0:
            raise ValueError("Adam's SDE is 0/0 at t=0: start(...) gives the state and the time that it begins with")
        X, M, V = Y
        r1, r2 = self.r
        law = self.problem.law(X)
        G = law.gradient + self.coupled * X
        M_drift, V_drift = r1 * (G - M), r2 * (self._second(G, law) - V)
        first, second = (-math.expm1(-r * (t + self.ahead)) for r in self.r)
        root = (V + self.ahead * V_drift).sqrt() + self.eps * math.sqrt(second)
        P = root * first / math.sqrt(second)

        def diffuse(xi: Tensor) -> Tensor:
            z, square = self._noises(xi, G, law)
            return math.sqrt(self.eta) * torch.stack([-self.ahead * r1 * z / P, r1 * z, r2 * square])

        return Terms(torch.stack([-(M + self.eta * M_drift) / P - self.decoupled * X, M_drift, V_drift]), diffuse)

    @override
    def update(self, Y: Tensor, step: int, stochastic: Stochastic) -> Tensor:
        X, M, V = Y
        beta1, beta2 = self.betas
        g = stochastic(X) + self.coupled * X
        M, V = beta1 * M + (1 - beta1) * g, beta2 * V + (1 - beta2) * g.square()
        mean, square = M / (1 - beta1 ** (step + 1)), V / (1 - beta2 ** (step + 1))
        X = (1 - self.eta * self.decoupled) * (X - self.eta * mean / (square.sqrt() + self.eps))
        return torch.stack([X, M, V])
