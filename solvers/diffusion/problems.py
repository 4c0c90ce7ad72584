"""What a solver or its SDE sees: f, its gradient, and the law of a stochastic gradient g at a point.

Everything is over many paths at once: X is `(paths, n)` in float64. Two kinds of noise: added to the gradient and the
same everywhere (`Function`, `Quadratic`), or of mini-batches drawn without replacement from a finite sum
(`FiniteSum`), where Cov(g) = (N - B) / (B (N - 1)) Cov(gradient of one sample).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from typing_extensions import override

from solvers.diffusion.noise import GaussianNoise, Noise, check_symmetric


@dataclass(frozen=True)
class Law:
    """First and second moments of the stochastic gradients at X `(paths, n)`.

    Attributes:
        gradient: `(paths, n)`, grad f.
        variance: () -> `(paths, n)`, the diagonal of Sigma.
        root: standard normals `(paths, width)` -> Sigma^{1/2} xi, `(paths, n)`.
        squares: standard normals `(paths, n)` -> a Gaussian with the variance of (g - grad f)^2, `(paths, n)`.
    """

    gradient: Tensor
    variance: Callable[[], Tensor]
    root: Callable[[Tensor], Tensor]
    squares: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spread:
    """Mean and covariance of some function of the stochastic gradient at X `(paths, n)`.

    Attributes:
        mean: `(paths, n)`.
        root: standard normals `(paths, width)` -> Cov^{1/2} xi, `(paths, n)`.
    """

    mean: Tensor
    root: Callable[[Tensor], Tensor]

    @staticmethod
    def of(atoms: Tensor) -> Spread:
        """That of `(k, paths, n)` equally likely values; its root takes normals `(paths, k)`."""
        mean = atoms.mean(0)
        centred = (atoms - mean) / len(atoms) ** 0.5
        return Spread(mean, lambda xi: torch.einsum("pk,kpn->pn", xi, centred))


class Problem(ABC):
    """f, grad f and the law of g; `draw` stands for whatever makes one gradient stochastic (noise, a batch).

    Attributes:
        n: the dimension.
        width: standard normals that `Law.root` needs for each path.
    """

    n: int
    width: int

    @abstractmethod
    def loss(self, X: Tensor) -> Tensor:
        """f, `(paths,)`."""

    @abstractmethod
    def gradient(self, X: Tensor) -> Tensor:
        """grad f, `(paths, n)`."""

    @abstractmethod
    def law(self, X: Tensor) -> Law:
        """The moments of g at X."""

    @abstractmethod
    def sample(self, paths: int, generator: torch.Generator) -> Tensor:
        """Independent draws, `(paths, ...)`: what each path's solver sees in one step."""

    @abstractmethod
    def balanced(self, count: int, generator: torch.Generator) -> Tensor:
        """About `count` draws whose gradients have the mean grad f, to take expectations over."""

    @abstractmethod
    def stochastic(self, X: Tensor, draws: Tensor) -> Tensor:
        """g at X, path by path, `(paths, n)`."""

    @abstractmethod
    def atoms(self, X: Tensor, draws: Tensor) -> Tensor:
        """g of every draw at every path, `(draws, paths, n)`."""

    @abstractmethod
    def products(self, X: Tensor, draws: Tensor, V: Tensor) -> Tensor:
        """H_g V for every draw and path, `(draws, paths, n)`; H_g the Hessian of the draw's own loss."""


class Function(Problem):
    """f of one vector, `f(x)` -> scalar for x `(n,)`, with noise added to its gradient.

    Args:
        f: differentiable by `torch.func`.
        noise: of dimension n.

    Example:
        >>> import torch
        >>> from solvers.diffusion import SGD, Function, GaussianNoise, integrate
        >>> problem = Function(lambda x: (x**2 - 1).square().sum() / 4, GaussianNoise(torch.tensor([0.1])))
        >>> rng = torch.Generator().manual_seed(0)
        >>> paths = integrate(SGD(problem, 0.1), torch.tensor([0.2]), 0.1, steps=60, paths=50, generator=rng, every=60)
        >>> bool((paths.final[0].abs() - 1).abs().mean() < 0.3)  # each is in one of two valleys
        True
    """

    def __init__(self, f: Callable[[Tensor], Tensor], noise: Noise) -> None:
        self.f, self.noise = f, noise
        self.n = self.width = noise.n

    @override
    def loss(self, X: Tensor) -> Tensor:
        return vmap(self.f)(X)

    @override
    def gradient(self, X: Tensor) -> Tensor:
        return vmap(grad(self.f))(X)

    def product(self, X: Tensor, V: Tensor) -> Tensor:
        """(hess f) V, path by path, `(paths, n)`."""
        return vmap(lambda x, v: jvp(grad(self.f), (x,), (v,))[1])(X, V)

    @override
    def law(self, X: Tensor) -> Law:
        return Law(self.gradient(X), lambda: self.noise.variance.expand_as(X), self.noise.root, self.noise.squares)

    @override
    def sample(self, paths: int, generator: torch.Generator) -> Tensor:
        return self.noise.sample(paths, generator)

    @override
    def balanced(self, count: int, generator: torch.Generator) -> Tensor:
        seed = torch.randint(1 << 31, (1,), generator=generator, device=generator.device)
        return self.noise.balanced(count, int(seed))

    @override
    def stochastic(self, X: Tensor, draws: Tensor) -> Tensor:
        return self.gradient(X) + draws

    @override
    def atoms(self, X: Tensor, draws: Tensor) -> Tensor:
        return self.gradient(X) + draws[:, None]

    @override
    def products(self, X: Tensor, draws: Tensor, V: Tensor) -> Tensor:
        return vmap(lambda v: self.product(X, v))(V)


class Quadratic(Function):
    """f(x) = x^T H x / 2 with noise added to its gradient; H symmetric `(n, n)`, or its diagonal `(n,)`.

    Raises:
        ValueError: H is not symmetric, or its size is not that of the noise.

    Example:
        >>> import torch
        >>> from solvers.diffusion import SGD, Quadratic, integrate
        >>> problem = Quadratic(torch.tensor([1.0, 4.0]), torch.tensor([0.1, 0.1]))  # H and Cov(g), by their diagonals
        >>> paths = integrate(SGD(problem, eta=0.1), torch.ones(2), dt=0.05, steps=40, paths=100, every=40)
        >>> loss = paths.statistics["loss"].mean
        >>> float(loss[0]), bool(loss[-1] < 0.2)
        (2.5, True)
    """

    def __init__(self, H: Tensor, noise: Noise | Tensor) -> None:
        H = torch.as_tensor(H, dtype=torch.float64)
        noise = noise if isinstance(noise, Noise) else GaussianNoise(noise)
        self.H = torch.diag(H) if H.ndim == 1 else H
        if self.H.shape != (noise.n, noise.n):
            raise ValueError(f"H has shape {tuple(H.shape)}, the noise dimension {noise.n}")
        check_symmetric("H", self.H)
        super().__init__(lambda x: 0.5 * x @ self.H @ x, noise)

    @override
    def loss(self, X: Tensor) -> Tensor:
        return 0.5 * (X * self.gradient(X)).sum(-1)

    @override
    def gradient(self, X: Tensor) -> Tensor:
        return X @ self.H

    @override
    def product(self, X: Tensor, V: Tensor) -> Tensor:
        return V @ self.H
