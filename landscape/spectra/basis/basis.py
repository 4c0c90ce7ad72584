"""A growing orthonormal basis, wherever its columns lie.

Every operation goes through the columns in chunks: no more than one chunk of them is on the device at a time when they
lie elsewhere. All is done on the rows that this rank holds; what needs the sum over ranks asks the space for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.operators.vectors import VectorSpace
from landscape.spectra.basis.columns import allocate
from landscape.spectra.basis.place import Footprint, Where, chunk_columns

# Columns that are allocated at once, at least; then half of what there is. Nothing that is there ever moves.
_BLOCK = 8

# Rows that a restart works on, at least: else as many as make two vectors of scratch.
_ROWS = 1 << 12


class Basis:
    """Orthonormal columns Q, `(n, size)`, on the device, in host memory or on disk.

    Beyond `capacity` the oldest are forgotten.

    Attributes:
        size: columns that are held.
        capacity: how many may be.
        where: "device", "host" or "disk".
        footprint: what it took so far.
    """

    def __init__(self, space: VectorSpace, capacity: int, where: Where = "device") -> None:
        self.space, self.capacity, self.where = space, max(1, capacity), where
        self.size = self._most = 0
        self._chunk = chunk_columns(space)
        self._blocks: list[Tensor] = []
        self._oldest = 0  # where it lies, in a full basis that has forgotten
        self._backwards = False

    @property
    def footprint(self) -> Footprint:
        """The most that it has held."""
        return Footprint(self._most * self.space.column_bytes, self.where, self.space.gathered_peak)

    # -- growing and shrinking ----------------------------------------------------------------------------

    def reserve(self, columns: int) -> None:
        """Room for as many in one piece, so that `tensor` copies nothing. Raises `MemoryError` as `append` does."""
        if not self._blocks:
            self._blocks.append(allocate(self.space, min(columns, self.capacity), self.where))

    def append(self, V: Tensor) -> None:
        """Take in orthonormal columns, `(n, b)`. Raises `MemoryError` where the disk has no room for them."""
        for row in V.movedim(-1, 0).flatten(1):
            if self.size < self.capacity:
                self._grow(self.size + 1)
                place, self.size = self.size, self.size + 1
            else:
                place, self._oldest = self._oldest, (self._oldest + 1) % self.capacity
            for start, block in self._pieces():
                if start <= place < start + len(block):
                    block[place - start].copy_(row)
        self._most = max(self._most, self.size)

    def _grow(self, size: int) -> None:
        held = sum(map(len, self._blocks))
        if size > held:
            count = min(self.capacity - held, max(_BLOCK, self._chunk, held // 2))
            self._blocks.append(allocate(self.space, count, self.where))

    def restart(self, S: Tensor) -> None:
        """Q becomes Q S, S `(size, r)` with orthonormal columns, r <= size, in place."""
        kept, held = S.shape[1], [(start, block[: self.size - start]) for start, block in self._pieces()]
        C = S.roll(self._oldest, 0).T.to(device=self.space.device, dtype=self.space.dtype)
        n = held[0][1].shape[1]
        step = max(_ROWS, n // self.size)
        for first in range(0, n, step):
            rows = slice(first, first + step)
            new = C @ torch.cat([block[:, rows].to(C.device) for _, block in held])
            for start, block in held:
                part = new[start : start + len(block)]
                block[: len(part), rows].copy_(part)
        self.size, self._oldest = kept, 0

    def close(self) -> None:
        """Forget the columns: memory and disk space are free again, though somebody may hold on to the basis."""
        self._blocks, self.size = [], 0

    # -- using --------------------------------------------------------------------------------------------

    def inner(self, W: Tensor) -> Tensor:
        """Q^T W as `VectorSpace.inner`: `(size, k)`, one reduction."""
        if self.size == 0:
            return torch.zeros(0, W.shape[-1], dtype=torch.float64)
        parts = torch.cat([self.space.gram(X, W) for _, X in self._chunks()])
        return self.space.reduce(parts).roll(-self._oldest, 0)

    def orthogonalise(self, W: Tensor, *, exact: bool = True) -> tuple[Tensor, Tensor]:
        """h = Q^T W, `(size, k)`, and W - Q h: classical Gram-Schmidt within chunks, modified between them.

        A first pass, after which another one follows, need not be `exact`: see `VectorSpace.gram`.

        So that columns are read once, and forwards and backwards in turn: what was read last from disk is in memory
        still. One reduction per chunk, which is the whole basis where that is small.
        """
        h = torch.zeros(self.size, W.shape[-1], dtype=torch.float64)
        W = W.clone(memory_format=torch.contiguous_format)
        rows = W.flatten(0, -2)
        self._backwards = not self._backwards
        for columns, X in self._chunks(self._backwards):
            h[columns] = part = self.space.reduce(self.space.gram(X, W, exact=exact))
            rows.addmm_(X.flatten(0, -2), part.to(device=W.device, dtype=W.dtype), alpha=-1)
        return h.roll(-self._oldest, 0), W

    def project(self, W: Tensor) -> Tensor:
        """W - Q Q^T W."""
        return self.orthogonalise(W)[1]

    def combine(self, S: Tensor) -> Tensor:
        """Q S for a small S, `(size, r)`: `(n, r)` on the device."""
        C = S.roll(self._oldest, 0).to(device=self.space.device, dtype=self.space.dtype)
        total = self.space.zeros(S.shape[1])
        rows = total.flatten(0, -2)
        for columns, X in self._chunks():
            rows.addmm_(X.flatten(0, -2), C[columns])
        return total

    def tensor(self) -> Tensor:
        """Q, `(n, size)`, where it lies; a view where `reserve` made one piece of it, else a copy."""
        pieces = [block[: self.size - start] for start, block in self._pieces()] or [self._empty()]
        whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        whole = whole.roll(-self._oldest, 0) if self._oldest else whole
        return self._columns(whole)

    # -- pieces -------------------------------------------------------------------------------------------

    def _pieces(self) -> Iterator[tuple[int, Tensor]]:
        """Where each block that holds columns begins, and the block."""
        start = 0
        for block in self._blocks:
            if start < self.size:
                yield start, block
            start += len(block)

    def _chunks(self, backwards: bool = False) -> Iterator[tuple[slice, Tensor]]:
        """The columns a few at a time, on the device, in the order in which they lie."""
        parts: list[tuple[slice, Tensor]] = []
        for start, block in self._pieces():
            for first in range(start, min(start + len(block), self.size), self._chunk):
                last = min(first + self._chunk, start + len(block), self.size)
                parts.append((slice(first, last), block[first - start : last - start]))
        for columns, rows in reversed(parts) if backwards else parts:
            yield columns, self._columns(rows.to(self.space.device))

    def _columns(self, rows: Tensor) -> Tensor:
        return rows.reshape(len(rows), *self.space.shape).movedim(0, -1)

    def _empty(self) -> Tensor:
        return torch.empty(0, *self.space.shape, dtype=self.space.dtype, device=self.space.device)
