"""What a search for eigenpairs is asked, and where it stands: all that its rounds change beside the Krylov basis."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import Place, choose_place
from landscape.spectra.callbacks import Callback
from landscape.spectra.krylov import Ritz

# Columns that a search for a few pairs seldom goes beyond: a basis that holds as many need not go further away.
_SELDOM_MORE = 64


@dataclass(frozen=True)
class Task:
    """What is asked for, as in `eigsh`.

    Attributes:
        floor: relative error of a residual; a smaller one is not seen.
        enough: in place of the accuracy `tol` of the values it will do that no `key` is above this; `tol` is then where
            the search begins.
    """

    k: int
    which: str
    tol: float
    limit: int
    width: int  # candidates that enter the basis per round
    callback: Callback | None
    confirm: bool
    floor: float
    enough: float | None = None

    @property
    def signs(self) -> list[float]:
        """Of the ends of the spectrum that are asked for."""
        return {"LA": [1.0], "SA": [-1.0], "LM": [1.0, -1.0]}[self.which]

    def key(self, values: Tensor) -> Tensor:
        """Larger is better."""
        return {"LA": values, "SA": -values, "LM": values.abs()}[self.which]


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
    n, column = A.shape[0], A.space.column_bytes
    # a round's vectors, which is what a restart takes as well, and the result
    beside = 2 * block + 3 + k
    place = choose_place(A, basis, enough=min(n, max(_SELDOM_MORE, 4 * k)), beside=beside)
    least = min(n, k + 3)
    if place.columns < least:
        memory = A.memory
        raise MemoryError(
            f"eigsh with k = {k} works with at least {least + beside} vectors of {column:,} bytes (k + 3 in the basis, "
            f"k in the result and what a round needs); the budget of {memory:,} bytes holds {memory // column}: give "
            "more memory or ask for fewer pairs"
        )
    return replace(place, columns=min(n, max(128, 4 * k), place.columns))
