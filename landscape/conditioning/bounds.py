"""The algebra of the upper bounds: extreme singular values, and quotients that say nothing where they must not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.conditioning.inputs import EPS


def singular_range(M: Tensor, width: int | None = None) -> tuple[float, float]:
    """(sqrt(lambda_min(M M^T)), sqrt(lambda_max(M M^T))) of `(rows, columns)`.

    The smallest is 0.0 when there are more rows than columns (or than `width`, where M is a product through a
    layer as narrow as that), and when it is not above rounding.
    """
    rows, columns = M.shape
    sizes = torch.linalg.svdvals(M)
    largest, smallest = float(sizes[0]), float(sizes[-1])
    if rows > min(columns, columns if width is None else width) or smallest <= max(rows, columns) * EPS * largest:
        smallest = 0.0
    return smallest, largest


def quotient(numerator: float, denominator: float) -> float:
    """numerator / denominator of a bound; inf, which states nothing, for 0 below or a numerator that overflows."""
    return numerator / denominator if denominator > 0 and math.isfinite(numerator) else math.inf
