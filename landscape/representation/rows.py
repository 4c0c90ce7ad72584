"""The matrix of a layer's activations, a row for each sample or position, of which no more is kept than a square.

While there are fewer rows than columns they are held, else only the Gram matrices A^T A of the activations and of
their normalised rows, summed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.precision import accurate
from landscape.ranks import Ranks
from landscape.representation.spectrum import MatrixRanks, of_gram, ranks_of

_NO_RANKS = (float("nan"),) * 6


@dataclass(frozen=True)
class ActivationRanks:
    """What a layer's activations span, A `(rows, units)` over all of the data.

    Attributes:
        ranks: of A; nan where it has too many units for its Gram matrix.
        nuclear_ratio: ||A||_* / sqrt(min(B, C) B) of the B rows that are not 0, each divided by its norm, with C units:
            1 where they are spread evenly over all directions, 1 / sqrt(min(B, C)) where all are one direction.
        scores: `(units,)` float64 on the host, mean |activation| of each unit / the mean of these over the layer.
    """

    ranks: MatrixRanks
    nuclear_ratio: float
    scores: Tensor = field(repr=False)

    def dormant(self, tau: float = 0.0) -> float:
        """The share of units with a score of at most tau (Sokar et al. 2023, eq. 1); all of a layer of zeros."""
        return float((self.scores <= tau).double().mean())


class Rows:
    """Activations of one layer, batch by batch."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # of units whose Gram matrix is made
        self.count, self.width, self.directed = 0, 0, 0  # rows, columns, rows that are not zero
        self._held: list[Tensor] = []
        self._grams: Tensor | None = None  # (2, C, C)
        self._sums: Tensor | None = None  # (C,)

    def add(self, X: Tensor) -> None:
        """Rows `(b, C)`, of any floating dtype. Raises `ValueError` for another width than before."""
        if not len(X):
            return
        if self.count and X.shape[1] != self.width:
            raise ValueError(f"it has {X.shape[1]} units in one call and {self.width} in another: leave it out")
        X = accurate(X.detach())
        sums = X.abs().sum(0)
        self._sums = sums if self._sums is None else self._sums + sums
        self.count, self.width = self.count + len(X), X.shape[1]
        self.directed += int((torch.linalg.vector_norm(X, dim=1) > 0).sum())
        if self.width <= self._limit:
            self._held.append(X.clone())
            if self._grams is not None or self.count > self.width:
                self._fold()

    def _fold(self) -> None:
        """Rows that are held go into the Gram matrices."""
        for X in self._held:
            both = torch.stack([X, _directions(X)])
            grams = both.mT @ both
            self._grams = grams if self._grams is None else self._grams.add_(grams)
        self._held = []

    def merged(self, ranks: Ranks) -> Rows:
        """The rows of all processes, on each of them; collective."""
        if not ranks.several:
            return self
        counts = ranks.gathered((self.count, self.width, self.directed))
        made = Rows(self._limit)
        made.count, made.width, made.directed = sum(c[0] for c in counts), max(c[1] for c in counts), 0
        made.directed = sum(c[2] for c in counts)
        made._sums = ranks.sum(_or_zeros(self._sums, made.width))
        if made.width > self._limit:
            return made
        if made.count > made.width:
            self._fold()
            made._grams = ranks.sum(_or_zeros(self._grams, 2, made.width, made.width))
        else:
            made._held = [X for held in ranks.gathered([X.cpu() for X in self._held]) for X in held]
        return made

    def found(self) -> ActivationRanks:
        """What they span. Raises `ValueError` for entries that are not finite."""
        assert self._sums is not None
        if not bool(torch.isfinite(self._sums).all()):
            raise ValueError("there are entries that are not finite: the network has diverged")
        scores = self._sums / self.count
        mean = scores.mean()
        scores = (scores / mean if bool(mean > 0) else scores).cpu()
        if self.width > self._limit:
            return ActivationRanks(MatrixRanks(self.count, self.width, *_NO_RANKS), float("nan"), scores)
        if self._grams is None:
            A = torch.cat(self._held)
            B = _directions(A)
            grams = torch.stack([A @ A.mT, B @ B.mT])
        else:
            grams = self._grams
        ranks = ranks_of(*of_gram(grams[0]), self.count, self.width)
        most = (min(self.directed, self.width) * self.directed) ** 0.5
        ratio = float(of_gram(grams[1])[0].sum()) / most if most else 0.0
        return ActivationRanks(ranks, ratio, scores)


def _directions(X: Tensor) -> Tensor:
    """Rows divided by their norms; 0 stays 0."""
    norms = torch.linalg.vector_norm(X, dim=1, keepdim=True)
    return torch.where(norms > 0, X / norms.clamp_min(torch.finfo(X.dtype).tiny), 0.0)


def _or_zeros(t: Tensor | None, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64) if t is None else t.clone()
