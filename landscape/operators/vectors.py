"""The space that an operator's vectors live in, and orthonormal bases of its subspaces.

Algorithms touch vectors only through `A @ V`, `+`, `*`, slices of the last dimension and what `VectorSpace` offers,
always as blocks of columns. So vectors that are sharded over ranks need a space of their own and nothing else.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.precision import accurate
from landscape.randomness import fresh_generator
from landscape.ranks import Ranks, agreed_on

Kind = Literal["rademacher", "normal"]

# Rows per chunk of the float64 accumulation in `inner`: small enough that the float64 copies stay in cache.
_INNER_ROWS = 1 << 16


class VectorSpace:
    """R^n on one device: vectors are tensors `(n,)`, blocks of k columns `(n, k)`.

    Attributes:
        size: n, global even when the vectors are sharded.
        dtype, device: of the vectors.
        shape: of one vector as this rank holds it; a block has one more dimension, the last.
        ranks: those that make the same calls, so that they have to draw the same random numbers.
        holders: those that hold one vector together, each its rows; this process alone where it holds all.
    """

    def __init__(
        self, size: int, dtype: torch.dtype, device: torch.device, *, shape: tuple[int, ...] | None = None
    ) -> None:
        self.size = size
        self.dtype = dtype
        self.device = torch.device(device)
        self.shape = (size,) if shape is None else shape
        self.ranks = self.holders = Ranks()

    @property
    def column_bytes(self) -> int:
        """Bytes of one vector on this rank."""
        return max(1, math.prod(self.shape) * self.dtype.itemsize)

    @property
    def gathered_peak(self) -> int:
        """The most bytes of a sharded model's parameters that were whole at once on this rank; 0 for other models."""
        return 0

    def columns(self, V: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """A vector `(n,)` or a block `(n, k)` as a block, detached, in the space's dtype on its device.

        Raises `ValueError` for another shape, `TypeError` for complex numbers.
        """
        V = torch.as_tensor(V).detach()
        columns = V.unsqueeze(-1) if V.ndim == len(self.shape) else V
        if columns.ndim != len(self.shape) + 1 or columns.shape[:-1] != self.shape:
            one, many = (str(shape).replace("'", "") for shape in (self.shape, (*self.shape, "k")))
            raise ValueError(f"a vector for this operator has shape {one} or {many}, not {tuple(V.shape)}")
        if V.is_complex():
            raise TypeError("complex vectors are not supported: the operator is real and symmetric")
        return columns.to(device=self.device, dtype=self.dtype)

    def inner(self, X: Tensor, Y: Tensor) -> Tensor:
        """X^T Y for blocks `(n, j)` and `(n, k)`: `(j, k)` float64 on the host, accumulated in float64.

        One reduction and one copy to the host per call.
        """
        return self.reduce(self.gram(X, Y))

    def gram(self, X: Tensor, Y: Tensor, *, exact: bool = True) -> Tensor:
        """What this rank's rows add to X^T Y: `(j, k)` in float64 (on the host where the device has none).

        A basis that comes in chunks takes one `gram` of each and one `reduce` of them all. With `exact=False` a piece
        of the rows is summed in the vectors' dtype, at half the price, and only the pieces in float64.
        """
        X, Y = X.flatten(0, -2), Y.flatten(0, -2)
        if X.dtype == torch.float64 or X.shape[0] <= _INNER_ROWS:
            return accurate(X).T @ accurate(Y)
        total = accurate(torch.zeros(X.shape[1], Y.shape[1], device=X.device))
        for start in range(0, X.shape[0], _INNER_ROWS):
            rows = slice(start, start + _INNER_ROWS)
            total += accurate(X[rows]).T @ accurate(Y[rows]) if exact else accurate(X[rows].T @ Y[rows])
        return total

    def reduce(self, G: Tensor) -> Tensor:
        """The sum over ranks of what each of them has, on the host: all of the communication that `inner` needs."""
        return G.cpu()

    def combine(self, X: Tensor, C: Tensor) -> Tensor:
        """X @ C for a block `(n, j)` and a small host matrix `(j, k)`: `(n, k)`."""
        return X @ C.to(device=X.device, dtype=X.dtype)

    def generator(self, given: torch.Generator | None = None) -> tuple[torch.Generator, int]:
        """The generator to draw from, the same on all ranks, and the seed that a result keeps.

        A fresh one for None, with the first rank's seed. Raises `ValueError` for one that differs from rank to rank.
        """
        state = -1  # of none
        if given is not None and self.ranks.several:
            state = zlib.crc32(given.get_state().numpy().tobytes())
        lowest, highest = self.ranks.least(torch.tensor([state, -state])).tolist()
        if lowest != -highest:
            raise agreed_on(
                ValueError("the ranks' generators are not in the same state: give all of them the same seed")
            )
        if given is None:
            fresh = fresh_generator()
            seed = self.ranks.shared(fresh.initial_seed(), 0)
            return (fresh if seed == fresh.initial_seed() else fresh.manual_seed(seed)), seed
        return given, given.initial_seed()

    def random(self, k: int, kind: Kind = "rademacher", generator: torch.Generator | None = None) -> Tensor:
        """`(n, k)` random columns with identity covariance, drawn on the generator's device and moved.

        Columns are drawn one after the other: k at once and one by one give the same numbers.
        """
        generator, _ = self.generator(generator)
        columns = [self._draw(kind, generator) for _ in range(k)]
        return torch.stack(columns, dim=-1).to(device=self.device, dtype=self.dtype)

    def _draw(self, kind: Kind, generator: torch.Generator) -> Tensor:
        return self._drawn(self.size, kind, generator)

    def _drawn(self, n: int, kind: Kind, generator: torch.Generator) -> Tensor:
        source = generator.device
        if kind == "rademacher":
            bits = torch.randint(0, 2, (n,), generator=generator, device=source, dtype=torch.int8)
            return (2 * bits - 1).to(self.dtype)
        if kind == "normal":
            return torch.randn(n, generator=generator, device=source, dtype=self.dtype)
        raise ValueError(f"kind is 'rademacher' or 'normal', not {kind!r}")

    def unit(self, indices: Sequence[int] | Tensor) -> Tensor:
        """`(n, k)`: the unit vectors of the given coordinates as columns."""
        index = torch.as_tensor(indices, dtype=torch.long, device=self.device).reshape(-1)
        E = self.zeros(index.numel())
        E[index, torch.arange(index.numel(), device=self.device)] = 1.0
        return E

    def zeros(self, k: int) -> Tensor:
        """`(n, k)` zeros; k = 0 is the empty block that others are appended to."""
        return torch.zeros(*self.shape, k, dtype=self.dtype, device=self.device)

    def full(self, V: Tensor) -> Tensor:
        """A vector or block as a whole, `(n,)` or `(n, k)`, on every rank."""
        return V

    def shard(self, V: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """What this rank holds of a whole vector or block: all of it."""
        return torch.as_tensor(V)


def orthonormal(
    space: VectorSpace, X: Tensor, project: Callable[[Tensor], Tensor] | None = None, floor: float = 0.0
) -> Tensor:
    """An orthonormal basis of the columns of X, orthogonal to the space that `project` takes away: (n, r), r <= k.

    Directions in which X has no more than `floor` (a norm) are left out. Gram matrices lose half the digits,
    so directions are taken in tiers: those within eps^0.4 of the largest first, then the rest is projected
    and measured anew. Every tier is orthogonalised twice (Giraud, Langou, Rozloznik 2005).

    Raises `FloatingPointError` when X is not finite.
    """
    eps = torch.finfo(X.dtype).eps
    project = project or (lambda V: V)
    found: list[Tensor] = []
    X = project(X)
    while X.shape[-1]:
        X = _without(space, project(X), found)
        gram = space.inner(X, X)
        if not bool(torch.isfinite(gram).all()):
            raise FloatingPointError("vectors that should span a basis have entries that are not finite")
        squares, U = torch.linalg.eigh(gram)
        top = float(squares[-1])
        if not top > floor**2:
            break
        keep = (squares > eps**0.8 * top) & (squares > floor**2)
        V = space.combine(X, U[:, keep] / squares[keep].sqrt())
        found.append(_polish(space, _without(space, project(V), found)))
        if bool(keep.all()):
            break
        X = _without(space, space.combine(X, U[:, ~keep]), [found[-1]])
    return torch.cat(found, dim=-1) if found else X[..., :0]


def _without(space: VectorSpace, X: Tensor, bases: list[Tensor]) -> Tensor:
    """X without what lies in orthonormal blocks."""
    for Q in bases:
        X = X - space.combine(Q, space.inner(Q, X))
    return X


def _polish(space: VectorSpace, V: Tensor) -> Tensor:
    """A nearly orthonormal V times (V^T V)^(-1/2)."""
    squares, U = torch.linalg.eigh(space.inner(V, V))
    return space.combine(V, (U / squares.clamp(min=1e-30).sqrt()) @ U.T)
