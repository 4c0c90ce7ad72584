"""What a search for eigenpairs is asked, and where it stands: all that its rounds change beside the Krylov basis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import Place, choose_place
from landscape.spectra.callbacks import Callback
from landscape.spectra.krylov import Ritz

# Columns that a search for a few pairs seldom goes beyond: a basis that holds as many need not go further away.
_SELDOM_MORE = 64


# The ends of the spectrum that `which` asks for, each as the signs s by whose largest s * lambda it is measured.
ENDS: dict[str, list[tuple[float, ...]]] = {
    "LA": [(1.0,)],
    "SA": [(-1.0,)],
    "LM": [(1.0, -1.0)],
    "BE": [(1.0,), (-1.0,)],
}


def key(signs: Sequence[float], values: Tensor) -> Tensor:
    """Larger is better at this end."""
    return torch.stack([sign * values for sign in signs]).amax(dim=0)


@dataclass(frozen=True)
class Task:
    """What is asked for, as in `eigsh`.

    Attributes:
        k: how many, with `above` at most.
        above: in place of the best k, all that are larger than this.
        limit: products allowed; None for what the number of pairs makes usual.
        width: candidates that enter the basis per round.
        floor: relative error of a residual; a smaller one is not seen.
        enough: in place of the accuracy `tol` of the values it will do that no `key` is above this; `tol` is then where
            the search begins.
    """

    k: int
    which: str
    tol: float
    limit: int | None
    width: int
    callback: Callback | None
    confirm: bool
    floor: float
    enough: float | None = None
    above: float | None = None

    @property
    def ends(self) -> list[tuple[float, ...]]:
        """Of the spectrum that are asked for, see `ENDS`."""
        return ENDS[self.which]

    @property
    def threshold(self) -> float:
        """Above which all are wanted; infinite where it is a number of pairs."""
        return math.inf if self.above is None else self.above

    def order(self, values: Tensor) -> Tensor:
        """Indices of the values, best first; of two ends in turn, the high one first."""
        orders = [torch.argsort(key(signs, values), descending=True, stable=True) for signs in self.ends]
        return torch.stack(orders, dim=1).flatten()[: len(values)]


@dataclass(frozen=True)
class Claim:
    """What is to be proved at one end: that the i-th best eigenvalue exceeds the i-th of these bounds by tol at most.

    Attributes:
        signs: the end, see `ENDS`.
        bounds: what was found there, descending; where all above a threshold are asked for, that threshold as well.
    """

    signs: tuple[float, ...]
    bounds: Tensor

    @property
    def last(self) -> float:
        """What nothing that was not found exceeds."""
        return float(self.bounds[-1])

    def holds(self, upper: Tensor, level: float, tolerance: float) -> bool:
        """Whether upper bounds of the best eigenvalues prove it, of which all others have the level."""
        allowed = self.bounds + tolerance
        best = upper[: len(allowed)]
        return level <= float(allowed[-1]) and bool((best <= allowed[: len(best)]).all())

    def moved(self, before: Claim, tolerance: float) -> bool:
        """Whether more was found than before.

        What is new above a threshold counts from half of the tolerance on: as long as it is beside the chain, that
        cannot show that nothing is beyond the whole of it when both are close.
        """
        known = len(before.bounds)
        now, then = self.bounds[:known], before.bounds[: len(self.bounds)]
        allowed = torch.full_like(then, tolerance)
        if len(self.bounds) > known:
            allowed[-1] *= 0.5
        return bool(((now - then).abs() > allowed).any())


class Stop(Exception):
    """The search ends without a certificate; the argument says why, as in `State.stopped`."""


@dataclass
class State:
    """What was found, what was spent and why it stopped."""

    ritz: Ritz  # the pairs of the basis
    order: Tensor  # their indices, best first
    target: float  # residual, relative to `largest`, at which a pair has converged
    largest: float = 0.0  # of all |Ritz values| seen
    matvecs: int = 0
    main_steps: int = 0  # products when the wanted pairs had converged for the first time
    restarts: int = 0  # of the basis
    idle: int = 0  # rounds in a row without a new direction
    doubt: float = 1.0  # probability that what chains before have missed is hidden from all of them
    stopped: str = ""  # "" on the way; "certified", or without a certificate "products", "callback" or "idle"


def search_place(A: LinearOperator, k: int, block: int, basis: str) -> Place:
    """Where the basis of a search lies, and its columns; `MemoryError` where there is no room for k + 3."""
    n = A.shape[0]
    # a round's vectors, which is what a restart takes as well, and the result
    beside = 2 * block + 3 + k
    place = choose_place(A, basis, enough=min(n, max(_SELDOM_MORE, 4 * k)), beside=beside)
    least = min(n, k + 3)
    if place.columns < least:
        column, memory = A.space.column_bytes, A.memory
        raise MemoryError(
            f"eigsh with k = {k} works with at least {least + beside} vectors of {column:,} bytes (k + 3 in the basis, "
            f"k in the result and what a round needs); the budget of {memory:,} bytes holds {memory // column}: give "
            "more memory or ask for fewer pairs"
        )
    return replace(place, columns=min(n, usual_columns(k), place.columns))


def open_place(A: LinearOperator, most: int, block: int, basis: str) -> tuple[Place, int]:
    """Where the basis of a search lies whose pairs are not counted yet, all columns there, and the most pairs.

    `MemoryError` where there is no room for one.
    """
    search_place(A, 1, block, basis)
    n = A.shape[0]
    place = choose_place(A, basis, enough=min(n, _SELDOM_MORE), beside=2 * block + 3)
    if place.where == "device" or place.aside == 0:  # basis and result share it
        most = min(most, n if place.columns >= 2 * n else max(1, (place.columns - 3) // 2))
        return replace(place, columns=place.columns - most), most
    return place, max(1, min(most, place.aside, n if place.columns >= n else place.columns - 3))


def usual_columns(k: int) -> int:
    """Columns of the basis of a search for k pairs, where there is room."""
    return max(128, 4 * k)
