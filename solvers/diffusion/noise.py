"""Gradient noise that does not depend on the point: Gaussian with any covariance, Student's t entry by entry.

A stochastic gradient is g = grad f(x) + z. What an SDE needs of z: Sigma = Cov(z) and its root, the fluctuation of z^2
(second moments), and the law of sign(mean + z) (sign methods): E sign(g_i) = 1 - 2 P(g_i < 0).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy import special
from torch import Tensor
from typing_extensions import override

from solvers.base import check

_NODES = 16  # of the quadrature over a correlation: its error is below 1e-11 at 0.95, 1e-7 at 0.99


class Noise(ABC):
    """Noise z in R^n of mean zero, the same at every point.

    Attributes:
        n: its dimension.
        scale: `(n,)`, the unit of each entry: its standard deviation where the noise is Gaussian.
    """

    n: int
    scale: Tensor

    @property
    @abstractmethod
    def covariance(self) -> Tensor:
        """Sigma, `(n, n)`. Raises `ValueError` where it is infinite."""

    @property
    def variance(self) -> Tensor:
        """`(n,)`, the diagonal of Sigma."""
        return self.covariance.diagonal()

    @abstractmethod
    def root(self, xi: Tensor) -> Tensor:
        """Sigma^{1/2} xi for standard normals `(paths, n)`."""

    @abstractmethod
    def squares(self, xi: Tensor) -> Tensor:
        """A Gaussian with the covariance of z^2, entry by entry, from standard normals `(paths, n)`."""

    @abstractmethod
    def distribution(self, z: Tensor) -> Tensor:
        """2 P(z_i < z) - 1, `(..., n)`, in units of `scale`: E sign(mean + z_i) at z = mean / scale."""

    @property
    @abstractmethod
    def density(self) -> float:
        """2 p(0) of an entry, in units of `scale`: the slope of `distribution` at 0."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The noise `(count, n)` whose entries have these probabilities, in (0, 1)."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`(count, n)` independent draws."""
        u = torch.rand((count, self.n), generator=generator, dtype=torch.float64, device=generator.device)
        return self.quantile(u.clamp(1e-16, 1 - 2e-16).to(self.scale.device))  # neither end included

    def balanced(self, count: int, seed: int = 0) -> Tensor:
        """`(count, n)` draws that fill the distribution evenly: points of Sobol' and their mirror images.

        Their mean is 0. They stand for the noise inside an expectation; the count is rounded up to an even number.
        """
        half = self.quantile(sobol(count, self.n, seed).to(self.scale.device))
        return torch.cat([half, -half])

    def mean_sign(self, mean: Tensor) -> Tensor:
        """E sign(mean + z), `(paths, n)`; sign(mean) where there is no noise."""
        z = torch.where(self.scale > 0, mean / self.scale, torch.where(mean == 0, 0.0, mean * math.inf))
        return self.distribution(z)

    def sign_covariance(self, mean: Tensor) -> Tensor:
        """Cov(sign(mean + z)), `(paths, n, n)`: independent entries."""
        return torch.diag_embed(1 - self.mean_sign(mean).square())

    def sign_root(self, mean: Tensor, xi: Tensor) -> Tensor:
        """Cov(sign(mean + z))^{1/2} xi, `(paths, n)`: independent entries."""
        return (1 - self.mean_sign(mean).square()).clamp_min(0).sqrt() * xi


class GaussianNoise(Noise):
    """z ~ N(0, Sigma).

    Args:
        covariance: `(n, n)`, symmetric positive semi-definite, or its diagonal `(n,)`.

    Raises:
        ValueError: it is not symmetric, not positive semi-definite or not finite.

    Example:
        >>> import torch
        >>> from solvers.diffusion import GaussianNoise
        >>> noise = GaussianNoise(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        >>> z = noise.sample(10_000, torch.Generator().manual_seed(0))
        >>> bool((z.mT.cov() - noise.covariance).abs().max() < 0.05)
        True
        >>> round(float(noise.mean_sign(torch.tensor([[0.0, 1.0]]))[0, 1]), 3)  # E sign(1 + z)
        0.683
    """

    def __init__(self, covariance: Tensor) -> None:
        covariance = torch.as_tensor(covariance, dtype=torch.float64)
        if covariance.ndim == 1:
            if len(covariance) == 0 or not bool(torch.isfinite(covariance).all()) or float(covariance.min()) < 0:
                raise ValueError("variances must be finite numbers, none of them negative")
            self._variance = covariance
        else:
            check_symmetric("Sigma", covariance)
            lowest = float(torch.linalg.eigvalsh(covariance)[0])
            if lowest < -1e-10 * len(covariance) * float(covariance.abs().max()):
                raise ValueError(f"Sigma is not positive semi-definite: it has the eigenvalue {lowest:.3g}")
            self._variance = covariance.diagonal().clone()
        self.n, self.scale = len(self._variance), self._variance.sqrt()
        self.diagonal = covariance.ndim == 1 or not bool((covariance - torch.diag(self._variance)).any())
        if not self.diagonal:
            self._covariance = covariance
            self._root = root_of(covariance)
            self._square_root = math.sqrt(2) * root_of(covariance.square())

    @property
    @override
    def covariance(self) -> Tensor:
        return torch.diag(self._variance) if self.diagonal else self._covariance

    @property
    @override
    def variance(self) -> Tensor:
        return self._variance

    @override
    def root(self, xi: Tensor) -> Tensor:
        return xi * self.scale if self.diagonal else xi @ self._root

    def squares(self, xi: Tensor) -> Tensor:
        """As the base class: Cov(z_i^2, z_j^2) = 2 Sigma_ij^2."""
        return math.sqrt(2) * self._variance * xi if self.diagonal else xi @ self._square_root

    @override
    def distribution(self, z: Tensor) -> Tensor:
        return torch.erf(z / math.sqrt(2))

    @property
    @override
    def density(self) -> float:
        return math.sqrt(2 / math.pi)

    @override
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return self.root(normals((count, self.n), generator).to(self.scale.device))

    def balanced(self, count: int, seed: int = 0) -> Tensor:
        """As the base class; their covariance is Sigma exactly where there are 2n of them or more."""
        half = torch.special.ndtri(sobol(count, self.n, seed))
        if len(half) >= self.n:
            half = half @ torch.linalg.inv(root_of(half.mT @ half / len(half)))
        return self.root(torch.cat([half, -half]).to(self.scale.device))

    @override
    def quantile(self, u: Tensor) -> Tensor:
        return self.root(torch.special.ndtri(u))

    def sign_root(self, mean: Tensor, xi: Tensor) -> Tensor:
        """Cov(sign(mean + z))^{1/2} xi, `(paths, n)`, with the correlations of the signs."""
        if self.diagonal:
            return super().sign_root(mean, xi)
        return torch.einsum("pij,pj->pi", root_of(self.sign_covariance(mean)), xi)

    def sign_covariance(self, mean: Tensor) -> Tensor:
        """Cov(sign(mean + z)), `(paths, n, n)`; 2/pi arcsin(correlation) at mean 0.

        For two Gaussians of unit variance dP(both > 0)/d correlation is their density at 0 (Plackett 1954), so with
        s = mean / scale the covariance of two signs is 2/pi int_0^{arcsin r} exp(-(s_i^2 - 2 sin(a) s_i s_j + s_j^2)
        / (2 cos(a)^2)) da.
        """
        if not bool((self.scale > 0).all()):
            raise ValueError("the signs of correlated noise need a positive variance in every entry")
        s = mean / self.scale
        i, j = torch.triu_indices(self.n, self.n, offset=1)
        limit = torch.arcsin((self.covariance[i, j] / (self.scale[i] * self.scale[j])).clamp(-1, 1))
        product, squares = s[:, i] * s[:, j], s[:, i].square() + s[:, j].square()
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        pairs = torch.zeros_like(product)
        for node, weight in zip(nodes, weights, strict=True):
            angle = limit * (node + 1) / 2
            pairs += weight * torch.exp(-(squares - 2 * angle.sin() * product) / (2 * angle.cos().square()))
        found = torch.diag_embed(1 - self.distribution(s).square())
        found[:, i, j] = found[:, j, i] = pairs * limit / math.pi
        return found


class StudentNoise(Noise):
    """Independent entries scale_i t_i with t_i of Student's t: heavy tails; `dof` 1 is Cauchy's.

    Its variance scale^2 dof / (dof - 2) is infinite for dof <= 2 (only sign methods have an SDE then), that of z^2 for
    dof <= 4.

    Raises:
        ValueError: a scale is not positive, or dof is not.

    Example:
        >>> import torch
        >>> from solvers.diffusion import StudentNoise
        >>> cauchy = StudentNoise(torch.ones(2), dof=1.0)  # its variance is infinite
        >>> mean = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
        >>> [round(float(v), 3) for v in cauchy.mean_sign(mean)[0]]  # E sign(mean + z)
        [0.0, 0.5]
    """

    def __init__(self, scale: Tensor, dof: float) -> None:
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        if self.scale.ndim != 1 or not bool((self.scale > 0).all()):
            raise ValueError("the scale of Student noise must be a vector of positive numbers")
        check(dof=(dof, dof > 0))
        self.n, self.dof = len(self.scale), float(dof)

    @property
    @override
    def covariance(self) -> Tensor:
        if self.dof <= 2:
            raise ValueError(f"Student noise with dof={self.dof:g} has no variance: only sign methods have an SDE")
        return torch.diag(self.scale.square() * self.dof / (self.dof - 2))

    @override
    def root(self, xi: Tensor) -> Tensor:
        return xi * self.variance.sqrt()

    def squares(self, xi: Tensor) -> Tensor:
        """As the base class: Var(z^2) = Sigma_ii^2 (kurtosis - 1), kurtosis 3 (dof - 2) / (dof - 4)."""
        if self.dof <= 4:
            raise ValueError(f"with dof={self.dof:g} the noise of z^2 has no variance: use moment_noise=False")
        return xi * self.variance * math.sqrt(3 * (self.dof - 2) / (self.dof - 4) - 1)

    @override
    def distribution(self, z: Tensor) -> Tensor:
        return torch.from_numpy(2 * special.stdtr(self.dof, z.cpu().numpy()) - 1).to(z)

    @property
    @override
    def density(self) -> float:
        log = special.gammaln((self.dof + 1) / 2) - special.gammaln(self.dof / 2)
        return float(2 * math.exp(log) / math.sqrt(self.dof * math.pi))

    @override
    def quantile(self, u: Tensor) -> Tensor:
        return torch.from_numpy(special.stdtrit(self.dof, u.cpu().numpy())).to(u) * self.scale


def check_symmetric(name: str, matrix: Tensor) -> None:
    """Raises `ValueError` unless the matrix is square, finite and symmetric to rounding."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise ValueError(f"{name} must be a square matrix (or its diagonal), not of shape {tuple(matrix.shape)}")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"{name} has entries that are not finite")
    if float((matrix - matrix.T).abs().max()) > 1e-10 * float(matrix.abs().max()):
        raise ValueError(f"{name} is not symmetric")


def root_of(matrix: Tensor) -> Tensor:
    """The symmetric root of positive semi-definite matrices `(..., n, n)`."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT


def normals(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normals in float64 on the generator's device."""
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def sobol(count: int, n: int, seed: int) -> Tensor:
    """The first points of a scrambled Sobol' sequence, half as many as `count`, in (0, 1)."""
    engine = torch.quasirandom.SobolEngine(n, scramble=True, seed=seed)
    return engine.draw((count + 1) // 2, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
