"""A matrix of Kronecker products at one moment: blocks in a flat vector, their spectra, functions of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from landscape.operators.kronecker.blocks import Block, Spectrum
from landscape.operators.kronecker.layers.layer import Stacked
from landscape.operators.kronecker.sides import Basis, Side


@dataclass(frozen=True)
class Factored:
    """The sum of the blocks, each on the parameters of its layer; zero on all others.

    Attributes:
        slices: where parameters lie in the vector of `size` entries.
        limit: how large a matrix of several blocks on the same parameters may be.
        notes: what is to be said of it.
        dtype, device: of vectors.
    """

    blocks: Sequence[Block] = field(repr=False)
    slices: Mapping[str, slice] = field(repr=False)
    size: int
    limit: int
    notes: tuple[str, ...]
    dtype: torch.dtype
    device: torch.device

    def product(self, rows: Tensor) -> Tensor:
        """With vectors `(k, n)`."""
        total = torch.zeros_like(rows)
        for block in self.blocks:
            block.layer.add(block.product(block.layer.gather(rows, self.slices)), total, self.slices)
        return total

    def apply(self, function: Callable[[Spectrum], Tensor], at_zero: float, rows: Tensor) -> Tensor:
        """A function of the matrix times `(k, n)`: its values for the eigenvalues of each part, and that for 0."""
        total = at_zero * rows
        for part in self.spectra:
            for name in part.layer.names:
                total[:, self.slices[name]] = 0.0
            layer = part.layer
            layer.add(part.apply(function(part), layer.gather(rows, self.slices)), total, self.slices)
        return total

    @property
    def trace(self) -> float:
        """By those of the blocks."""
        return sum(block.trace for block in self.blocks)

    @property
    def uncovered(self) -> int:
        """How many entries no block is on."""
        names = {name for block in self.blocks for name in block.layer.names}
        return self.size - sum(self.slices[name].stop - self.slices[name].start for name in names)

    @cached_property
    def spectra(self) -> list[Spectrum]:
        """Of parts without a common parameter. Raises `TypeError` where blocks overlap and are too large together."""
        return [blocks[0].spectrum if len(blocks) == 1 else self._together(blocks) for blocks in self._parts()]

    def _parts(self) -> list[list[Block]]:
        parts: list[tuple[set[str], list[Block]]] = []
        for block in self.blocks:
            names, blocks = {*block.layer.names}, [block]
            apart = []
            for part in parts:
                if part[0] & names:
                    names, blocks = names | part[0], [*part[1], *blocks]
                else:
                    apart.append(part)
            parts = [*apart, (names, blocks)]
        return [blocks for _, blocks in parts]

    def _together(self, blocks: list[Block]) -> Spectrum:
        """The eigenvectors of a sum of blocks are none of theirs."""
        names = list(dict.fromkeys(name for block in blocks for name in block.layer.names))
        layer = Stacked.of(tuple((name, self.slices[name].stop - self.slices[name].start) for name in names))
        if layer.out > self.limit:
            raise TypeError(
                f"{', '.join(names)} are in several layers, and a sum of Kronecker products of {layer.out} rows has no "
                f"spectrum that is cheap (up to limit={self.limit} it is found as a dense matrix): use solve(K, b, "
                "damping=...), or leave them out by restrict"
            )
        ends = list(accumulate((size for _, size in layer.pieces), initial=0))
        own = {name: slice(*ends[i : i + 2]) for i, name in enumerate(names)}
        part = replace(self, blocks=blocks, slices=own, size=layer.out)
        dense = part.product(torch.eye(layer.out, dtype=self.dtype, device=self.device))
        B = Side(dense.unsqueeze(0)).eigen()
        one = Basis(torch.ones(1, 1, dtype=torch.float64, device=B.values.device), None)
        return Spectrum(layer, B, one, B.values.unsqueeze(2))
