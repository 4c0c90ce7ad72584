"""What an algorithm tells while it runs: the products made, an estimate with its error, and a way to stop it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from landscape.operators.linear import LinearOperator


class RunningEstimate(float):
    """An estimate on the way: a float that knows what it is of, and its error so far.

    Attributes:
        error: of the kind that the result has, a standard error or a bound; nan where nothing is known of it yet.
        name: of the quantity: "trace", or "lambda_1" for the first of the eigenvalues that are searched.
        unit: of what the callback counts.

    Example:
        >>> from landscape.spectra import RunningEstimate
        >>> found = RunningEstimate(12.5, 0.25, "trace")
        >>> str(found), found + 1
        ('trace = 12.5 +- 0.25', 13.5)
    """

    error: float
    name: str
    unit: str

    def __new__(  # noqa: D102
        cls, value: float, error: float = math.nan, name: str = "estimate", unit: str = "products"
    ) -> RunningEstimate:
        self = super().__new__(cls, value)
        self.error, self.name, self.unit = float(error), name, unit
        return self

    def __str__(self) -> str:
        return f"{self.name} = {float(self):.6g} +- {self.error:.2g}"


Callback = Callable[[int, int, RunningEstimate], bool | None]
"""`callback(matvecs, planned, estimate)`, called once per block of products; True stops with what there is.

Of several ranks some may have none; True on any stops all.
"""


def stops(
    A: LinearOperator, callback: Callback | None, made: int, planned: int, estimate: Callable[[], RunningEstimate]
) -> bool:
    """Whether the callback of this rank, or of another that makes the same calls, asks to stop.

    The estimate is made where there is a callback.
    """
    return A.space.ranks.stopped(None if callback is None else lambda: callback(made, planned, estimate()))
