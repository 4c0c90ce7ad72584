"""Sharpness-aware descent (arXiv 2301.08203): with g, H_g of one batch and c = |g| (SAM), 1 (USAM), |grad f| (DNSAM)

    x <- x - eta g(x + rho g / c)            dX = -E a dt + sqrt(eta) Cov(a)^{1/2} dW,      a = g + rho H_g g / c

E a = grad f + rho E[H_g g / c] is the gradient of f + rho E|g| for SAM, f + (rho / 2) E|g|^2 for USAM. The published
diffusion Sigma + rho (S + S^T), S the cross covariance, agrees with Cov(a) to the first order in rho but can be
indefinite, exactly at saddle points; Cov(a) cannot.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from landscape.randomness import fresh_generator
from solvers.base import check
from solvers.diffusion.problems import Function, Problem, Spread
from solvers.diffusion.sde import SDE, Stochastic, Terms


class _SharpnessAware(SDE):
    """x <- x - eta g(x + rho g / c), both gradients of the same batch.

    Args:
        problem, eta: as every SDE.
        rho: the radius, >= 0.
        draws: over how many draws of the noise (or batches: all of them where there are no more) expectations are
            taken where they are not exact. They are for USAM and DNSAM with noise that is the same everywhere.
        generator: chooses those draws.
    """

    _linear: ClassVar[bool] = True  # whether a is linear in noise that is the same everywhere

    def __init__(
        self, problem: Problem, eta: float, *, rho: float, draws: int = 256, generator: torch.Generator | None = None
    ) -> None:
        check(rho=(rho, 0 <= rho < math.inf), draws=(draws, draws >= 1))
        super().__init__(problem, eta)
        self.rho = rho
        exact = self._linear and isinstance(problem, Function)
        self._draws = None if exact else problem.balanced(draws, generator or fresh_generator())
        self.width = problem.width if self._draws is None else len(self._draws)

    @abstractmethod
    def _scale(self, g: Tensor, X: Tensor) -> Tensor:
        """c, `(..., paths, 1)`, for g `(..., paths, n)`."""

    def uphill(self, X: Tensor) -> Spread:
        """Mean and covariance of a at X `(paths, n)`."""
        problem, rho = self.problem, self.rho
        if self._draws is not None:
            g = problem.atoms(X, self._draws)
            return Spread.of(g + rho * problem.products(X, self._draws, g / self._scale(g, X)))
        assert isinstance(problem, Function)
        gradient = problem.gradient(X)
        c = self._scale(gradient, X)

        def raised(v: Tensor) -> Tensor:
            return v + rho * problem.product(X, v / c)

        return Spread(raised(gradient), lambda xi: raised(problem.noise.root(xi)))

    @override
    def terms(self, Y: Tensor, t: float) -> Terms:
        a = self.uphill(Y[0])
        return Terms(-a.mean[None], lambda xi: math.sqrt(self.eta) * a.root(xi)[None])

    @override
    def update(self, Y: Tensor, step: int, stochastic: Stochastic) -> Tensor:
        X = Y[0]
        g = stochastic(X)
        return Y - self.eta * stochastic(X + self.rho * g / self._scale(g, X))


class SAM(_SharpnessAware):
    """x <- x - eta g(x + rho g / |g|).

    Example:
        >>> import torch
        >>> from solvers.diffusion import SAM, Quadratic, integrate
        >>> problem = Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([0.1, 0.1]))
        >>> sde = SAM(problem, eta=0.1, rho=0.1)
        >>> paths = integrate(sde, torch.ones(2), dt=0.1, steps=20, paths=50, every=20)
        >>> bool(paths.statistics["loss"].mean[-1] < 0.2)
        True
    """

    _linear: ClassVar[bool] = False

    def _scale(self, g: Tensor, X: Tensor) -> Tensor:
        return norm(g)


class USAM(_SharpnessAware):
    """x <- x - eta g(x + rho g), not normalised. With additive noise Cov(a) = (I + rho H) Sigma (I + rho H).

    Example:
        >>> import torch
        >>> from solvers.diffusion import USAM, Quadratic
        >>> problem = Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([0.1, 0.1]))
        >>> sde = USAM(problem, eta=0.1, rho=0.1)
        >>> [round(v, 2) for v in sde.drift(torch.ones(1, 1, 2).double())[0, 0].tolist()]  # -(H + rho H^2) x
        [-1.1, -5.6]
    """

    def _scale(self, g: Tensor, X: Tensor) -> Tensor:
        return torch.ones_like(g[..., :1])


class DNSAM(_SharpnessAware):
    """x <- x - eta g(x + rho g / |grad f|): normalised by the full gradient.

    Where that is small its diffusion has no bound, and neither has the solver's step: near a minimum the paths have
    heavy tails, and variances are not a measure of them.

    Example:
        >>> import torch
        >>> from solvers.diffusion import DNSAM, Quadratic
        >>> problem = Quadratic(torch.tensor([3.0, 4.0]), torch.tensor([0.1, 0.1]))
        >>> sde = DNSAM(problem, eta=0.1, rho=0.1)
        >>> [round(v, 2) for v in sde.drift(torch.ones(1, 1, 2).double())[0, 0].tolist()]  # -H (x + rho H x / |H x|)
        [-3.18, -4.32]
    """

    def _scale(self, g: Tensor, X: Tensor) -> Tensor:
        return norm(self.problem.gradient(X))


def norm(g: Tensor) -> Tensor:
    """|g|, `(..., 1)`; infinite where it is 0, where the solvers of this package go nowhere uphill."""
    size = torch.linalg.vector_norm(g, dim=-1, keepdim=True)
    return torch.where(size > 0, size, math.inf)
