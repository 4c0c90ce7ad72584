"""The diagonal of an operator: the mean of z * (A z) over Rademacher z (Bekas, Kokiopoulou, Saad 2007)."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, error_floor, require_finite
from landscape.spectra.callbacks import Callback, RunningEstimate, stops
from landscape.spectra.carried import carries_check
from landscape.spectra.results import Estimate
from landscape.statistics import mean_stderr, student

DEFAULT_MATVECS = 64


@carries_check
def diagonal(
    A: LinearOperator,
    *,
    matvecs: int = DEFAULT_MATVECS,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Estimate[Tensor]:
    """diag(A), `(n,)` in A's dtype on its device, with an elementwise standard error of the same shape.

    Exact from n unit vectors when `matvecs` >= n: the error is then rounding alone, and `A.noise` of the column's norm.
    Otherwise that of entry i is sqrt(sum_{j != i} A_ij^2 / m); it holds Student's factor and is inf for one product.
    The callback is called as (products made, products planned, trace so far); True stops, converged is
    then False.

    Raises `ValueError` for matvecs < 1, `FloatingPointError` when a product is not finite.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import diagonal
        >>> A = MatrixOperator(torch.tensor([[3.0, 1.0], [1.0, 2.0]]))
        >>> found = diagonal(A)
        >>> found.value.tolist(), found.matvecs
        ([3.0, 2.0], 2)
    """
    if matvecs < 1:
        raise ValueError(f"matvecs must be at least 1, not {matvecs}")
    rng, seed = A.space.generator(generator)
    n, space = A.shape[0], A.space
    try:
        exact = matvecs >= n
        planned, done = min(matvecs, n), 0
        mean = space.zeros(1)[..., 0].double()
        spread, size = torch.zeros_like(mean), torch.zeros_like(mean)
        sums, floor = torch.zeros(0, dtype=torch.float64), error_floor(A)
        while done < planned:
            b = min(planned - done, A.products_per_call(planned))
            Z = space.unit(range(done, done + b)) if exact else space.random(b, "rademacher", rng)
            W = A @ Z
            products = (Z * W).double()
            if exact and A.noise:  # noise is relative to the whole column
                size = size + space.combine(Z, space.inner(W, W).diagonal().sqrt().unsqueeze(-1))[..., 0]
            else:
                size = size + products.abs().sum(dim=-1)
            if exact:
                mean = mean + products.sum(dim=-1)
            else:  # Welford: no cancellation between large sums
                for i in range(b):
                    step = products[..., i] - mean
                    mean = mean + step / (done + i + 1)
                    spread = spread + step * (products[..., i] - mean)
            done += b
            sums = torch.cat([sums, space.inner(space.zeros(1) + 1.0, Z * W)[0]])  # z^T A z, over all ranks
            require_finite(A, sums)
            if stops(A, callback, done, planned, partial(_total, sums, n, exact, floor)):
                break
        error = floor * (size if exact else size / done)
        if not exact:
            # one sample: inf, whatever its spread of 0
            error = error + (spread.sqrt() / (done * (done - 1)) ** 0.5 * student(done) if done > 1 else float("inf"))
        elif done < planned:
            error = torch.full_like(mean, float("inf"))  # the entries that were not reached are unknown
        return Estimate(mean.to(A.dtype), error.to(A.dtype), done, done == planned, seed)
    finally:
        A.release()


def _total(sums: Tensor, n: int, exact: bool, floor: float) -> RunningEstimate:
    """The trace so far, from z^T A z of each product."""
    (value, stderr), size = mean_stderr(sums), floor * float(sums.abs().mean())
    if exact:  # of unit vectors, those that were not reached are unknown
        return RunningEstimate(n * float(value), n * size if len(sums) == n else math.inf, "trace")
    return RunningEstimate(float(value), float(stderr) + size, "trace")
