"""Designed spectra and test operators for `landscape.spectra`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.linear import LinearOperator
from landscape.operators.matrix import MatrixOperator
from landscape.operators.vectors import Kind, VectorSpace


def seeded_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectra(n: int) -> dict[str, np.ndarray]:
    """Eigenvalues, by the name of what is hard about them."""
    bulk = 0.02 * np.abs(np.random.default_rng(0).standard_normal(n))
    outliers, triple, indefinite, deficient, clustered = (bulk.copy() for _ in range(5))
    outliers[:10] = np.linspace(1.0, 0.3, 10)
    triple[:3], triple[3:6], triple[6:9] = 1.0, 0.6, 0.5
    indefinite[:10], indefinite[10:15] = np.linspace(1.0, 0.3, 10), -np.linspace(0.9, 0.4, 5)
    deficient[:] = 0.0
    deficient[:7] = [3.0, 2.0, 2.0, 1.0, -1.0, -2.5, 0.5]
    clustered[:6] = 1.0 - 1e-4 * np.arange(6)
    clustered[6:12] = 0.5 + 1e-5 * np.arange(6)
    return {
        "outliers": outliers,
        "triple": triple,
        "indefinite": indefinite,
        "deficient": deficient,
        "clustered": clustered,
        "decaying": 1.0 / np.arange(1, n + 1) ** 1.5,
        "range": np.logspace(0, -6, n),
        "exponential": np.exp(-np.arange(n) / 5.0),
    }


def matrix(values: np.ndarray, seed: int = 0) -> Tensor:
    """A float64 symmetric matrix with these eigenvalues and random eigenvectors."""
    n = len(values)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=seeded_generator(seed))).Q
    A = (Q * torch.from_numpy(values)) @ Q.T
    return 0.5 * (A + A.T)


def best(values: np.ndarray, which: str, k: int) -> np.ndarray:
    """The wanted eigenvalues, best first."""
    key = {"LA": values, "SA": -values, "LM": np.abs(values)}[which]
    return values[np.argsort(-key, kind="stable")][:k]


class DiagonalOperator(LinearOperator):
    """diag(d): a spectrum of any length for the price of its vectors."""

    def __init__(self, d: np.ndarray, dtype: torch.dtype = torch.float64, memory: int = 1 << 30) -> None:
        super().__init__(len(d), dtype, torch.device("cpu"), memory=memory)
        self.d = torch.as_tensor(d, dtype=dtype)[:, None]

    def _matmat(self, V: Tensor) -> Tensor:
        return self.d * V


class ShardedSpace(VectorSpace):
    """Vectors live as (ranks, n / ranks): what sharding looks like to an algorithm.

    Whatever touches vectors past the space (n from v.shape[0], X.T @ Y, norms) fails on it.
    """

    def __init__(self, whole: VectorSpace, ranks: int = 4) -> None:
        super().__init__(whole.size, whole.dtype, whole.device, shape=(ranks, whole.size // ranks))
        self.whole = whole
        self.reductions = 0

    def shard(self, X: Tensor) -> Tensor:
        return X.reshape(*self.shape, *X.shape[1:])

    @override
    def full(self, V: Tensor) -> Tensor:
        return V.reshape(self.size, *V.shape[2:])

    @override
    def gram(self, X: Tensor, Y: Tensor, *, exact: bool = True) -> Tensor:
        """The ranks' parts, one behind the other: useless without `reduce`. One rank has all of it, so that the sum
        has the rounding of the whole.
        """
        assert X.ndim == Y.ndim == 3
        G = self.whole.gram(self.full(X), self.full(Y), exact=exact)
        return torch.stack([G, *[torch.zeros_like(G)] * (self.shape[0] - 1)], dim=-1)

    @override
    def reduce(self, G: Tensor) -> Tensor:
        self.reductions += 1
        return G.sum(dim=-1).cpu()

    @override
    def combine(self, X: Tensor, C: Tensor) -> Tensor:
        assert X.ndim == 3
        return self.shard(self.whole.combine(self.full(X), C))

    @override
    def random(self, k: int, kind: Kind = "rademacher", generator: torch.Generator | None = None) -> Tensor:
        return self.shard(self.whole.random(k, kind, generator))

    @override
    def unit(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.shard(self.whole.unit(indices))


class ShardedOperator(LinearOperator):
    """A matrix on a sharded space: nothing else is overridden."""

    space: ShardedSpace

    def __init__(self, A: Tensor, ranks: int = 4) -> None:
        self.whole = MatrixOperator(A, memory=1 << 30)
        super().__init__(A.shape[0], self.whole.dtype, self.whole.device, memory=1 << 30)
        self.space = ShardedSpace(self.whole.space, ranks)

    @override
    def _matmat(self, V: Tensor) -> Tensor:
        return self.space.shard(self.whole @ self.space.full(V))


class NoisyOperator(MatrixOperator):
    """Every product carries a fresh relative error."""

    def __init__(self, A: Tensor, noise: float) -> None:
        super().__init__(A)
        self.noise = noise
        self._generator = seeded_generator(99)

    def _matmat(self, V: Tensor) -> Tensor:
        W = super()._matmat(V)
        E = torch.randn(W.shape, dtype=W.dtype, generator=self._generator)
        return W + self.noise * W.norm(dim=0) * E / E.norm(dim=0)


class BrokenOperator(MatrixOperator):
    """Its products hold NaN."""

    def _matmat(self, V: Tensor) -> Tensor:
        return super()._matmat(V) * float("nan")
