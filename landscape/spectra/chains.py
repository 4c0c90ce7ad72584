"""Several Lanczos processes, one from each of some vectors, whose products go to the operator together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator, products
from landscape.spectra.basis.place import Footprint, Place, Where, choose_place, together
from landscape.spectra.krylov import BESIDE, Krylov


class Chains:
    """Lanczos from each column of V.

    Attributes:
        each: the processes, in the order of the columns; a column of zeros has one that stays empty.
        steps: products that the longest of them has taken.
    """

    def __init__(self, A: LinearOperator, V: Tensor, capacity: int, where: Where = "device") -> None:
        self.A = A
        self.each = [Krylov(A, capacity, where) for _ in range(V.shape[-1])]
        self._starts: Tensor | None = V
        self.steps = 0

    def step(self, wanted: Callable[[Krylov], bool] = lambda chain: True) -> list[tuple[Krylov, Tensor]]:
        """One product for each wanted chain that has not ended, with the vector `(n, 1)` that it took: () if none."""
        if self._starts is not None:
            fronts = [(chain, chain.inject(self._starts[..., i : i + 1])) for i, chain in enumerate(self.each)]
            self._starts = None
        else:
            fronts = [(chain, chain.propose()) for chain in self.each if chain.size and wanted(chain)]
        fronts = [(chain, X) for chain, X in fronts if X.shape[-1]]
        if not fronts:
            return []
        W = products(self.A, torch.cat([X for _, X in fronts], dim=-1))
        for i, (chain, _) in enumerate(fronts):
            chain.absorb(W[..., i : i + 1])
        self.steps += 1
        return fronts

    @property
    def footprint(self) -> Footprint:
        """What their bases took."""
        return together(chain.basis.footprint for chain in self.each)

    def close(self) -> None:
        """Forget the bases; what is known of the matrix stays."""
        for chain in self.each:
            chain.basis.close()


def chains_place(A: LinearOperator, count: int, depth: int, basis: str, who: str) -> tuple[Place, int]:
    """Where the bases of `count` chains of `depth` steps lie, and how many run at once: 0 where not one basis fits.

    Raises `MemoryError`, in the name of `who`, where not even a vector has room beside what is worked on.
    """
    place = choose_place(A, basis, enough=depth, beside=BESIDE)
    if place.columns < 1:
        memory, column = A.memory, A.space.column_bytes
        raise MemoryError(
            f"{who} needs at least {BESIDE + 1} vectors, the budget of {memory:,} bytes holds {memory // column}"
        )
    if place.aside:  # each chain has vectors beside its basis, and those of a product
        return place, min(count, place.columns // depth, 1 + place.aside // (2 * BESIDE))
    return place, min(count, (place.columns + BESIDE) // (depth + BESIDE))
