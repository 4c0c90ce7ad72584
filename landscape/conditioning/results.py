"""What the closed forms return: the condition number of a Gauss-Newton matrix, its bounds, how much to trust it.

kappa is the largest eigenvalue over the smallest that counts as non-zero (arXiv 2411.02139, the pseudo condition
number). Which one that is, is a decision: the threshold, the rank that it gives and kappa at the ranks beside it
travel with the number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from landscape.conditioning.bounds import quotient
from landscape.conditioning.inputs import EPS, Threshold, absolute_threshold
from landscape.spectra.condition import of_eigenvalues
from landscape.spectra.results import ConditionNumber


@dataclass(frozen=True)
class LayerFactors:
    """Singular values of what stands before and behind one layer in the network's derivative by it.

    Attributes:
        left_smallest, left_largest: of A = W_L ... W_{l+1}, the square roots of the extreme eigenvalues of
            A A^T `(k, k)`; the smallest is 0.0 when a width between is below k.
        right_smallest, right_largest: of B = W_{l-1} ... W_1, the square roots of the extreme eigenvalues of
            B^T B `(d, d)`; the smallest is 0.0 when a width between is below d.
    """

    left_smallest: float
    left_largest: float
    right_smallest: float
    right_largest: float


@dataclass(frozen=True)
class Conditioning(ConditionNumber):
    """The condition number of a Gauss-Newton matrix with its bounds. All in float64 on the host.

    `eigenvalues`, `(size,)`, are all of G's non-zero ones, and zeros (with rounding errors, also negative) where the
    matrix that was formed is singular. The relative rounding error of kappa is of the order of kappa * 1e-16 * size.
    Where `bound` is finite all eigenvalues are positive: a rank below their number then says that the threshold has
    cut some off, and that kappa over all of them is at least largest / threshold.

    Attributes:
        bound: an upper bound of kappa from singular values; inf states nothing.
        loose_bound: a cruder upper bound, never below `bound`; inf states nothing.
        product_bound: an upper bound from the layers one by one, never below `bound`; inf states nothing.
        kappa_data: condition number of the data, inf when a direction has no data.
        estimates: numbers that were published as bounds and are none, by name; they may lie below kappa.
        layers: singular values per layer, first layer first; empty where the closed form has none.
    """

    eigenvalues: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), repr=False)
    bound: float = math.inf
    loose_bound: float = math.inf
    product_bound: float = math.inf
    kappa_data: float = math.nan
    estimates: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[LayerFactors, ...] = field(default=(), repr=False)

    @property
    def stable_rank(self) -> float:
        """||G||_F^2 / ||G||_2^2, between 1 and the rank; 0.0 for the zero matrix."""
        return float((self.eigenvalues / self.largest).square().sum()) if self.largest > 0 else 0.0

    @property
    def robust(self) -> float:
        """Largest / median of the eigenvalues above the threshold; inf for rank 0."""
        kept = self.eigenvalues[self.eigenvalues > self.threshold]
        if len(kept) == 0:
            return math.inf
        return self.largest / float(0.5 * (kept[(len(kept) - 1) // 2] + kept[len(kept) // 2]))

    def __str__(self) -> str:
        bounds = f"bound {self.bound:.3g}, loose {self.loose_bound:.3g}, per layer {self.product_bound:.3g}"
        rows = [*self._rows(), f"  {bounds}; kappa of the data {self.kappa_data:.3g}"]
        below = len(self.eigenvalues) - self.rank
        if math.isfinite(self.bound) and below:
            least = quotient(self.largest, self.threshold)
            rows.append(
                f"  positive but not above the threshold: {below} of the eigenvalues; with them kappa is at least "
                f"{least:.3g}"
            )
        rows += [f"  estimate {name} (not a bound): {value:.3g}" for name, value in self.estimates.items()]
        return "\n".join(rows)


def from_eigenvalues(
    eigenvalues: Tensor, threshold: Threshold = None, *, parameters: int | None = None, **bounds: Any
) -> Conditioning:
    """`Conditioning` of a positive semi-definite matrix with these eigenvalues, `(size,)` in any order.

    Args:
        eigenvalues: real; negative ones are rounding errors and count as zero.
        threshold: absolute, >= 0; default size * eps(float64) * largest. "paper" is the authors' 1e-8 / parameters,
            absolute as well, so that it means something else on another scale of the loss.
        parameters: P, how many the network has; needed for "paper".
        bounds: bound, loose_bound, product_bound, kappa_data, estimates and layers, as in `Conditioning`.

    Raises:
        ValueError: no eigenvalues, or not finite ones; a threshold that is negative, not finite or another word;
            "paper" without the number of parameters.

    Example:
        >>> import torch
        >>> from landscape.conditioning import from_eigenvalues
        >>> found = from_eigenvalues(torch.tensor([8.0, 2.0, 1.0, 0.0]))
        >>> found.kappa, found.rank, found.robust
        (8.0, 3, 4.0)
    """
    values = eigenvalues.detach().cpu().double()
    if values.ndim != 1 or len(values) == 0 or not bool(torch.isfinite(values).all()):
        raise ValueError(f"eigenvalues must be a finite vector with entries, got the shape {tuple(values.shape)}")
    cut = absolute_threshold(threshold, parameters)
    return Conditioning(**vars(of_eigenvalues(values, cut, EPS, semidefinite=True)) | bounds)
