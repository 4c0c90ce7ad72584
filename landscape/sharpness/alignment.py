"""Alignment of a vector with eigenvectors: how much of the gradient lies in the top of the spectrum.

cos_i^2 = <v_i, g>^2 / |g|^2 and their sum, the share of g in the span (Gur-Ari et al., arXiv 1812.04754).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.precision import accurate
from landscape.spectra.results import Eigenpairs


@dataclass(frozen=True)
class Alignment:
    """Squared cosines between a vector and eigenvectors.

    Attributes:
        cosines: `(k,)` float64 on the host, squared, in [0, 1]; nan for a zero vector.
        bounds: `(k,)` float64, each on the error of the squared cosine: residual / gap, the sine of the largest angle
            between a computed eigenvector and the true one (Davis and Kahan 1970), at most 1. The last pair's own gap
            is unknown, so its bound is 1; equal eigenvalues have no single eigenvectors, and 1 as well.
        total: their sum, the share of the vector's square in the span.
        total_bound: on the error of total, from the gap between the k-th eigenvalue and the next one, which must be
            among the pairs; else 1.
        norm: of the vector.
    """

    cosines: Tensor
    bounds: Tensor
    total: float
    total_bound: float
    norm: float


def alignment(vector: Tensor, pairs: Eigenpairs, k: int | None = None) -> Alignment:
    """How the vector `(n,)` is aligned with the first k eigenvectors of `pairs` (default: all of them).

    The bounds hold for pairs that come from one end of the spectrum ("LA" or "SA") with none missed. Pairs beyond k
    serve as the neighbours that the bounds need.

    Of a sharded model both are the rows of each rank, and all ranks call it.

    Raises `ValueError` for k outside 1..number of pairs, and a vector of another length.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.sharpness import alignment
        >>> from landscape.spectra import eigsh
        >>> pairs = eigsh(MatrixOperator(torch.diag(torch.tensor([3.0, 2.0, 1.0]))), k=2)
        >>> round(alignment(torch.tensor([3.0, 0.0, 4.0]), pairs, k=1).total, 4)
        0.36
    """
    found = len(pairs.values)
    k = found if k is None else k
    if not 1 <= k <= found:
        raise ValueError(f"k must be between 1 and the {found} pairs that there are, not {k}")
    vector = torch.as_tensor(vector).detach().to(pairs.vectors.device)
    if vector.shape != pairs.vectors.shape[:1]:
        raise ValueError(f"the vector must have shape ({pairs.vectors.shape[0]},), not {tuple(vector.shape)}")
    exact = accurate(vector)
    sums = [exact @ exact]
    for v in map(accurate, pairs.vectors[:, :k].T):
        sums += [v @ v, v @ exact]
    squares = pairs.holders.sum(torch.stack(sums)).cpu()
    norm, lengths, inner = math.sqrt(squares[0]), squares[1::2].sqrt(), squares[2::2]
    cosines = (inner / lengths / norm).square().clamp_max(1.0) if norm else torch.full((k,), math.nan).double()
    total = min(1.0, float(cosines.sum())) if norm else math.nan
    return Alignment(cosines, _bounds(pairs)[:k], total, _total_bound(pairs, k), norm)


def _bounds(pairs: Eigenpairs) -> Tensor:
    """residual / distance to the nearest other eigenvalue, for all pairs but the last, whose neighbour is unknown."""
    values, residuals = pairs.values.double(), pairs.residuals.double()
    distance = (values[:, None] - values[None, :]).abs() - residuals[None, :]
    distance.fill_diagonal_(math.inf)
    gaps = distance.min(dim=1).values
    gaps[-1] = 0.0
    return _sine(residuals, gaps)


def _total_bound(pairs: Eigenpairs, k: int) -> float:
    """sin of the largest angle between the computed and the true span of the first k."""
    if len(pairs.values) <= k:
        return 1.0
    gap = (pairs.values[k - 1] - pairs.values[k]).abs().double() - pairs.residuals[k].double()
    return float(_sine(pairs.residuals[:k].double().norm(), gap))


def _sine(residual: Tensor, gap: Tensor) -> Tensor:
    one = torch.ones_like(residual)
    return torch.where(gap > 0, (residual / gap.clamp_min(1e-300)).clamp_max(1.0), one)
