"""What the claims of `runs.sde` measure in the results of jobs: powers of the step size, and whether an SDE tracks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGN = "Compagnoni et al., arXiv 2411.15958"
SAM = "Compagnoni et al., arXiv 2301.08203"
WAYS = {"solver": "solver", "sde": "SDE"}
Floats = Sequence[float] | NDArray[np.float64]
POWER = 0.8  # least power of eta in that distance
BAND = 0.15  # how far a ratio of covariances may be from 1 at the smallest eta
LOW_DIMENSIONAL = ("commuting", "rotated", "cauchy")  # problems on which every direction is looked at
MOMENT = 0.1  # the same where noise in the second moment is told from none


def power(x: Sequence[float], y: Sequence[float], stderr: Sequence[float]) -> tuple[float, float]:
    """p in y = c x^p by least squares with these errors, and half the width of where chi^2 is within 1 of its least.

    y may be 0. Powers from -4 to 8 are tried; the width is infinite where it is cut off there.
    """
    values, weights = np.asarray(y, dtype=np.float64), 1 / np.asarray(stderr, dtype=np.float64) ** 2
    powers = np.linspace(-4, 8, 2401)
    shapes = (np.asarray(x, dtype=np.float64) / max(x)) ** powers[:, None]
    c = np.maximum((weights * shapes * values).sum(1) / (weights * shapes**2).sum(1), 0)
    chi = (weights * (values - c[:, None] * shapes) ** 2).sum(1)
    inside = powers[chi <= chi.min() + 1]
    cut = inside[0] == powers[0] or inside[-1] == powers[-1]
    return float(powers[chi.argmin()]), math.inf if cut else max(float(inside[-1] - inside[0]) / 2, 0.005)


def errors(data: Any, kind: str = "sde") -> list[tuple[float, float, float, float]]:
    """(eta, distance of the means, its standard error, way made) by eta."""
    rows = [(row["eta"], row["sdes"][kind]) for row in data["rows"]]
    return [(eta, found["error"], found["error_stderr"], found["scale"]) for eta, found in rows]


def mean_power(data: Any, kind: str = "sde") -> tuple[float, float]:
    """The power of eta in the distance of the means, with its standard error."""
    rows = errors(data, kind)
    return power([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def worst_mean(data: Any, kind: str = "sde") -> float:
    """The largest distance of the means, less 2 standard errors, over the way made and eta."""
    return max((error - 2 * stderr) / (way * eta) for eta, error, stderr, way in errors(data, kind))


def mean_tracks(data: Any, kind: str = "sde") -> bool:
    """Whether the means are within O(eta): their distance has a power of eta of at least `POWER` less 2 errors.

    Where every distance is within 2 standard errors of 0 there is no power to fit. A theorem of weak order says nothing
    of the constant.
    """
    if all(error <= 2 * stderr for _, error, stderr, _ in errors(data, kind)):
        return True
    p, stderr = mean_power(data, kind)
    return p >= POWER - 2 * stderr


def smallest(data: Any, kind: str = "sde") -> Any:
    """What was found at the smallest eta."""
    return min(data["rows"], key=lambda row: row["eta"])["sdes"][kind]


def extremes(data: Any, kind: str = "sde") -> tuple[float, float]:
    """The ratios of covariances over all directions at the smallest eta, or that of the traces in high dimension."""
    found = smallest(data, kind)
    if found["ratio"] is None:
        return math.inf, math.inf
    if data["problem"] in LOW_DIMENSIONAL:
        return found["low"], found["high"]
    return found["ratio"], found["ratio"]


def band_tracks(data: Any, kind: str = "sde") -> bool:
    """Whether those ratios are within `BAND` of 1, widened by two standard errors."""
    low, high = extremes(data, kind)
    if not math.isfinite(low):
        return False
    if data["problem"] in LOW_DIMENSIONAL:
        # a ratio of two variances, each of them with a relative error of sqrt(2 / paths)
        slack = 2 * math.sqrt(2 / data["paths"] + 2 / smallest(data, kind)["paths"])
    else:
        slack = 2 * smallest(data, kind)["ratio_stderr"]
    return 1 - BAND - slack <= low and high <= 1 + BAND + slack


def slope(x: Sequence[float], y: Sequence[float], stderr: Sequence[float]) -> tuple[float, float]:
    """Of log y over log x, and its standard error from those of y."""
    weights = [v / e for v, e in zip(y, stderr, strict=True)]
    found, covariance = np.polyfit(np.log(x), np.log(y), 1, w=weights, cov="unscaled")
    return float(found[0]), float(np.sqrt(covariance[0, 0]))


def line(x: Floats, y: Floats) -> tuple[float, float]:
    """The slope of a straight line through the points, and R^2."""
    times, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    fitted = np.polyfit(times, values, 1)
    rest = values - np.polyval(fitted, times)
    return float(fitted[0]), float(1 - rest.var() / values.var())
