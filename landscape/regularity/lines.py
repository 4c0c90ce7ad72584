"""A line through points of which some lie far off: Huber's regression, by least squares that is weighed anew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.regularity.trajectory import as_array

_TUNING = 1.345  # 95 % of the efficiency of least squares on normal errors
_SCALE = 1.4826  # of the median of |residuals|, to the deviation of a normal
_ROUNDS = 100


@dataclass(frozen=True)
class HuberLine:
    """y = intercept + slope x.

    Attributes:
        slope, intercept: of the line.
        stderr: of slope, for residuals that do not depend on each other.
        r_squared: 1 - residual sum of squares / that around the mean, over all points alike; nan where y is constant.
        points: through which it goes.
    """

    slope: float
    intercept: float
    stderr: float
    r_squared: float
    points: int

    def __str__(self) -> str:
        return f"{self.intercept:.4g} + {self.slope:.4g} x (slope +- {self.stderr:.2g}, R^2 {self.r_squared:.3f})"


def huber_line(x: Any, y: Any) -> HuberLine:
    """The line that minimises Huber's loss of the residuals over their scale, the median of |residuals|.

    Of the gradient's dual norm on the loss along a run its slope is the mu of mu-KL as arXiv 2603.21191 fits it: no
    infimum is taken off, and no bound is meant.

    Args:
        x: `(T,)`, at least three, not all alike.
        y: `(T,)`.

    Raises:
        TypeError: no real numbers.
        ValueError: unequal lengths, fewer than three points, x all alike, entries that are not finite.

    Example:
        >>> from landscape.regularity import huber_line
        >>> found = huber_line(range(8), [1.0, 3.1, 4.9, 7.0, 9.1, 10.9, 13.0, 90.0])
        >>> round(found.slope, 1)
        2.0
    """
    xs, ys = as_array(x, "x"), as_array(y, "y")
    if xs.ndim != 1 or xs.shape != ys.shape or len(xs) < 3 or not np.ptp(xs) > 0:
        raise ValueError(f"x and y are of one length, 3 at least, and x varies: not {xs.shape} and {ys.shape}")
    A = np.stack([np.ones_like(xs), xs], axis=1)
    weights: NDArray[np.float64] = np.ones(len(xs))
    found: NDArray[Any] = np.zeros(2)
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        before, found = found, np.linalg.lstsq(A * root[:, None], ys * root, rcond=None)[0]
        residuals = ys - A @ found
        scale = _SCALE * float(np.median(np.abs(residuals)))
        if scale <= 1e-12 * float(np.abs(ys).max(initial=0.0)) or np.allclose(before, found, rtol=1e-10, atol=0.0):
            break
        weights = np.minimum(1.0, _TUNING * scale / np.maximum(np.abs(residuals), 1e-300))
    clipped = np.clip(residuals, -_TUNING * scale, _TUNING * scale)
    inside = float(np.mean(np.abs(residuals) <= _TUNING * scale))
    spread = float(clipped @ clipped) / (len(xs) - 2) / max(inside, 1e-12) ** 2
    stderr = math.sqrt(spread / float(((xs - xs.mean()) ** 2).sum()))
    around = float(((ys - ys.mean()) ** 2).sum())
    r_squared = 1 - float(residuals @ residuals) / around if around else math.nan
    return HuberLine(float(found[1]), float(found[0]), stderr, r_squared, len(xs))
