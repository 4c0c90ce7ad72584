"""XTrace (Epperly, Tropp, Webber 2024): every test vector serves for the sketch and, left out of it, as a probe.

With Y = A Omega = Q R and Q_i the basis of the range of Y without column i, the estimate is the mean over i of

    tr(Q_i^T A Q_i) + (n - rank Q_i) u_i^T A u_i / ||u_i||^2,    u_i = (I - Q_i Q_i^T) omega_i,

the variant normalised to the sphere (their section 2.3). Two products per test vector; Omega and Q are kept, and
all leave-one-out algebra is done on small float64 matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import Where
from landscape.spectra.sketch import Sketch
from landscape.statistics import mean_stderr

# The samples share their sketch, so their scatter understates the error of their mean: by 1.04 to 1.48 over six
# spectra (decaying, outliers, indefinite, flat, range 1e6, 1/i; n = 150) and 6 to 48 test vectors, 300 runs each.
_SHARED = 1.5


class XTrace:
    """The test vectors and the sketch so far; grown by `extend`."""

    products_per_sample = 2

    def __init__(self, A: LinearOperator, generator: torch.Generator, where: Where = "device") -> None:
        self.A, self.generator = A, generator
        self.sketch = Sketch(A, where)
        self.Omega = self.sketch.room()
        self.R = self.W = torch.zeros(0, 0, dtype=torch.float64)  # Q^T A Omega and Q^T Omega
        self.squares = torch.zeros(0, dtype=torch.float64)

    def extend(self, k: int) -> int:
        """k more test vectors; the products made."""
        Omega = self.A.space.random(k, "normal", self.generator)
        Y = self.A @ Omega
        V = self.sketch.extend(Y)
        new = self.sketch.Q.inner(Y)
        self.R = torch.cat([pad(self.R, (0, 0, 0, len(new) - len(self.R))), new], dim=1)
        self.W = self.sketch.grown(self.W, V, self.Omega, Omega)
        self.squares = torch.cat([self.squares, self.A.space.inner(Omega, Omega).diagonal()])
        return k + V.shape[-1]

    def estimate(self) -> tuple[float, float, float]:
        """Value, standard error, and the size that rounding and noise are relative to."""
        samples = leave_one_out(self.sketch.H, self.R, self.W, self.squares, self.A.space.size)
        mean, stderr = mean_stderr(samples)
        return float(mean), _SHARED * float(stderr), self.sketch.magnitude


def leave_one_out(H: Tensor, R: Tensor, W: Tensor, squares: Tensor, n: int) -> Tensor:
    """The samples, (k,), from H = Q^T A Q, R = Q^T A Omega, W = Q^T Omega and the squared norms of Omega.

    S holds the unit vectors s_i in range(R) orthogonal to all columns of R but the i-th. When R has fewer rows
    than columns the sketch spans the range of A, leaving one out changes nothing and s_i = 0.
    """
    rank, k = R.shape
    S = torch.zeros_like(R)
    if rank == k and k > 0:
        # columns of wildly different lengths do not matter to the directions, so they are scaled first
        S = torch.linalg.solve(R.T / R.norm(dim=0)[:, None], torch.eye(k, dtype=R.dtype))
        S = S / S.norm(dim=0)
    X = W - S * (S * W).sum(dim=0)
    inside = H.trace() - (S * (H @ S)).sum(dim=0)
    left = (W * R).sum(dim=0) - 2.0 * (X * R).sum(dim=0) + (X * (H @ X)).sum(dim=0)
    length = (squares - (X * X).sum(dim=0)).clamp(min=0.0)
    dimension = n - rank + (1 if rank == k else 0)
    scale = torch.where(length > 1e-12 * squares, dimension / length.clamp(min=1e-300), torch.zeros_like(length))
    return inside + scale * left
