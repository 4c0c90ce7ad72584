"""What the claims of `runs.edge_of_stability` are decided by: numbers out of traces, and plain functions of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from probes.outliers import outliers
from runs.engine.claims import Results

Array = NDArray[np.float64]
COHEN = "Cohen et al. 2021, arXiv 2103.00065"
ANDREYEV = "Andreyev and Beneventano 2024, arXiv 2412.20553"
SAGUN = "Sagun et al. 2017, arXiv 1706.04454"
WU = "Wu and Su 2023, arXiv 2305.17490"
LOW, HIGH = 0.95, 1.15  # "at 2/eta" is this band around it
ABOVE = 1.3  # where the sharpness of gradient descent is still just above 2/eta
NEAR = 0.01  # of the largest eigenvalue: nearer to zero than this is the bulk


def at_edge(plateau: float, high: float = HIGH) -> bool:
    """Whether a plateau, in units of 2/eta, is at the edge of stability."""
    return LOW <= plateau <= high


def reached(ratios: Array) -> int | None:
    """The first measurement at or above 2/eta, of eta/2 times the sharpness."""
    above = np.flatnonzero(ratios >= 1)
    return int(above[0]) if len(above) else None


def stretch(ratios: Array) -> slice:
    """The measurements from the first to the last one at the edge of stability or above."""
    there = np.flatnonzero(ratios >= LOW)
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0)


def plateau(ratios: Array) -> float:
    """The median over the last third."""
    return float(np.median(ratios[len(ratios) * 2 // 3 :]))


def smoothed(values: Array) -> Array:
    """The median of each value and the two on either side."""
    padded = np.pad(values, 2, constant_values=np.nan)
    return np.asarray(np.nanmedian([padded[i : i + len(values)] for i in range(5)], axis=0))


def share_raised(losses: Array) -> float:
    """The share of steps that raise the loss by more than float32 rounds."""
    return float((losses[1:] > losses[:-1] * (1 + 1e-6)).mean()) if len(losses) > 1 else 0.0


def long_run(losses: Array) -> float:
    """The mean loss of the last fifth over that of the first fifth."""
    part = max(1, len(losses) // 5)
    return float(losses[-part:].mean() / losses[:part].mean())


def correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation, equal values with their mean rank, and the lower end of its 95 % interval.

    By Fisher's transform with the variance 1.06 / (n - 3); nan where one of the two is constant.
    """
    from scipy.stats import spearmanr

    if len(set(x)) < 2 or len(set(y)) < 2 or len(x) < 4:
        return math.nan, math.nan
    rho = float(spearmanr(x, y).statistic)
    bounded = min(max(rho, -0.999999), 0.999999)
    return rho, math.tanh(math.atanh(bounded) - 1.96 * math.sqrt(1.06 / (len(x) - 3)))


# -- from the jobs' traces -----------------------------------------------------------------------------------


def ratios_of(results: Results, *patterns: str, group: str = "sharpness") -> dict[str, Array]:
    """eta/2 times what a group's probe measured, by job."""
    found = {}
    for name, data in results.data(*patterns).items():
        with results.trace(name) as trace:
            values = trace[group]["values" if group == "sharpness" else "value"]
            found[name] = np.asarray(values, dtype=float).reshape(-1) * data["rate"] / 2
    return found


def losses_of(results: Results, name: str, part: slice = slice(None)) -> Array:
    """The losses of a run from the first to the last of these measurements of the sharpness."""
    with results.trace(name) as trace:
        measured = np.asarray(trace["sharpness"]["step"])[part]
        loss = trace["loss"]
        steps, values = np.asarray(loss["step"]), np.asarray(loss["value"], dtype=float)
    return values[(steps >= measured[0]) & (steps <= measured[-1])]


def eigenvalues(results: Results, name: str) -> Array:
    """The largest eigenvalues at the end of training, largest first."""
    with results.trace(name) as trace:
        return np.asarray(trace["spectrum"]["values"][-1], dtype=float)


def share_near(results: Results, name: str, centre: float = 0.0) -> float:
    """The share of the eigenvalues within 1 % of the largest around `centre` times the largest, at the end."""
    largest = float(eigenvalues(results, name)[0])
    with results.trace(name) as trace:
        density = trace["density"].read()
    nodes, weights = np.asarray(density["nodes"][-1]), np.asarray(density["weights"][-1])
    near = np.abs(nodes - centre * largest) <= NEAR * largest
    return float((weights * near).sum(axis=1).mean())


def count_outliers(results: Results, name: str) -> int:
    """How many eigenvalues lie above the widest gap in log spacing, by the rule of `probes.outliers`."""
    return outliers(eigenvalues(results, name)).count


def profile(results: Results, names: Sequence[str], count: int) -> Array:
    """Logarithms of the second to the `count`-th largest eigenvalue over the largest, medians over runs."""
    values = [eigenvalues(results, name)[:count] for name in names]
    return np.median([np.log(v[1:] / v[0]) for v in values], axis=0)


def rounded_lists(ratios: dict[str, Array]) -> dict[str, list[float]]:
    """For JSON."""
    return {name: [round(float(v), 4) for v in r] for name, r in ratios.items()}
