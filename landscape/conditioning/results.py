"""What the closed forms return: the condition number of a Gauss-Newton matrix, its bounds, how much to trust it.

kappa is the largest eigenvalue over the smallest that counts as non-zero (arXiv 2411.02139, the pseudo condition
number). Which one that is, is a decision: the threshold, the rank that it gives and kappa at the ranks beside it
travel with the number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from landscape.conditioning.inputs import EPS, quotient
from landscape.spectra.condition import NEIGHBOURS

Threshold = float | Literal["paper"] | None


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
class Conditioning:
    """The condition number of a Gauss-Newton matrix with its bounds. All in float64 on the host.

    Attributes:
        kappa: largest / smallest; inf when no eigenvalue is above the threshold (the zero matrix). Its relative
            rounding error is of the order of kappa * 1e-16 * the number of eigenvalues. Where `bound` is finite all
            eigenvalues are positive: a rank below their number then says that the threshold has hidden some, and
            that kappa over all of them is at least largest / threshold.
        bound: an upper bound of kappa from singular values; inf states nothing.
        loose_bound: a cruder upper bound, never below `bound`; inf states nothing.
        product_bound: an upper bound from the layers one by one, never below `bound`; inf states nothing.
        kappa_data: condition number of the data, inf when a direction has no data.
        rank: eigenvalues above the threshold.
        threshold: absolute; eigenvalues of at most this size count as zero.
        smallest: the smallest eigenvalue above the threshold, 0.0 for rank 0.
        neighbours: kappa if the rank were 2 or 1 less or 1 more (keys -2, -1, 1): large steps say that kappa is a
            matter of the threshold. nan where no such rank exists, inf where the eigenvalue there is not positive.
        stable_rank: ||G||_F^2 / ||G||_2^2, between 1 and the rank; 0.0 for the zero matrix.
        robust: largest / median of the eigenvalues above the threshold; inf for rank 0.
        eigenvalues: `(size,)` float64 ascending: all of G's non-zero ones, and zeros (with rounding errors, also
            negative) where the matrix that was formed is singular.
        estimates: numbers that were published as bounds and are none, by name; they may lie below kappa.
        layers: singular values per layer, first layer first; empty where the closed form has none.
    """

    kappa: float
    bound: float
    loose_bound: float
    product_bound: float
    kappa_data: float
    rank: int
    threshold: float
    smallest: float
    neighbours: Mapping[int, float]
    stable_rank: float
    robust: float
    eigenvalues: Tensor = field(repr=False)
    estimates: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[LayerFactors, ...] = field(default=(), repr=False)

    @property
    def largest(self) -> float:
        """The largest eigenvalue, what kappa divides; 0.0 for the zero matrix."""
        return max(0.0, float(self.eigenvalues[-1]))

    def __str__(self) -> str:
        size = len(self.eigenvalues)
        head = (
            f"kappa {self.kappa:.3g} (rank {self.rank} of {size}, threshold {self.threshold:.2g}, "
            f"smallest {self.smallest:.3g})"
        )
        rows = [
            f"  at rank {self.rank + step}: kappa {kappa:.3g}"
            for step, kappa in self.neighbours.items()
            if not math.isnan(kappa)
        ]
        bounds = f"bound {self.bound:.3g}, loose {self.loose_bound:.3g}, per layer {self.product_bound:.3g}"
        rows.append(f"  {bounds}; kappa of the data {self.kappa_data:.3g}")
        if math.isfinite(self.bound) and self.rank < size:
            least = quotient(self.largest, self.threshold)
            rows.append(
                f"  positive but not above the threshold: {size - self.rank} of the eigenvalues; with them kappa is at "
                f"least {least:.3g}"
            )
        rows += [f"  estimate {name} (not a bound): {value:.3g}" for name, value in self.estimates.items()]
        return "\n".join([head, *rows])


def from_eigenvalues(
    eigenvalues: Tensor,
    threshold: Threshold = None,
    *,
    parameters: int | None = None,
    bound: float = math.inf,
    loose_bound: float = math.inf,
    product_bound: float = math.inf,
    kappa_data: float = math.nan,
    estimates: Mapping[str, float] | None = None,
    layers: tuple[LayerFactors, ...] = (),
) -> Conditioning:
    """`Conditioning` of a positive semi-definite matrix with these eigenvalues, `(size,)` in any order.

    Args:
        eigenvalues: real; negative ones are rounding errors and count as zero.
        threshold: absolute, >= 0; default size * eps(float64) * largest. "paper" is the authors' 1e-8 / parameters,
            absolute as well, so that it means something else on another scale of the loss.
        parameters: P, how many the network has; needed for "paper".
        bound, loose_bound, product_bound, kappa_data, estimates, layers: passed on.

    Raises:
        ValueError: no eigenvalues, or not finite ones; a threshold that is negative, not finite or another word;
            "paper" without the number of parameters.
    """
    values = eigenvalues.detach().cpu().double()
    if values.ndim != 1 or len(values) == 0 or not bool(torch.isfinite(values).all()):
        raise ValueError(f"eigenvalues must be a finite vector with entries, got the shape {tuple(values.shape)}")
    values = values.sort().values
    size, largest = len(values), max(0.0, float(values[-1]))
    cut = _cut(threshold, size, largest, parameters)
    kept = values[values > cut]
    rank = len(kept)

    def kappa_at(r: int) -> float:
        if not 1 <= r <= size:
            return math.nan
        value = float(values[size - r])
        return largest / value if value > 0 else math.inf

    return Conditioning(
        kappa=kappa_at(rank) if rank else math.inf,
        bound=bound,
        loose_bound=loose_bound,
        product_bound=product_bound,
        kappa_data=kappa_data,
        rank=rank,
        threshold=cut,
        smallest=float(kept[0]) if rank else 0.0,
        neighbours={step: kappa_at(rank + step) for step in NEIGHBOURS},
        stable_rank=float((values / largest).square().sum()) if largest > 0 else 0.0,
        robust=largest / float(0.5 * (kept[(rank - 1) // 2] + kept[rank // 2])) if rank else math.inf,
        eigenvalues=values,
        estimates=dict(estimates or {}),
        layers=layers,
    )


def check_threshold(threshold: Threshold) -> None:
    """Refuse what is no threshold, before anything is computed (`ValueError`)."""
    if threshold is None or threshold == "paper":
        return
    if isinstance(threshold, str) or not (threshold >= 0 and math.isfinite(threshold)):
        raise ValueError(f'the threshold must be finite and not negative, or "paper", not {threshold!r}')


def _cut(threshold: Threshold, size: int, largest: float, parameters: int | None) -> float:
    check_threshold(threshold)
    if threshold is None:
        return size * EPS * largest
    if isinstance(threshold, str):
        if parameters is None or parameters < 1:
            raise ValueError('the threshold "paper" is 1e-8 / parameters: say how many parameters the network has')
        return 1e-8 / parameters
    return float(threshold)
