"""The space of vectors whose rows are shared among ranks, as the parameters of a sharded model are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from landscape.objective.sharded.layout import Layout
from landscape.operators.vectors import Kind, VectorSpace
from landscape.ranks import Ranks

# Random numbers drawn at once. torch draws normal ones on the host sixteen by sixteen, so that pieces of a multiple of
# that, the last one no shorter, are the numbers of one long draw.
_DRAWN = 1 << 20


class ShardedSpace(VectorSpace):
    """R^n, each rank holding the rows that a layout gives it: vectors are `(rows,)`, blocks `(rows, k)`.

    `size` is n. A rank may hold no row at all. All ranks make the same calls.

    Args:
        layout: which rows this rank holds.
        holders: the ranks that hold one vector together.
        dtype, device: of the vectors.
        gathered: the most bytes of whole parameters that were alive at once.

    Example:
        >>> import torch
        >>> from landscape.objective.sharded.layout import Layout
        >>> from landscape.operators.sharded_space import ShardedSpace
        >>> from landscape.ranks import Ranks
        >>> space = ShardedSpace(Layout([torch.Size([3])], [0], 0, 1), Ranks(), torch.float64, torch.device("cpu"))
        >>> space.inner(space.unit([1]), space.shard(torch.tensor([[1.0], [2.0], [3.0]])))
        tensor([[2.]], dtype=torch.float64)
    """

    def __init__(
        self,
        layout: Layout,
        holders: Ranks,
        dtype: torch.dtype,
        device: torch.device,
        gathered: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(layout.size, dtype, device, shape=(layout.rows,))
        self._layout = layout
        self.ranks = self.holders = holders
        self._gathered = gathered

    @property
    @override
    def column_bytes(self) -> int:
        """Bytes of one vector on the rank that holds most of it: what is decided by it is decided alike."""
        return max(1, self._layout.of(0).rows * self.dtype.itemsize)

    @property
    @override
    def gathered_peak(self) -> int:
        return self._gathered()

    @override
    def reduce(self, G: Tensor) -> Tensor:
        return self.holders.sum(G.contiguous()).cpu()

    @override
    def _draw(self, kind: Kind, generator: torch.Generator) -> Tensor:
        """This rank's rows of what one process would draw, with a generator on the host bit for bit; in pieces."""
        rows, done = self.zeros(1)[:, 0], 0
        for start, stop in self._layout.windows(_DRAWN):
            kept = self._layout.kept(self._drawn(stop - start, kind, generator), start)
            rows[done : done + len(kept)] = kept
            done += len(kept)
        return rows

    @override
    def unit(self, indices: Sequence[int] | Tensor) -> Tensor:
        """`(rows, k)`: this rank's rows of the unit vectors of coordinates of the whole vector."""
        index = torch.as_tensor(indices, dtype=torch.long, device=self.device).reshape(-1)
        if index.numel() and (int(index.min()) < -self.size or int(index.max()) >= self.size):
            raise IndexError(f"coordinates lie in [0, {self.size}), got {int(index.min())}..{int(index.max())}")
        row, held = self._layout.positions(index % max(1, self.size))
        E = self.zeros(index.numel())
        E[row[held], held.nonzero()[:, 0]] = 1.0
        return E

    @override
    def full(self, V: Tensor) -> Tensor:
        """A vector or block as a whole, `(n,)` or `(n, k)`, on every rank; it has to fit there."""
        layouts = [self._layout.of(rank) for rank in range(self._layout.ranks)]
        whole = V.new_empty(self.size, *V.shape[1:])
        most = max(layout.rows for layout in layouts)
        every = self.holders.collected(torch.cat([V, V.new_zeros(most - len(V), *V.shape[1:])]))
        for layout, rows in zip(layouts, every.split(most) if most else [every] * len(layouts), strict=True):
            layout.place(whole, rows[: layout.rows])
        return whole

    @override
    def shard(self, V: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """This rank's rows of a whole vector `(n,)` or block `(n, k)`: `(rows,)` or `(rows, k)`."""
        whole = torch.as_tensor(V)
        if whole.ndim not in (1, 2) or len(whole) != self.size:
            raise ValueError(f"a whole vector has shape ({self.size},) or ({self.size}, k), not {tuple(whole.shape)}")
        return self._layout.local(whole).to(device=self.device, dtype=self.dtype)
