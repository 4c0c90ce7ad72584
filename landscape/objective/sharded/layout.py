"""Which rows of the flat vector a rank holds when every parameter is cut along one of its dimensions.

The flat vector is `p.reshape(-1)` of each parameter, one after the other. A rank's rows of a parameter that is cut
along its first dimension are one run; of one that is cut along another they are many. Either way a rank's local
tensor, flattened, holds them in ascending order, and so does the local vector: its pieces lie one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The part of one parameter that a rank holds: `length` entries from `start` along dimension `dim`.

    Attributes:
        shape: of the whole parameter.
        offset: of its first entry in the flat vector.
    """

    shape: torch.Size
    dim: int
    start: int
    length: int
    offset: int

    @property
    def local_shape(self) -> torch.Size:
        """Of the rank's own tensor; one dimension may be 0."""
        return torch.Size([*self.shape[: self.dim], self.length, *self.shape[self.dim + 1 :]])

    @property
    def inner(self) -> int:
        """Entries of the parameter that lie together at one place of the cut dimension."""
        return math.prod(self.shape[self.dim + 1 :])

    def within(self, start: int, stop: int) -> Tensor | slice:
        """Which of the flat vector's entries from `start` to `stop` the rank holds, counted from `start`.

        They have to be entries of this parameter. A slice where they are one run.
        """
        inner, size = self.inner, self.shape[self.dim]
        if math.prod(self.shape[: self.dim]) == 1:
            first = self.offset + self.start * inner - start
            last = first + self.length * inner
            bound = stop - start
            return slice(min(max(first, 0), bound), min(max(last, 0), bound))
        place = torch.arange(start - self.offset, stop - self.offset) // inner % size
        return ((place >= self.start) & (place < self.start + self.length)).nonzero()[:, 0]

    def entries(self, place: Tensor) -> Tensor:
        """Which of the parameter's entries lie at places of the rank's flattened tensor."""
        inner, size = self.inner, self.shape[self.dim]
        before, along, after = place // (inner * self.length), place // inner % self.length + self.start, place % inner
        return (before * size + along) * inner + after

    def positions(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Where entries of the flat vector lie in the rank's flattened tensor, and which of them do."""
        inner, size = self.inner, self.shape[self.dim]
        entry = index - self.offset
        before, place, after = entry // (inner * size), entry // inner % size - self.start, entry % inner
        held = (entry >= 0) & (entry < self.shape.numel()) & (place >= 0) & (place < self.length)
        return (before * self.length + place) * inner + after, held


class Layout:
    """Which rows of the flat vector one rank of several holds.

    Args:
        shapes: of the whole parameters, in the order of the flat vector.
        dims: along which each is cut.
        rank, ranks: this one, and how many the parameters are cut for: into pieces of equal length, the last ones
            shorter or empty, as `torch.chunk` does.

    Attributes:
        shares: of the parameters, in order.
        size: n, the length of the flat vector.
        rows: how many of its entries the rank holds, maybe none.

    Example:
        >>> import torch
        >>> from landscape.objective.sharded.layout import Layout
        >>> layout = Layout([torch.Size([3, 2]), torch.Size([1])], [0, 0], rank=1, ranks=2)
        >>> layout.local(torch.arange(7.0))
        tensor([4., 5.])
    """

    def __init__(self, shapes: Sequence[torch.Size], dims: Sequence[int], rank: int, ranks: int) -> None:
        self.shares: list[Share] = []
        self.rank, self.ranks = rank, ranks
        self._shapes, self._dims = list(shapes), list(dims)
        self.size = 0
        for shape, dim in zip(shapes, dims, strict=True):
            step = -(-shape[dim] // ranks)
            start = min(rank * step, shape[dim])
            self.shares.append(Share(shape, dim, start, min(step, shape[dim] - start), self.size))
            self.size += shape.numel()
        self.rows = sum(share.local_shape.numel() for share in self.shares)

    def of(self, rank: int) -> Layout:
        """Of another rank."""
        return Layout(self._shapes, self._dims, rank, self.ranks)

    def windows(self, step: int) -> Iterator[tuple[int, int]]:
        """The flat vector in pieces of `step`, a multiple of 16, from start to stop; the last has at least 16."""
        start = 0
        while start < self.size:
            stop = self.size if self.size - start < step + 16 else start + step
            yield start, stop
            start = stop

    def kept(self, window: Tensor, start: int) -> Tensor:
        """Those entries of a piece of the flat vector, `(m, ...)` from `start`, that the rank holds, in order."""
        stop = start + len(window)
        found = []
        for share in self.shares:
            first, last = max(start, share.offset), min(stop, share.offset + share.shape.numel())
            if first < last:
                found.append(window[first - start : last - start][share.within(first, last)])
        return torch.cat(found) if found else window[:0]

    def local(self, full: Tensor) -> Tensor:
        """The rank's rows `(rows, ...)` of a whole vector or block `(n, ...)`."""
        step = 1 << 20
        pieces = [self.kept(full[start : start + step], start) for start in range(0, self.size, step)]
        return torch.cat(pieces) if pieces else full[:0]

    def place(self, full: Tensor, local: Tensor) -> None:
        """Write the rank's rows where they belong in a whole vector or block."""
        for share, piece in zip(self.shares, local.split(self.counts), strict=True):
            own = full[share.offset : share.offset + share.shape.numel()].view(*share.shape, *full.shape[1:])
            own.narrow(share.dim, share.start, share.length).copy_(piece.view(*share.local_shape, *full.shape[1:]))

    @property
    def counts(self) -> list[int]:
        """Rows of each parameter that the rank holds."""
        return [share.local_shape.numel() for share in self.shares]

    def positions(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the rank that these entries of the flat vector lie in, and which of the entries it holds."""
        row, held = torch.zeros_like(index), torch.zeros_like(index, dtype=torch.bool)
        before = 0
        for share, count in zip(self.shares, self.counts, strict=True):
            if count == 0:
                continue
            place, here = share.positions(index)
            row[here], held = before + place[here], held | here
            before += count
        return row, held
