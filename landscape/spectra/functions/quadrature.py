"""Integrals of f by the Gauss quadrature of a Lanczos process, and what is known of their errors.

With T of m steps from a unit vector v, v^T f(A) v is near e_1^T f(T) e_1 (Golub and Welsch 1969), and for Q the first q
vectors of the process tr(Q^T f(A) Q) is near the sum of the first q diagonal entries of f(T) (Chen and Hallman, arXiv
2205.01736). Both are sums of f over the eigenvalues of T. The error is taken to be the difference from fewer steps: an
estimate, not a bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.spectra.functions.scalar import Scalar
from landscape.spectra.krylov import Krylov
from landscape.spectra.results import tridiagonal

# Where the difference from three quarters of the steps is this much smaller than that from half of them, convergence is
# geometric, and the former is an upper estimate already. Else the latter is: f^(1/2) at 0 converges like 1 / steps^2
# at the best, and then the former is too small by up to 3 (20 spectra and functions, 12 to 96 steps).
_FAST = 0.1

# Before a quadrature has as many steps, its agreement with fewer steps may be by chance.
LEAST_STEPS = 10


@dataclass(frozen=True)
class Decomposed:
    """T = U diag(nodes) U^T of the first steps of a chain."""

    nodes: Tensor
    vectors: Tensor

    @staticmethod
    def of(chain: Krylov, steps: int) -> Decomposed:
        """Of the first steps. A basis that has forgotten vectors has the tridiagonal part of H all the same."""
        alpha, beta = chain.H.diagonal()[:steps], chain.H.diagonal(-1)[: steps - 1]
        return Decomposed(*torch.linalg.eigh(tridiagonal(alpha, beta)))

    @staticmethod
    def radau(chain: Krylov, end: float) -> Decomposed | None:
        """Of all steps and a further one that makes `end`, left of the spectrum, a node (Golub 1973).

        None where a node lies beyond the end. Where all odd derivatives of f have one sign and all even ones the other,
        as those of logarithm, root and x / (x + d) have, the integral is between this quadrature and Gauss's.
        """
        m = chain.size
        alpha, beta = chain.H.diagonal(), chain.H.diagonal(-1)
        shifted = tridiagonal(alpha - end, beta)
        square = float(chain.gram.trace())
        factor, info = torch.linalg.cholesky_ex(shifted)
        if info:
            return None
        last = torch.zeros(m, 1, dtype=torch.float64)
        last[-1] = square
        corner = end + float(torch.cholesky_solve(last, factor)[-1])
        T = tridiagonal(
            torch.cat([alpha, alpha.new_tensor([corner])]), torch.cat([beta, beta.new_tensor([square**0.5])])
        )
        return Decomposed(*torch.linalg.eigh(T))


@dataclass(frozen=True)
class Integral:
    """A sum of f over nodes.

    Attributes:
        value: of all steps.
        difference: from fewer steps.
        rounding: what rounding and noise of the products may add.
        lowest, highest: nodes.
    """

    value: float
    difference: float
    rounding: float
    lowest: float
    highest: float


def step_counts(chain: Krylov, first: int = 1) -> list[int]:
    """All steps of the chain, and of those beyond `first` three quarters and half; all alone where it has ended."""
    if ended(chain):
        return [chain.size]
    beyond = chain.size - first
    return [first + int(beyond * share) for share in (1.0, 0.75, 0.5)]


def ended(chain: Krylov) -> bool:
    """The Krylov space is exhausted: the process knows all of f(A) there.

    One that has forgotten vectors may take n steps without.
    """
    return chain.pending.shape[-1] == 0 or (chain.exhausted and chain.size <= chain.capacity)


def smaller(differences: list[float]) -> float:
    """The error by the differences from three quarters and from half of the steps; 0 where there are none."""
    if not differences:
        return 0.0
    near, far = differences
    return near if near <= _FAST * far else max(near, far)


def left_end(chain: Krylov, f: Scalar, slack: float) -> Decomposed | None:
    """The quadrature with a node at the end of the spectrum that is known; None where there is none, or f ends there.

    The part of f that lies between the smallest node and that end is what fewer steps do not tell of either.
    """
    if ended(chain) or math.isinf(f.bound) or (f.open and f.least >= f.bound):
        return None
    found = Decomposed.radau(chain, f.bound - slack)
    return found if found is not None and f.finite(f.bound) else None


def integral(chain: Krylov, f: Scalar, floor: float, first: int = 1) -> Integral:
    """The sum of the first `first` diagonal entries of f(T); relative error of a product `floor`.

    Raises `ValueError` where f is not defined at a node.
    """
    slack = floor * chain.scale
    parts = [Decomposed.of(chain, steps) for steps in step_counts(chain, first)]
    weights = [(part.vectors[:first] ** 2).sum(dim=0) for part in parts]
    values = [w @ f.of(part.nodes, slack) for part, w in zip(parts, weights, strict=True)]
    size = weights[0] @ f.of(parts[0].nodes, slack).abs()
    rounding = floor * float(size) + times(weights[0], f.change(parts[0].nodes, slack))
    nodes = parts[0].nodes
    end = left_end(chain, f, slack)
    radau = (
        0.0 if end is None else abs(float((end.vectors[:first] ** 2).sum(dim=0) @ f.of(end.nodes, slack) - values[0]))
    )
    differences = [abs(float(values[0] - value)) for value in values[1:]]
    unknown = chain.size == first and not ended(chain)
    difference = math.inf if unknown else max(smaller(differences), radau)
    return Integral(float(values[0]), difference, rounding, float(nodes[0]), float(nodes[-1]))


def times(weights: Tensor, changes: Tensor) -> float:
    """The sum of weights * changes, where nothing times inf is nothing."""
    return float(torch.where(weights > torch.finfo(weights.dtype).eps ** 2, weights * changes, 0.0).sum())


def due(steps: int, last: int) -> bool:
    """Whether a process looks at its error after so many steps: the small eigenproblems cost steps^3."""
    return steps >= LEAST_STEPS and steps >= last + max(2, last // 6)
