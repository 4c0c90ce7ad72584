"""Where a basis lies, and what it takes there: one decision, from the budgets of device, host and disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from landscape.memory import available_disk, host_budget, in_words
from landscape.operators.linear import LinearOperator
from landscape.operators.vectors import VectorSpace

Where = Literal["device", "host", "disk"]
BasisChoice = Literal["auto", "device", "host", "disk"]

_WORDS = {"device": "on the device", "host": "in host memory", "disk": "on disk"}

# Columns of a basis that are worked on at once, and brought to the device where they lie elsewhere: this many, or what
# fits these bytes.
_CHUNK = 4
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Footprint:
    """What a result took beside the products, or will take, on this rank.

    Attributes:
        vectors: most bytes of the basis.
        where: "device", "host" or "disk": where it lies.
        gathered: most bytes of gathered weights alive, of a sharded model.

    Example:
        >>> from landscape.spectra import Footprint
        >>> print(Footprint(vectors=3 << 30, where="disk"))
        basis 3.0 GiB on disk
    """

    vectors: int
    where: Where = "device"
    gathered: int = 0

    def __str__(self) -> str:
        weights = f", {in_words(self.gathered)} of gathered weights" if self.gathered else ""
        return f"basis {in_words(self.vectors)} {_WORDS[self.where]}{weights}"


def together(footprints: Iterable[Footprint]) -> Footprint:
    """Of several bases in one place at the same time."""
    found = list(footprints)
    return Footprint(sum(one.vectors for one in found), found[0].where, max(one.gathered for one in found))


@dataclass(frozen=True)
class Place:
    """Where a basis lies.

    Attributes:
        columns: that fit there, beside what is worked on.
        aside: vectors for which the device has room beside that and the basis, if it does not lie there.
    """

    where: Where
    columns: int
    aside: int

    @property
    def words(self) -> str:
        """Where that is, in words."""
        return _WORDS[self.where]


def chunk_columns(space: VectorSpace) -> int:
    """Columns of a basis that are worked on at once: the same on all ranks, and wherever they lie, so that the place
    changes no bit of a result.
    """
    return max(_CHUNK, _CHUNK_BYTES // (space.size * space.dtype.itemsize))


def choose_place(A: LinearOperator, basis: str, *, enough: int, beside: int) -> Place:
    """The first place that holds `enough` columns, else the roomiest; the one that is named in any case.

    beside: vectors that are alive on the device whatever the place.

    Raises `ValueError` for a name that is none.
    """
    if basis not in get_args(BasisChoice):
        raise ValueError(f"basis is one of {', '.join(get_args(BasisChoice))}, not {basis!r}")
    room = _room(A, beside)
    fits = [where for where in get_args(Where) if basis == where or (basis == "auto" and room[where] >= enough)]
    where = fits[0] if fits else max(get_args(Where), key=room.__getitem__)
    shared = where == "device" or (where == "host" and A.device.type == "cpu")
    return Place(where, room[where], 0 if shared else room["device"])


def _room(A: LinearOperator, beside: int) -> dict[Where, int]:
    """Columns that fit each place, 0 elsewhere than on the device where that cannot hold what is worked on."""
    column, memory = A.space.column_bytes, A.memory
    device = max(0, memory // column - beside)
    if device < min(_CHUNK, A.shape[0]):
        return {"device": device, "host": 0, "disk": 0}
    host = device if A.device.type == "cpu" else host_budget() // column
    every = A.space.ranks.least(torch.tensor([device, host, available_disk() // column]))  # decided alike on all ranks
    return dict(zip(get_args(Where), every.tolist(), strict=True))
