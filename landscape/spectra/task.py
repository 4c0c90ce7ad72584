"""What a search for eigenpairs is asked, and where it stands: all that its rounds change beside the Krylov basis."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from landscape.operators.linear import LinearOperator
from landscape.spectra.krylov import Ritz
from landscape.spectra.results import Callback


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


def basis_capacity(A: LinearOperator, k: int, block: int) -> int:
    """Basis columns that fit the budget beside what a restart and a round need; `MemoryError` below k + 3."""
    n, memory, column = A.shape[0], A.memory, A.space.column_bytes
    columns = memory // column
    spare = 2 * block + 3
    # a restart holds the basis and a half to two thirds of it once more
    fits = (2 * (columns - spare) - k) // 3
    least = min(n, k + 3)
    if fits < least:
        needed = (3 * least + k + 1) // 2 + spare
        raise MemoryError(
            f"eigsh with k = {k} works with at least {needed} vectors of {column:,} bytes (k + 3 in the basis and "
            f"what a restart and a round need); the budget of {memory:,} bytes holds {columns}: give more memory "
            "or ask for fewer pairs"
        )
    return min(n, max(128, 4 * k), fits)
