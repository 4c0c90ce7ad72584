"""What the trace of a function comes with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from landscape.spectra.results import Estimate


@dataclass(frozen=True)
class SpectralSum(Estimate[float]):
    """tr f(A) with its error.

    Attributes:
        quadrature: the part of `stderr` that more Lanczos steps would take away: the difference of step counts.
        probes: random vectors.
        steps: of Lanczos, the fewest for a vector.
        lowest, highest: Ritz values that were met; eigenvalues where the matrix was formed.
    """

    quadrature: float = 0.0
    probes: int = 0
    steps: int = 0
    lowest: float = field(default=math.nan, repr=False)
    highest: float = field(default=math.nan, repr=False)

    def _remarks(self) -> list[str]:
        few = self.quadrature > 0.5 * self.stderr
        told = f"most of the error, {self.quadrature:.2g}, is that of few Lanczos steps: give more products"
        return [told] * few + super()._remarks()
