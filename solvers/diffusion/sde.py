"""An SDE that models a first-order solver, beside the solver itself.

    dY = drift(Y, t) dt + diffusion(Y, t) dW        one step of the solver is a time of eta

Y holds the point and the running means, `(parts, paths, n)`; the factor sqrt(eta) is inside the diffusion. The solver
`update` is written apart from the SDE and from the optimizers of this package: it moves all paths at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from solvers.base import check
from solvers.diffusion.problems import Problem

Stochastic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Terms:
    """Drift and diffusion at one state.

    Attributes:
        drift: like the state, `(parts, paths, n)`.
        diffuse: standard normals `(paths, width)` -> the diffusion applied to them, like the state.
    """

    drift: Tensor
    diffuse: Callable[[Tensor], Tensor]


class SDE(ABC):
    """The model of one solver on one problem.

    Args:
        problem: f and the law of its stochastic gradients.
        eta: the solver's step size, > 0.

    Attributes:
        parts: what the rows of a state are; the first is the point.
        width: standard normals that the diffusion needs for each path.

    Raises:
        ValueError: eta is not positive, or a setting is not possible.

    Example:
        >>> import torch
        >>> from solvers.diffusion import SDE, Quadratic, Terms, discrete
        >>> class Descent(SDE):
        ...     def terms(self, Y, t):
        ...         law = self.problem.law(Y[0])
        ...         return Terms(-law.gradient[None], lambda xi: self.eta**0.5 * law.root(xi)[None])
        ...     def update(self, Y, step, stochastic):
        ...         return Y - self.eta * stochastic(Y[0])
        >>> sde = Descent(Quadratic(torch.ones(2), torch.ones(2)), eta=0.1)
        >>> discrete(sde, torch.zeros(2), steps=10, paths=50).times[-1].item()
        1.0
    """

    parts: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, problem: Problem, eta: float) -> None:
        check(eta=(eta, 0 < eta < math.inf))
        self.problem, self.eta = problem, float(eta)
        self.width = problem.width

    @abstractmethod
    def terms(self, Y: Tensor, t: float) -> Terms:
        """Drift and diffusion at the state Y `(parts, paths, n)` and time t, from one look at the problem."""

    @abstractmethod
    def update(self, Y: Tensor, step: int, stochastic: Stochastic) -> Tensor:
        """The solver's state after step number `step` (from 0); `stochastic(X)` is g at X, with one batch for all X."""

    def drift(self, Y: Tensor, t: float = 0.0) -> Tensor:
        """The drift at Y, `(parts, paths, n)`."""
        return self.terms(Y, t).drift

    def diffusion(self, Y: Tensor, xi: Tensor, t: float = 0.0) -> Tensor:
        """The diffusion at Y applied to standard normals `(paths, width)`, `(parts, paths, n)`."""
        return self.terms(Y, t).diffuse(xi)

    def begin(self, X: Tensor) -> Tensor:
        """The solver's state before its first step, from points `(paths, n)`."""
        return X[None].clone()

    def start(self, X: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
        """The state that the SDE starts from, and its time."""
        return self.begin(X), 0.0

    def repair(self, Y: Tensor) -> Tensor:
        """A state that the SDE cannot leave but a step of finite length can, put back."""
        return Y
