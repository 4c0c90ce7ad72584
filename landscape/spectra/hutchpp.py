"""Hutch++ (Meyer, Musco, Musco, Woodruff 2021, Algorithm 1): the trace on a sketched subspace, Hutchinson beside it.

    tr(A) = tr(Q^T A Q) + E g^T (I - Q Q^T) A (I - Q Q^T) g,    Q an orthonormal basis of A S.

A third of the products each for A S, A Q and A G. The probes G and A G are kept: when the sketch grows they are
projected anew by inner products alone, so no product is wasted when more accuracy is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator
from landscape.operators.vectors import orthonormal
from landscape.statistics import mean_stderr


class HutchPlusPlus:
    """The sketch and the probes so far; grown by `extend`."""

    products_per_sample = 3

    def __init__(self, A: LinearOperator, generator: torch.Generator) -> None:
        self.A, self.generator = A, generator
        empty = A.unit([0])[..., :0]
        self.Q, self.G, self.AG = empty, empty, empty
        self.H = torch.zeros(0, 0, dtype=torch.float64)
        self.scale = 0.0

    def extend(self, k: int) -> int:
        """k more columns in the sketch and k more probes; the products made."""
        A = self.A
        Y = A @ A.random(k, "rademacher", self.generator)
        self.scale = max(self.scale, float(A.inner(Y, Y).diagonal().max().sqrt()))
        floor = 10.0 * torch.finfo(A.dtype).eps * self.scale
        V = orthonormal(A, Y, self.Q, floor)[..., : A.shape[0] - self.Q.shape[-1]]
        G = A.random(k, "rademacher", self.generator)
        made = k + V.shape[-1] + k
        self.AG = torch.cat([self.AG, A @ G], dim=-1)
        self.G = torch.cat([self.G, G], dim=-1)
        self.H, self.Q = extend_projection(A, self.H, self.Q, V)
        return made

    def estimate(self) -> tuple[float, float, float]:
        """Value, standard error, and the size that rounding and noise are relative to."""
        A = self.A
        W, T = A.inner(self.Q, self.G), A.inner(self.Q, self.AG)
        whole = A.inner(self.G, self.AG).diagonal()
        samples = whole - 2.0 * (W * T).sum(dim=0) + (W * (self.H @ W)).sum(dim=0)
        mean, stderr = mean_stderr(samples)
        size = float(torch.linalg.eigvalsh(self.H).abs().sum()) + float(whole.abs().mean())
        return float(self.H.trace() + mean), float(stderr), size


def extend_projection(A: LinearOperator, H: Tensor, Q: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """H = Q^T A Q and Q for the basis [Q, V], with products for V only."""
    if V.shape[-1] == 0:
        return H, Q
    m, Q = Q.shape[-1], torch.cat([Q, V], dim=-1)
    step = A.products_per_call(V.shape[-1])
    columns = torch.cat([A.inner(Q, A @ V[..., i : i + step]) for i in range(0, V.shape[-1], step)], dim=1)
    corner = 0.5 * (columns[m:] + columns[m:].T)
    top = torch.cat([H, columns[:m]], dim=1)
    return torch.cat([top, torch.cat([columns[:m].T, corner], dim=1)]), Q
