"""Hutch++ (Meyer, Musco, Musco, Woodruff 2021, Algorithm 1): the trace on a sketched subspace, Hutchinson beside it.

    tr(A) = tr(Q^T A Q) + E g^T (I - Q Q^T) A (I - Q Q^T) g,    Q an orthonormal basis of A S.

A third of the products each for A S, A Q and A G. The probes G and A G are kept: when the sketch grows they are
projected anew by inner products alone, so no product is wasted when more accuracy is asked for.
"""

from __future__ import annotations

import torch

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import Where
from landscape.spectra.sketch import Sketch
from landscape.statistics import mean_stderr


class HutchPlusPlus:
    """The sketch and the probes so far; grown by `extend`."""

    products_per_sample = 3

    def __init__(self, A: LinearOperator, generator: torch.Generator, where: Where = "device") -> None:
        self.A, self.generator = A, generator
        self.sketch = Sketch(A, where)
        self.G, self.AG = self.sketch.room(), self.sketch.room()
        self.W = self.T = torch.zeros(0, 0, dtype=torch.float64)  # Q^T G and Q^T A G
        self.whole = torch.zeros(0, dtype=torch.float64)

    def extend(self, k: int) -> int:
        """k more columns in the sketch and k more probes; the products made."""
        A = self.A
        V = self.sketch.extend(A @ A.space.random(k, "rademacher", self.generator))
        G = A.space.random(k, "rademacher", self.generator)
        AG = A @ G
        self.W = self.sketch.grown(self.W, V, self.G, G)
        self.T = self.sketch.grown(self.T, V, self.AG, AG)
        self.whole = torch.cat([self.whole, A.space.inner(G, AG).diagonal()])
        return k + V.shape[-1] + k

    def estimate(self) -> tuple[float, float, float]:
        """Value, standard error, and the size that rounding and noise are relative to."""
        W, T, H, whole = self.W, self.T, self.sketch.H, self.whole
        samples = whole - 2.0 * (W * T).sum(dim=0) + (W * (H @ W)).sum(dim=0)
        mean, stderr = mean_stderr(samples)
        return float(H.trace() + mean), float(stderr), self.sketch.magnitude + float(whole.abs().mean())
