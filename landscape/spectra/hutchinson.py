"""Hutchinson's trace estimator: the mean of z^T A z over Rademacher z (Hutchinson 1990).

Needs no memory beyond one block; its standard deviation is ||A||_F sqrt(2 / m) at most, so it is the method for
operators whose spectrum is flat or whose vectors do not fit more than a few times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import Where
from landscape.statistics import mean_stderr


class Hutchinson:
    """The samples so far; grown by `extend`. No vector is kept, anywhere."""

    products_per_sample = 1

    sketch = None

    def __init__(self, A: LinearOperator, generator: torch.Generator, where: Where = "device") -> None:
        self.A, self.generator = A, generator
        self.samples: list[Tensor] = []

    def extend(self, k: int) -> int:
        """k more samples; the products made."""
        Z = self.A.space.random(k, "rademacher", self.generator)
        self.samples.append(self.A.space.inner(Z, self.A @ Z).diagonal())
        return k

    def estimate(self) -> tuple[float, float, float]:
        """Value, standard error, and the size that rounding and noise are relative to."""
        samples = torch.cat(self.samples)
        mean, stderr = mean_stderr(samples)
        return float(mean), float(stderr), float(samples.abs().mean())
