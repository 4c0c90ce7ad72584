"""Curvature bounded linearly in another quantity of the run: (L0, L1)- and (H0, H1)-smoothness.

(L0, L1): ||hessian|| <= L0 + L1 ||gradient|| (Zhang, He, Sra and Jadbabaie 2020); (H0, H1): ||hessian|| <=
H0 + H1 (f - f^*) (arXiv 2510.03164). Both are upper bounds, so least squares, which half of the points exceed, is the
wrong fit: of all lines above the points, with c0, c1 >= 0, this is the one with the smallest total slack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.regularity.envelopes import lowest_point
from landscape.regularity.trajectory import as_array

# x = f - f^* may be negative by rounding of float32 losses.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Envelope:
    """curvature_k <= c0 + c1 x_k for all k.

    Attributes:
        c0: L0 or H0, >= 0.
        c1: L1 or H1, >= 0.
        slack: the sum of c0 + c1 x_k - curvature_k, which is as small as any such line makes it.
        mean_slack: slack a row, in units of the curvature.
        binding_rows: positions of the rows that lie on the line, to rounding.
    """

    c0: float
    c1: float
    slack: float
    mean_slack: float
    binding_rows: NDArray[np.int64] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"curvature <= {self.c0:.6g} + {self.c1:.6g} x (mean slack {self.mean_slack:.3g})"


def smoothness(curvature: Any, x: Any) -> Envelope:
    """The line above all points (x_k, curvature_k) with c0, c1 >= 0 and the smallest total slack.

    A linear program in (c0, c1), solved exactly through its vertices. Of several lines with the same slack the one
    with the smallest c1 is returned.

    Args:
        curvature: `(T,)`, the norm or the largest eigenvalue of the Hessian.
        x: `(T,)`, gradient norms for (L0, L1), f - f^* for (H0, H1); not negative.

    Raises:
        TypeError: no real numbers.
        ValueError: no rows, unequal lengths, entries that are not finite, x negative beyond rounding.

    Example:
        >>> from landscape.regularity import smoothness
        >>> print(smoothness(curvature=[1.0, 2.0, 3.0], x=[0.0, 2.0, 2.0]))
        curvature <= 1 + 1 x (mean slack 0.333)
    """
    y, x = as_array(curvature, "curvature"), as_array(x, "x")
    if y.ndim != 1 or x.ndim != 1 or len(y) != len(x):
        raise ValueError(f"curvature and x need one number a row each, not the shapes {y.shape} and {x.shape}")
    if len(y) == 0:
        raise ValueError("there are no rows: measure the curvature at one step at least")
    for name, array in (("curvature", y), ("x", x)):
        if not np.isfinite(array).all():
            row = int(np.argmax(~np.isfinite(array)))
            raise ValueError(f"{name} is {array[row]} in row {row}: leave out the rows where the run diverged")
    if (x < -_ROUNDING * np.abs(x).max()).any():
        raise ValueError(f"x is negative in row {int(np.argmin(x))}: it is a norm or a loss above its infimum")
    mean = float(x.mean())
    # With c0 = max(0, max_k (y_k - c1 x_k)), the slack a row is an envelope of lines in c1, up to the mean of y.
    c1 = lowest_point(np.append(y, 0.0), np.append(mean - x, mean)).u
    c0 = max(0.0, float((y - c1 * x).max()))
    slack = c0 + c1 * x - y
    noise = 1e-12 * (c0 + c1 * np.abs(x) + np.abs(y))
    return Envelope(c0, c1, float(slack.sum()), float(slack.mean()), np.flatnonzero(slack <= noise))
